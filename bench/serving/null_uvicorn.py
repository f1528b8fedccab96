"""Bare uvicorn: an ASGI application that reads the body and answers fixed JSON. Argument: the port."""

from __future__ import annotations

import json
import sys
from typing import Any

import uvicorn

ANSWER = json.dumps({"label": "7", "score": 0.91, "padding": "x" * 280}).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the body, answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


if __name__ == "__main__":
    uvicorn.run(
        application,  # type: ignore[arg-type]
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
