"""The HTTP side: a bare ASGI application, for there are two routes and no framework earns its time here.

SageMaker's contract (developer guide, "Custom inference code with hosting services"): ``GET /ping`` answers
200 only when requests can be served, within 2 seconds and at any load; ``POST /invocations`` takes the
request as the client sent it and has 60 seconds; custom attributes and the inference id come and go as
headers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from common.errors import BadImageError, DeviceFullError, ImageTooLargeError, NoAnswerError
from common.imaging import MAX_BYTES
from common.inputs import CONTENT_TYPES, media_type
from inference.answers import Answer, Request
from inference.batching import Batcher, BatchFailedError, QueueFullError, TooLateError, Worker

if TYPE_CHECKING:
    from inference.predictor import Predictor

Message = MutableMapping[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

log = logging.getLogger(__name__)

ATTRIBUTES_HEADER = b"x-amzn-sagemaker-custom-attributes"
INFERENCE_ID_HEADER = b"x-amzn-sagemaker-inference-id"
DEFAULT_TOP_K = 3
RETRY_AFTER_SECONDS = 1
FAILED_BATCHES = 3
"""So many failed batches in a row are the fault of the device or the model, not of the requests."""
STUCK_SECONDS = 60.0
"""A batch that computes longer than any request may wait is stuck."""
MAX_REASON_CHARS = 500
GC_THRESHOLD = 20_000
_JSON_HEADER: Header = (b"content-type", b"application/json")
_CLOSE_HEADER: Header = (b"connection", b"close")
_RETRY_HEADER: Header = (b"retry-after", str(RETRY_AFTER_SECONDS).encode())
MAX_HEADER_CHARS = 1024
"""SageMaker takes at most so many visible ASCII characters back as custom attributes."""
_KINDS = {kind.encode(): kind for kind in CONTENT_TYPES}
"""Content types as nearly every client writes them."""
MAX_TOP_K = 999_999


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
    """A request that is answered with an error status and a reason; ``close`` ends its connection too."""

    def __init__(self, status: HTTPStatus, reason: str, *, close: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason if len(reason) <= MAX_REASON_CHARS else f"{reason[: MAX_REASON_CHARS - 1]}…"
        self.close = close


class ClientGoneError(Exception):
    """The client closed the connection before it was answered: there is nobody to answer."""


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
        self._worker = Worker("predict")
        self._batcher: Batcher[Request, Answer] | None = None
        self._in_flight_bytes = 0
        self._loading: asyncio.Task[None] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._lifespan(receive, send)
            return
        headers = dict(scope["headers"])
        refused: tuple[Header, ...] = ()
        status = 200
        try:
            if scope["path"] == "/invocations" and scope["method"] == "POST" and self._batcher is not None:
                content = await self._invoke(headers, receive, self._batcher)
            else:
                content = self._other(scope["method"], scope["path"])
        except ClientGoneError:
            return
        except HttpError as error:
            status, content = int(error.status), orjson.dumps({"error": error.reason})
            # A client that asked first whether to send its body must not send it into the next request.
            if error.close or b"expect" in headers:
                refused += (_CLOSE_HEADER,)
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                refused += (_RETRY_HEADER,)
        except Exception:
            log.exception("the request failed")
            status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
            content = orjson.dumps({"error": "internal error: see the endpoint's log"})
        answered = [_JSON_HEADER, (b"content-length", b"%d" % len(content)), *refused]
        attributes, inference_id = headers.get(ATTRIBUTES_HEADER), headers.get(INFERENCE_ID_HEADER)
        if attributes is not None and _is_plain(attributes):
            answered.append((ATTRIBUTES_HEADER, attributes))
        if inference_id is not None and _is_plain(inference_id):
            answered.append((INFERENCE_ID_HEADER, inference_id))
        await send({"type": "http.response.start", "status": status, "headers": answered})
        await send({"type": "http.response.body", "body": content})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._loading = asyncio.create_task(self._load_model())
                await send({"type": "lifespan.startup.complete"})
            else:
                self._worker.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _load_model(self) -> None:
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Predictor] = loop.create_future()

        def load() -> None:
            try:
                predictor = self._load()
            except BaseException as error:  # a Rust library panics with no Exception
                failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
                loop.call_soon_threadsafe(loaded.set_exception, failure)
            else:
                loop.call_soon_threadsafe(loaded.set_result, predictor)

        self._worker.submit(load)
        try:
            predictor = await loaded
        except Exception as error:  # whatever it is, the process must end and say so
            self._on_load_failure(error)
            return
        # What is loaded stays: a collection that looks through all of torch would stop the loop for long. The
        # requests in flight are few and hold no cycles, so looking through them often finds nothing.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        self._batcher = Batcher(
            predictor.answer,
            self._worker,
            max_batch=self._limits.max_batch,
            budget=self._limits.batch_wait,
            max_waiting=self._limits.max_waiting,
        )
        self._predictor = predictor

    def _other(self, method: str, path: str) -> bytes:
        """Answer everything that is no picture for a model that is loaded."""
        if path == "/invocations":
            wanted = "POST"
        elif path == "/ping":
            wanted = "GET"
        else:
            raise HttpError(HTTPStatus.NOT_FOUND, f"no such path: {path}; there are /ping and /invocations")
        if method != wanted:
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {wanted}, not {method}")
        if self._predictor is None or self._batcher is None:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "the model is being loaded")
        return self._health(self._predictor, self._batcher)

    def _health(self, predictor: Predictor, batcher: Batcher[Request, Answer]) -> bytes:
        """Say whether requests can be answered: a GPU that is gone fails every batch until it is replaced."""
        if len(batcher.failures) >= FAILED_BATCHES:
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"the last {len(batcher.failures)} batches failed: {batcher.failures[-1]}",
            )
        if (seconds := batcher.computing_for) > STUCK_SECONDS:
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"a batch has been computing for {seconds:.0f} s: it is stuck"
            )
        return orjson.dumps({"model": predictor.card.version})

    async def _invoke(
        self, headers: dict[bytes, bytes], receive: Receive, batcher: Batcher[Request, Answer]
    ) -> bytes:
        deadline = batcher.now() + self._limits.answer_within
        given = headers.get(b"content-type", b"")
        kind = _KINDS.get(given) or media_type(given.decode("latin-1"))
        if kind not in CONTENT_TYPES:
            raise HttpError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"content type {kind!r} is not accepted: send {', '.join(CONTENT_TYPES)}",
            )
        attributes = headers.get(ATTRIBUTES_HEADER)
        top_k = _top_k(attributes) if attributes else DEFAULT_TOP_K
        reserved = self._reserve(headers)
        try:
            message = _at_hand(receive)
            if message is None or message["type"] != "http.request" or message.get("more_body"):
                body = await self._read_body(message, receive, deadline)
            else:
                body = message["body"]
            answer = batcher.submit(Request(body, kind, top_k), deadline)
            if batcher.waiting > self._limits.max_batch:
                return orjson.dumps((await _unless_gone(answer, receive)).to_json())
            return orjson.dumps((await answer).to_json())
        except ClientGoneError:
            batcher.forget()
            raise
        except TooLateError as error:
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"no answer within {self._limits.answer_within:g} s: the endpoint is overloaded",
            ) from error
        except (QueueFullError, DeviceFullError) as error:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}: try again") from error
        except ImageTooLargeError as error:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error
        except BadImageError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        except (BatchFailedError, NoAnswerError) as error:
            raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from error
        finally:
            self._in_flight_bytes -= reserved

    def _reserve(self, headers: dict[bytes, bytes]) -> int:
        """Take a body's bytes on before it is read; without a length it counts as the largest."""
        length = headers.get(b"content-length")
        size = MAX_BYTES if length is None else int(length)  # the HTTP parser has seen that it is a number
        if size > MAX_BYTES:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BYTES} bytes")
        if self._in_flight_bytes + size > self._limits.max_in_flight_bytes:
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self._in_flight_bytes} bytes of requests are in flight, which is the limit: try again",
            )
        self._in_flight_bytes += size
        return size

    async def _read_body(self, message: Message | None, receive: Receive, deadline: float) -> bytes:
        try:
            async with asyncio.timeout_at(deadline):
                return await _rest_of_body(message or await receive(), receive)
        except TimeoutError as error:
            raise HttpError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body did not come within {self._limits.answer_within:g} s",
                close=True,
            ) from error


def _at_hand(receive: Receive) -> Message | None:
    """Return the next message if it need not be waited for.

    Most bodies arrive together with their headers, and a time limit for what does not wait costs a third of
    what the server does for such a request.
    """
    step = receive()
    try:
        step.send(None)
    except StopIteration as ready:
        message: Message = ready.value
        return message
    step.close()
    return None


async def _rest_of_body(message: Message, receive: Receive) -> bytes:
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


async def _unless_gone(answer: asyncio.Future[Answer], receive: Receive) -> Answer:
    """Wait for the answer, but give the place in the queue up when the client goes.

    Only who has to wait behind a whole batch is watched: watching costs as much as a short wait.
    """
    gone = asyncio.ensure_future(receive())
    gone.add_done_callback(lambda _: answer.cancel())
    try:
        return await answer
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            raise ClientGoneError from None
        raise
    finally:
        gone.cancel()


def _is_plain(value: bytes) -> bool:
    """Whether SageMaker takes a header back; the HTTP parser has refused control characters already."""
    return len(value) <= MAX_HEADER_CHARS and value.isascii()


def _top_k(attributes: bytes) -> int:
    """Read ``top_k=5`` among the custom attributes ``name=value,…``; the others are the client's own."""
    if not _is_plain(attributes):
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            f"the custom attributes must be at most {MAX_HEADER_CHARS} visible ASCII characters",
        )
    for attribute in attributes.split(b","):
        name, is_set, value = attribute.partition(b"=")
        if is_set and name.strip() == b"top_k":
            digits = value.strip()
            if digits.isdigit() and 0 < (top_k := int(digits)) <= MAX_TOP_K:
                return top_k
            raise HttpError(
                HTTPStatus.BAD_REQUEST, f"top_k is {value.decode()!r}: it must be a whole number above 0"
            )
    return DEFAULT_TOP_K
