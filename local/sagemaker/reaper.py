"""Ends the containers' process groups when the server is gone, even by SIGKILL.

Run as a script with a pipe on stdin. Lines are ``+pgid`` and ``-pgid``; the end of the stream is
the end of the server. One such process serves all containers.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Remember the groups named on stdin; at its end kill those that are left."""
    groups = set()
    for line in sys.stdin:
        number = int(line[1:])
        if line[0] == "+":
            groups.add(number)
        else:
            groups.discard(number)
    for number in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(number, signal.SIGKILL)


if __name__ == "__main__":
    main()
