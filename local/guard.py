"""Refuse requests that a web page could have sent: foreign Host, Origin or fetch site.

The embedded AWS runs code that it is given and asks for no password; listening on the loopback
interface alone does not keep a browser's pages away from it (DNS rebinding, cross-site requests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAME_SITE = frozenset({"same-origin", "none"})


class Guard:
    """WSGI middleware that answers 403 to what is not a local client's own request."""

    def __init__(self, application: Callable[..., Iterable[bytes]], port: int) -> None:
        self._application = application
        self._port = port

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Pass the request on, or refuse it."""
        reason = self.refusal(environ)
        if reason is None:
            return self._application(environ, _without_cors(start_response))
        body = f"Refused: {reason}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", headers)
        return [body]

    def refusal(self, environ: dict[str, Any]) -> str | None:
        """Return why the request is refused, or None."""
        host = environ.get("HTTP_HOST", "")
        if not self._ours(f"http://{host}"):
            return f"the Host header {host!r} does not name this server (use localhost:{self._port})"
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and not self._ours(origin):
            return f"the request comes from a web page of {origin!r}"
        site = environ.get("HTTP_SEC_FETCH_SITE")
        if site is not None and site not in _SAME_SITE:
            return f"the request comes from a web page ({site})"
        return None

    def _ours(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        # Subdomains of localhost are this machine too: virtual-hosted buckets use them.
        return port == self._port and (name in LOOPBACK or name.endswith(".localhost"))


def _without_cors(start_response: Callable[..., Any]) -> Callable[..., Any]:
    """Drop the headers with which moto's S3 would let any page read its answers."""

    def filtered(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        kept = [item for item in headers if not item[0].lower().startswith("access-control-")]
        return start_response(status, kept, *rest)

    return filtered
