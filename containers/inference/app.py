"""The HTTP side: a bare ASGI application, for there are two routes and no framework earns its time here.

SageMaker's contract: ``GET /ping`` answers 200 only when requests can be served; ``POST /invocations`` takes
the request as the client sent it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from common.errors import BadImageError, ImageTooLargeError
from common.imaging import MAX_BYTES

if TYPE_CHECKING:
    from inference.predictor import Predictor

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger(__name__)

CONTENT_TYPES = ("image/png", "image/jpeg")


class HttpError(Exception):
    """A request that is answered with an error status and a reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete: there is nobody to answer."""


class Application:
    """ASGI application around a predictor that is loaded after the server has started to listen.

    Parameters
    ----------
    load
        Makes the predictor; it runs on the worker thread, so ``/ping`` answers 503 meanwhile.
    on_load_failure
        Called with the error when ``load`` raises: a server without a model is of no use.
    """

    def __init__(self, load: Callable[[], Predictor], on_load_failure: Callable[[Exception], None]) -> None:
        self._load = load
        self._on_load_failure = on_load_failure
        self._predictor: Predictor | None = None
        # Decoding a hostile image and a team's larger model take longer than the event loop can spare, so
        # both run on a thread; one, because torch and the GPU gain nothing from answers side by side.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._loading: asyncio.Task[None] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            status, body = await self._route(scope, receive)
        except ClientGoneError:
            return
        except HttpError as error:
            status, body = error.status, {"error": error.reason}
        except Exception:
            log.exception("the request failed")
            status, body = (
                HTTPStatus.INTERNAL_SERVER_ERROR,
                {"error": "internal error: see the endpoint's log"},
            )
        content = json.dumps(body, ensure_ascii=False).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._loading = asyncio.create_task(self._load_model())
                await send({"type": "lifespan.startup.complete"})
            else:
                self._worker.shutdown(wait=True)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _load_model(self) -> None:
        try:
            self._predictor = await asyncio.get_running_loop().run_in_executor(self._worker, self._load)
        except Exception as error:  # whatever it is, the process must end and say so
            self._on_load_failure(error)

    async def _route(
        self, scope: MutableMapping[str, Any], receive: Receive
    ) -> tuple[HTTPStatus, dict[str, Any]]:
        path, method = scope["path"], scope["method"]
        routes = {"/ping": "GET", "/invocations": "POST"}
        if path not in routes:
            raise HttpError(HTTPStatus.NOT_FOUND, f"no such path: {path}; there are /ping and /invocations")
        if method != routes[path]:
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {routes[path]}, not {method}")
        if self._predictor is None:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "the model is being loaded")
        if path == "/ping":
            return HTTPStatus.OK, {"model": self._predictor.card.version}
        return await self._invoke(scope, receive, self._predictor)

    async def _invoke(
        self, scope: MutableMapping[str, Any], receive: Receive, predictor: Predictor
    ) -> tuple[HTTPStatus, dict[str, Any]]:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        content_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if content_type not in CONTENT_TYPES:
            raise HttpError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"content type {content_type!r} is not accepted: send {' or '.join(CONTENT_TYPES)}",
            )
        body = await self._body(headers, receive)
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._worker, predictor.answer, body)
        except ImageTooLargeError as error:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error
        except BadImageError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        return HTTPStatus.OK, asdict(answer)

    @staticmethod
    async def _body(headers: dict[bytes, str], receive: Receive) -> bytes:
        too_large = HttpError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BYTES} bytes"
        )
        length = headers.get(b"content-length", "0")
        if length.isdigit() and int(length) > MAX_BYTES:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            body += message.get("body", b"")
            if len(body) > MAX_BYTES:  # a chunked body has no length to refuse it by
                raise too_large
            if not message.get("more_body"):
                return bytes(body)
