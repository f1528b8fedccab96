"""Pure rules: nothing here may reach the network, not even by accident."""

from __future__ import annotations

import socket
from typing import Any, NoReturn

import pytest


class NetworkUsedError(AssertionError):
    """A unit test opened a socket."""


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NetworkUsedError("a rule opened a socket: rules are pure")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
