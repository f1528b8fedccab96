"""Who a worker is: an access key id per role, so that a call can be traced back to the role that made it."""

from __future__ import annotations

import base64
import hashlib
import threading

_roles: dict[str, str] = {}
_lock = threading.Lock()


def access_key_for(role_arn: str) -> str:
    """Return the access key id of the workers that run under ``role_arn``, and remember whose it is.

    It has the form of a temporary key (``ASIA`` and 16 base32 characters) and depends on the ARN alone.
    """
    digest = hashlib.sha256(role_arn.encode()).digest()
    key = "ASIA" + base64.b32encode(digest)[:16].decode()
    with _lock:
        _roles[key] = role_arn
    return key


def role_of(access_key_id: str) -> str | None:
    """Return the role ARN that ``access_key_id`` was given out for, or None for any other key."""
    with _lock:
        return _roles.get(access_key_id)


def known_keys() -> dict[str, str]:
    """Return a copy of the registry: access key id → role ARN."""
    with _lock:
        return dict(_roles)
