"""FastAPI on uvicorn: a route that reads the body and returns a dict. Argument: the port."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

SCORES = {str(digit): 0.91 if digit == 7 else 0.01 for digit in range(10)}
TOP = [{"label": label, "score": SCORES[label]} for label in ("7", "0", "1")]
application = FastAPI()


@application.post("/invocations")
async def invocations(request: Request) -> dict[str, Any]:
    """Read the body, answer."""
    await request.body()
    return {"label": "7", "score": 0.91, "topK": TOP, "scores": SCORES, "model": "g00000001/new"}


if __name__ == "__main__":
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
