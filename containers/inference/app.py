"""The HTTP side: a bare ASGI application, for there are two routes and no framework earns its time here.

SageMaker's contract (developer guide, "Custom inference code with hosting services"): ``GET /ping`` answers
200 only when requests can be served, and at any load; ``POST /invocations`` takes the request as the client
sent it and has 60 seconds; custom attributes and the inference id come and go as headers.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from common.errors import BadImageError, ImageTooLargeError
from common.imaging import MAX_BYTES
from common.inputs import CONTENT_TYPES, media_type
from inference.batching import Batcher, QueueFullError

if TYPE_CHECKING:
    from inference.predictor import Answer, Predictor, Request

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

log = logging.getLogger(__name__)

ATTRIBUTES_HEADER = b"x-amzn-sagemaker-custom-attributes"
INFERENCE_ID_HEADER = b"x-amzn-sagemaker-inference-id"
TOP_K = "top_k"
DEFAULT_TOP_K = 3
RETRY_AFTER_SECONDS = 1
_JSON_HEADER: Header = (b"content-type", b"application/json")


@dataclass(frozen=True)
class Limits:
    """What the server takes on.

    Parameters
    ----------
    max_batch
        Pictures of one batch at most.
    batch_wait
        Seconds that a request may wait for company while the model is idle.
    max_waiting
        Requests that wait for the model at most; one more is answered 503.
    max_in_flight_bytes
        Bytes of bodies that are being received or wait, at most; more is answered 503.
    answer_within
        Seconds after which a request is given up: SageMaker does not wait longer than 60.
    """

    max_batch: int = 32
    batch_wait: float = 0.0
    max_waiting: int = 256
    max_in_flight_bytes: int = 256 * 1024 * 1024
    answer_within: float = 55.0


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
    limits
        What the server takes on.
    """

    def __init__(
        self,
        load: Callable[[], Predictor],
        on_load_failure: Callable[[Exception], None],
        limits: Limits | None = None,
    ) -> None:
        self._load = load
        self._on_load_failure = on_load_failure
        self._limits = limits or Limits()
        self._predictor: Predictor | None = None
        # Decoding a hostile image and a team's larger model take longer than the event loop can spare.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._batcher: Batcher[Request, Answer] | None = None
        self._in_flight_bytes = 0
        self._loading: asyncio.Task[None] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        try:
            status, content = await self._route(scope["method"], scope["path"], headers, receive)
        except ClientGoneError:
            return
        except HttpError as error:
            status, content = error.status, _dump({"error": error.reason})
        except Exception:
            log.exception("the request failed")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            content = _dump({"error": "internal error: see the endpoint's log"})
        answered = [_JSON_HEADER, (b"content-length", str(len(content)).encode())]
        answered += [
            (name, headers[name]) for name in (ATTRIBUTES_HEADER, INFERENCE_ID_HEADER) if name in headers
        ]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            answered.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
        await send({"type": "http.response.start", "status": int(status), "headers": answered})
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
            predictor = await asyncio.get_running_loop().run_in_executor(self._worker, self._load)
        except Exception as error:  # whatever it is, the process must end and say so
            self._on_load_failure(error)
            return
        self._batcher = Batcher(
            predictor.answer,
            self._worker,
            max_batch=self._limits.max_batch,
            budget=self._limits.batch_wait,
            max_waiting=self._limits.max_waiting,
        )
        self._predictor = predictor

    async def _route(
        self, method: str, path: str, headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[HTTPStatus, bytes]:
        wanted = {"/ping": "GET", "/invocations": "POST"}.get(path)
        if wanted is None:
            raise HttpError(HTTPStatus.NOT_FOUND, f"no such path: {path}; there are /ping and /invocations")
        if method != wanted:
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {wanted}, not {method}")
        if self._predictor is None or self._batcher is None:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "the model is being loaded")
        if path == "/ping":
            return HTTPStatus.OK, _dump({"model": self._predictor.card.version})
        return HTTPStatus.OK, await self._invoke(headers, receive, self._batcher)

    async def _invoke(
        self, headers: dict[bytes, bytes], receive: Receive, batcher: Batcher[Request, Answer]
    ) -> bytes:
        from inference.predictor import Request  # loaded by now, and torch with it

        kind = media_type(headers.get(b"content-type", b"").decode("latin-1"))
        if kind not in CONTENT_TYPES:
            raise HttpError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"content type {kind!r} is not accepted: send {', '.join(CONTENT_TYPES)}",
            )
        top_k = _top_k(headers.get(ATTRIBUTES_HEADER, b"").decode("latin-1"))
        reserved = self._reserve(headers)
        try:
            async with asyncio.timeout(self._limits.answer_within):
                body = await _read_body(receive)
                return _dump(_members(await batcher.submit(Request(body, kind, top_k))))
        except TimeoutError as error:
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"no answer within {self._limits.answer_within:g} s: the endpoint is overloaded",
            ) from error
        except QueueFullError as error:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}: try again") from error
        except ImageTooLargeError as error:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error
        except BadImageError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        finally:
            self._in_flight_bytes -= reserved

    def _reserve(self, headers: dict[bytes, bytes]) -> int:
        """Take a body's bytes on before it is read; without a length it counts as the largest."""
        length = headers.get(b"content-length", b"")
        size = int(length) if length.isdigit() else MAX_BYTES
        if size > MAX_BYTES:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BYTES} bytes")
        if self._in_flight_bytes + size > self._limits.max_in_flight_bytes:
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self._in_flight_bytes} bytes of requests are in flight, which is the limit: try again",
            )
        self._in_flight_bytes += size
        return size


async def _read_body(receive: Receive) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return bytes(message.get("body", b""))
    body = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > MAX_BYTES:  # a chunked body has no length to refuse it by
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BYTES} bytes")
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()


def _top_k(attributes: str) -> int:
    """Read ``top_k=5`` among the custom attributes ``name=value,…``; the others are the client's own."""
    for attribute in attributes.split(","):
        name, _, value = attribute.partition("=")
        if name.strip() == TOP_K:
            if not value.strip().isdigit() or int(value) < 1:
                raise HttpError(
                    HTTPStatus.BAD_REQUEST, f"{TOP_K} is {value!r}: it must be a whole number above 0"
                )
            return int(value)
    return DEFAULT_TOP_K


def _members(answer: Answer) -> dict[str, Any]:
    return {
        "label": answer.label,
        "score": answer.score,
        "topK": [{"label": best.label, "score": best.score} for best in answer.top_k],
        "scores": answer.scores,
        "model": answer.model,
    }


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
