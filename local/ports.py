"""A port for a process that is about to start."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port of the loopback interface that the kernel gives to nobody else for the next minute.

    A port that was only bound and released is anybody's until the process that it was meant for has started,
    which takes seconds. This one has had a connection that its own side closed first: for a minute
    (``TIME_WAIT``) it is found by nobody who asks for any port, and whoever names it gets it, with
    ``SO_REUSEADDR`` as servers set it.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address):
            accepted, _ = listener.accept()
            accepted.close()
    return int(address[1])
