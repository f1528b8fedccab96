"""Bare uvicorn: an ASGI application that reads the body and answers fixed bytes.

Arguments: the port, and ``plain`` to leave out the two headers that SageMaker's contract sends back. The
answer has as many bytes as our server's, and so many headers as ours unless it is plain: uvicorn examines
each of them with regular expressions.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from load import HEADERS

ANSWER_BYTES = 241
"""Of our server's answer with ten labels (`null_ours.ANSWER`)."""
ECHOED = ("x-amzn-sagemaker-custom-attributes", "x-amzn-sagemaker-inference-id")
ANSWER = b'{"label":"7"}'.ljust(ANSWER_BYTES)
ANSWER_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
if sys.argv[2:] != ["plain"]:
    ANSWER_HEADERS += [(name.encode(), HEADERS[name].encode()) for name in ECHOED]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the body, answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": ANSWER_HEADERS})
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
