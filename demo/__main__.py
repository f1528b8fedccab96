"""``python -m demo``: the whole loop once."""

import signal
import sys

if __name__ == "__main__":
    # Before the imports, which take a second: an early Ctrl-C ends as quietly as a later one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(130))

    from demo.program import main

    raise SystemExit(main())
