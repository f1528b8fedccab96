"""Micro-batching, and the server's limits, on the real application with a model that the test holds back."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from common.errors import BadImageError, DeviceFullError, NoAnswerError
from inference.answers import Answer, Request, Scored
from inference.app import Application, Limits
from inference.batching import Batcher, BatchFailedError, QueueFullError, TooLateError, Worker


class Held:
    """A computation that waits until it is let go, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.running = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self.running.set()
        assert self.go.wait(60)
        return [ValueError(f"{item} is negative") if item < 0 else item * 10 for item in items]


def batcher(
    compute: Any, max_batch: int = 4, budget: float = 0.0, max_waiting: int = 100
) -> Batcher[int, int]:
    return Batcher(compute, Worker("test"), max_batch=max_batch, budget=budget, max_waiting=max_waiting)


async def ask(queue: Batcher[int, int], item: int, within: float = 60.0) -> int:
    return await queue.submit(item, queue.now() + within)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


def test_what_gathers_while_a_batch_computes_is_the_next_batch() -> None:
    held = Held()

    async def play() -> list[int]:
        queue = batcher(held)
        first = asyncio.create_task(ask(queue, 1))
        await until(held.running.is_set)
        others = [asyncio.create_task(ask(queue, item)) for item in range(2, 8)]
        await until(lambda: queue.waiting == 6)
        held.go.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(play()) == [10, 20, 30, 40, 50, 60, 70]
    assert held.batches == [[1], [2, 3, 4, 5], [6, 7]]


@pytest.mark.parametrize(("sent", "batches"), [(4, [[0, 1, 2, 3]]), (3, [[0, 1, 2]])])
def test_an_idle_model_waits_for_company_within_the_budget(sent: int, batches: list[list[int]]) -> None:
    # A full batch need not wait for the budget's end: with 4 of 4 the test would take a minute.
    held = Held()
    held.go.set()

    async def play() -> None:
        queue = batcher(held, budget=60 if sent == 4 else 1.0)
        tasks = []
        for item in range(sent):
            tasks.append(asyncio.create_task(ask(queue, item)))
            for _ in range(20):  # long after a batch without a budget would have begun
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(play(), 60))
    assert held.batches == batches


@pytest.mark.parametrize(("turns", "batches"), [(1, [[0, 1, 2, 3], [4, 5]]), (20, [[0], [1, 2, 3, 4], [5]])])
def test_a_batch_gathers_while_each_turn_brings_somebody(turns: int, batches: list[list[int]]) -> None:
    held = Held()

    async def play() -> None:
        queue = batcher(held)
        tasks = []
        for item in range(6):
            tasks.append(asyncio.create_task(ask(queue, item)))
            for _ in range(turns):
                await asyncio.sleep(0)
        await until(held.running.is_set)
        held.go.set()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(play(), 60))
    assert held.batches == batches


class PanicException(BaseException):
    """What a library in Rust raises when it panics: no `Exception`."""


@pytest.mark.parametrize("kind", [MemoryError, PanicException])
def test_an_error_is_its_items_own_and_a_crash_is_everybodys(kind: type[BaseException]) -> None:
    held = Held()
    held.go.set()

    def crash(_: Sequence[int]) -> list[int | Exception]:
        raise kind("no memory on the device")

    async def play() -> tuple[list[Any], list[Any]]:
        good, bad = batcher(held, budget=0.05), batcher(crash, budget=0.05)
        own = await asyncio.gather(*(ask(good, item) for item in (1, -2, 3)), return_exceptions=True)
        all_of = await asyncio.gather(*(ask(bad, item) for item in (1, 2)), return_exceptions=True)
        return own, all_of

    own, all_of = asyncio.run(play())
    assert (own[0], repr(own[1]), own[2]) == (10, "ValueError('-2 is negative')", 30)
    assert all(isinstance(error, BatchFailedError) for error in all_of)
    assert [str(error) for error in all_of] == [f"{kind.__name__}: no memory on the device"] * 2


def test_a_computation_that_forgets_an_item_fails_as_a_whole() -> None:
    async def play() -> Any:
        return await asyncio.gather(ask(batcher(lambda items: []), 1), return_exceptions=True)

    assert [str(error) for error in asyncio.run(play())] == ["ValueError: 0 results for 1 items"]


def test_each_item_has_its_own_deadline_also_while_it_is_computed() -> None:
    held = Held()

    async def play() -> list[Any]:
        queue = batcher(held)
        calls = [asyncio.create_task(ask(queue, 1, 0.5))]
        await until(held.running.is_set)
        calls += [asyncio.create_task(ask(queue, item, within)) for item, within in ((2, 60), (3, 0.02))]
        late = await asyncio.gather(calls[0], calls[2], return_exceptions=True)
        held.go.set()
        return [*late, await calls[1]]

    first, third, second = asyncio.run(play())
    assert isinstance(first, TooLateError)
    assert isinstance(third, TooLateError)
    assert second == 20
    assert held.batches == [[1], [2]]


def test_a_deadline_is_kept_beside_later_ones_that_came_first() -> None:
    """A body that was long on its way leaves its request less time than those have that overtook it."""
    held = Held()

    async def play() -> int:
        queue = batcher(held)
        first = queue.submit(1, queue.now() + 60)
        await until(held.running.is_set)
        try:
            with pytest.raises(TooLateError):
                await asyncio.wait_for(queue.submit(2, queue.now() + 0.02), 20)
        finally:
            held.go.set()
        return await first

    assert asyncio.run(play()) == 10


def test_who_has_gone_is_not_computed_and_who_comes_too_many_is_refused() -> None:
    held = Held()

    async def play() -> list[int]:
        queue = batcher(held, max_waiting=2)
        first = asyncio.create_task(ask(queue, 1))
        await until(held.running.is_set)
        gone, kept = (asyncio.create_task(ask(queue, item)) for item in (2, 3))
        await until(lambda: queue.waiting == 2)
        with pytest.raises(QueueFullError, match="2 requests are waiting, which is the limit"):
            await ask(queue, 4)
        gone.cancel()
        held.go.set()
        answers = [await first, await kept]
        answers.append(await ask(queue, 5))  # it works on, and starts anew when it has been idle
        return answers

    assert asyncio.run(play()) == [10, 30, 50]
    assert held.batches == [[1], [3], [5]]


TOP = (Scored(label="7", score=0.9), Scored(label="1", score=0.1))


class Model:
    """A predictor whose answers the test lets go."""

    card = SimpleNamespace(version="g00000001/new")
    errors: ClassVar[dict[bytes, Exception]] = {
        b"bad": BadImageError("damaged"),
        b"nan": NoAnswerError("the model computed no probabilities (NaN)"),
        b"full": DeviceFullError("the device has no memory for one picture"),
    }

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = threading.Event()
        self.computed: list[bytes] = []

    def answer(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        self.running.set()
        assert self.go.wait(60)
        bodies = [request.body for request in requests]
        self.computed += bodies
        if b"crash" in bodies:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return [
            self.errors.get(request.body) or Answer("7", 0.9, TOP[: request.top_k], {"7": 0.9, "1": 0.1}, "m")
            for request in requests
        ]


Call = Callable[..., Awaitable[tuple[int, dict[bytes, bytes], Any]]]


def serve(limits: Limits, play: Callable[[Call, Model], Awaitable[None]]) -> None:
    """Run the application with a model that is loaded, and give the test a way to call it."""

    async def whole() -> None:
        model = Model()
        application = Application(lambda: model, pytest.fail, limits)  # type: ignore[arg-type, return-value]
        lifespan: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        ended: asyncio.Queue[Any] = asyncio.Queue()
        server = asyncio.create_task(application({"type": "lifespan"}, lifespan.get, ended.put))
        await lifespan.put({"type": "lifespan.startup"})
        await ended.get()

        async def call(
            path: str = "/invocations",
            body: bytes = b"x",
            after: Callable[[], Awaitable[dict[str, Any]]] | None = None,
            length: bool = True,
            **headers: str,
        ) -> tuple[int, dict[bytes, bytes], Any]:
            sent: list[Any] = []
            given = [(b"content-type", b"image/png")]
            given += [(b"content-length", str(len(body)).encode())] if length else []
            given += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
            scope = {
                "type": "http",
                "method": "GET" if path == "/ping" else "POST",
                "path": path,
                "headers": given,
            }

            first = [{"type": "http.request", "body": body, "more_body": body == b"half"}]

            async def receive() -> dict[str, Any]:
                return first.pop() if first else await (after or asyncio.Event().wait)()  # type: ignore[operator]

            async def send(message: Any) -> None:
                sent.append(message)

            await application(scope, receive, send)
            if not sent:
                return 0, {}, None
            return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])

        async with asyncio.timeout(60):
            while (await call("/ping"))[0] != 200:
                await asyncio.sleep(0.001)
            try:
                await play(call, model)
            finally:
                model.go.set()
                await lifespan.put({"type": "lifespan.shutdown"})
                await server

    asyncio.run(whole())


async def answered(call: Call) -> None:
    """Ask until an answer comes in time: on a busy machine one may miss a limit of 50 ms."""
    while (await call())[0] != 200:
        await asyncio.sleep(0.001)


def test_ping_answers_while_the_model_computes_and_one_bad_picture_harms_nobody() -> None:
    async def play(call: Call, model: Model) -> None:
        calls = [asyncio.create_task(call(body=body)) for body in (b"x", b"bad", b"y")]
        await until(model.running.is_set)
        assert (await call("/ping"))[0] == 200
        model.go.set()
        statuses = [(await task)[0] for task in calls]
        assert statuses == [200, 400, 200]

    serve(Limits(batch_wait=0.02), play)


def test_a_full_server_says_when_to_come_again() -> None:
    async def play(call: Call, model: Model) -> None:
        computing = asyncio.create_task(call())
        await until(model.running.is_set)
        waiting = asyncio.create_task(call())
        await asyncio.sleep(0.01)
        status, headers, answer = await call()
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert answer == {"error": "1 requests are waiting, which is the limit: try again"}
        model.go.set()
        assert [(await task)[0] for task in (computing, waiting)] == [200, 200]

    serve(Limits(max_waiting=1), play)


def test_bodies_in_flight_are_bounded_before_they_are_read() -> None:
    async def play(call: Call, model: Model) -> None:
        computing = asyncio.create_task(call(body=b"12345678"))
        await until(model.running.is_set)
        status, _, answer = await call(body=b"123")
        assert (status, answer["error"][:24]) == (503, "8 bytes of requests are ")
        model.go.set()
        assert (await computing)[0] == 200
        assert (await call(body=b"12345678"))[0] == 200  # what was answered is not in flight any more

    serve(Limits(max_in_flight_bytes=10), play)


def test_a_request_is_given_up_before_sagemaker_does() -> None:
    async def play(call: Call, model: Model) -> None:
        computing = asyncio.create_task(call())
        await until(model.running.is_set)
        for _ in range(2):  # the first that was given up leaves its place to the second
            status, headers, answer = await call()
            assert (status, headers[b"retry-after"]) == (503, b"1")
            assert answer["error"] == "no answer within 0.5 s: the endpoint is overloaded"
        assert (await computing)[0] == 503
        model.go.set()
        await answered(call)

    serve(Limits(answer_within=0.5, max_waiting=1), play)


def test_a_body_that_does_not_come_ends_its_connection() -> None:
    async def play(call: Call, model: Model) -> None:
        status, headers, answer = await call(body=b"half")
        assert (status, headers[b"connection"]) == (408, b"close")
        assert answer["error"] == "the body did not come within 0.05 s"
        model.go.set()
        await answered(call)

    serve(Limits(answer_within=0.05), play)


def test_who_leaves_the_queue_is_neither_computed_nor_answered() -> None:
    async def play(call: Call, model: Model) -> None:
        leaves = asyncio.Event()

        async def disconnect() -> dict[str, Any]:
            await leaves.wait()
            return {"type": "http.disconnect"}

        calls = [asyncio.create_task(call(body=b"0"))]
        await until(model.running.is_set)
        calls += [asyncio.create_task(call(body=b"%d" % number)) for number in (1, 2)]
        calls.append(asyncio.create_task(call(body=b"gone", after=disconnect)))
        await asyncio.sleep(0.01)
        leaves.set()
        assert await calls[3] == (0, {}, None)
        calls[3] = asyncio.create_task(call(body=b"3"))  # there is a place again
        await asyncio.sleep(0.01)
        model.go.set()
        assert [(await task)[0] for task in calls] == [200, 200, 200, 200]
        assert sorted(model.computed) == [b"0", b"1", b"2", b"3"]

    serve(Limits(max_batch=2, max_waiting=3), play)


def test_what_the_model_cannot_answer_is_a_reason_and_its_own_requests() -> None:
    async def play(call: Call, model: Model) -> None:
        model.go.set()
        nan, full, good = await asyncio.gather(*(call(body=body) for body in (b"nan", b"full", b"x")))
        assert (nan[0], nan[2]["error"]) == (500, "the model computed no probabilities (NaN)")
        assert (full[0], full[1][b"retry-after"]) == (503, b"1")
        assert full[2]["error"] == "the device has no memory for one picture: try again"
        assert good[0] == 200
        assert (await call("/ping"))[0] == 200

    serve(Limits(batch_wait=0.02), play)


def test_batches_that_fail_one_after_the_other_make_the_endpoint_unhealthy() -> None:
    async def play(call: Call, model: Model) -> None:
        model.go.set()
        for _ in range(3):
            assert (await call("/ping"))[0] == 200
            status, _, answer = await call(body=b"crash")
            assert (status, answer["error"]) == (500, "RuntimeError: CUDA error: unspecified launch failure")
        status, _, answer = await call("/ping")
        assert (status, answer["error"][:27]) == (503, "the last 3 batches failed: ")
        assert (await call())[0] == 200
        assert (await call("/ping"))[0] == 200

    serve(Limits(), play)


@pytest.mark.parametrize("kind", [ValueError, PanicException])
def test_a_model_that_cannot_be_loaded_is_told_to_the_process(kind: type[BaseException]) -> None:
    failures: list[Exception] = []

    def load() -> Any:
        raise kind("the weights are odd")

    async def whole() -> None:
        application = Application(load, failures.append, Limits())
        lifespan: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        server = asyncio.create_task(application({"type": "lifespan"}, lifespan.get, asyncio.Queue().put))
        await lifespan.put({"type": "lifespan.startup"})
        await until(lambda: bool(failures))
        await lifespan.put({"type": "lifespan.shutdown"})
        await server

    asyncio.run(asyncio.wait_for(whole(), 60))
    assert "the weights are odd" in str(failures[0])


def test_a_batch_that_never_ends_makes_the_endpoint_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(call: Call, model: Model) -> None:
        computing = asyncio.create_task(call())
        await until(model.running.is_set)
        assert (await call("/ping"))[0] == 200
        monkeypatch.setattr("inference.app.STUCK_SECONDS", -1.0)
        status, _, answer = await call("/ping")
        assert (status, answer["error"]) == (503, "a batch has been computing for 0 s: it is stuck")
        model.go.set()
        assert (await computing)[0] == 200

    serve(Limits(), play)


def test_custom_attributes_choose_the_best_and_come_back_with_the_inference_id() -> None:
    async def play(call: Call, model: Model) -> None:
        model.go.set()
        named = {
            "x_amzn_sagemaker_custom_attributes": "trace=1, top_k=1",
            "x_amzn_sagemaker_inference_id": "id-7",
        }
        status, headers, answer = await call(**named)
        assert (status, answer["topK"]) == (200, [{"label": "7", "score": 0.9}])
        assert headers[b"x-amzn-sagemaker-custom-attributes"] == b"trace=1, top_k=1"
        assert headers[b"x-amzn-sagemaker-inference-id"] == b"id-7"
        status, _, answer = await call(x_amzn_sagemaker_custom_attributes="top_k=none")
        assert (status, answer["error"]) == (400, "top_k is 'none': it must be a whole number above 0")

    serve(Limits(), play)
