"""``python -m local``: the embedded AWS on one loopback port, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import threading

from local.server import start


def main() -> int:
    """Run the server until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "4566")))
    parser.add_argument("--no-deploy", action="store_true", help="start empty, without the stack")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    aws = start(options.port)
    print("ready", flush=True)
    stop.wait()
    aws.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
