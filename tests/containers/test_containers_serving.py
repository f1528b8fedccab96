"""What an endpoint was set to is what it does, from the environment to the batch."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.contract import Parameters, Paths
from common.imaging import MAX_BYTES
from evaluation import latency
from inference import __main__ as entry
from inference.answers import Answer, Request
from inference.app import Application, Limits
from inference.predictor import Predictor
from models import artifact
from models.artifact import ModelCard
from tests.containers.conftest import Digit
from tests.containers.test_containers_batching import Call, Model, serve, until

CARD = ModelCard("convnet", [str(digit) for digit in range(10)], 16, 1, "g00000007", "new")


def limits(**given: str) -> Limits:
    return entry._limits(Parameters(given, "environment variable"))


def test_the_limits_are_those_of_the_environment_and_end_before_sagemaker_does() -> None:
    given = {"MAX_BATCH": "7", "BATCH_WAIT_MS": "5", "MAX_WAITING": "9", "ANSWER_WITHIN_SECONDS": "3"}
    assert limits(**given) == replace(
        Limits(), max_batch=7, batch_wait=0.005, max_waiting=9, answer_within=3.0
    )
    assert limits() == Limits()
    # SageMaker gives a request 60 seconds, and a container 30 from SIGTERM to SIGKILL.
    assert Limits().answer_within < 60
    server = entry.http_server(Application(lambda: None, pytest.fail), "127.0.0.1", 0)  # type: ignore[arg-type, return-value]
    assert server.config.timeout_graceful_shutdown is not None
    assert 20 <= server.config.timeout_graceful_shutdown < 30


@pytest.fixture
def restored() -> Iterator[None]:
    """Leave the process as it was: a server takes its signals and its threads."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers, threads = [signal.getsignal(number) for number in numbers], torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def test_the_server_is_set_up_as_its_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored: None
) -> None:
    # Given a server that ends once its model is loaded
    found: list[tuple[str, int, Limits, Predictor]] = []

    def http_server(application: Application, host: str, port: int) -> Any:
        def run() -> None:
            found.append((host, port, application._limits, application._load()))

        return SimpleNamespace(run=run)

    monkeypatch.setattr(entry, "http_server", http_server)
    artifact.save(tmp_path / "model", CARD, CARD.build())
    given = {"MAX_BATCH": "3", "BATCH_WAIT_MS": "5", "MAX_WAITING": "9", "ANSWER_WITHIN_SECONDS": "7"}
    given |= {"PRECISION": "fp16", "DECODERS": "5", "THREADS": "2", "SAGEMAKER_BIND_TO_PORT": "18080"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("BIND_HOST", raising=False)
    # When
    entry.serve(Paths(tmp_path))
    # Then
    ((host, port, limits, predictor),) = found
    assert (host, port) == ("0.0.0.0", 18080)  # SageMaker connects from outside the container
    assert limits == replace(Limits(), max_batch=3, batch_wait=0.005, max_waiting=9, answer_within=7.0)
    assert (predictor.most_at_once, predictor.precision, predictor.threads) == (3, "fp16", 2)
    assert predictor._decoders._max_workers == 5


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each batch that a model is given."""
    found: list[int] = []
    answer = Model.answer

    def counted(self: Model, requests: Sequence[Request]) -> list[Answer | Exception]:
        found.append(len(requests))
        return answer(self, requests)

    monkeypatch.setattr(Model, "answer", counted)
    return found


def test_no_batch_is_larger_than_it_may_be_and_the_worker_ends_with_the_server(sizes: list[int]) -> None:
    async def play(call: Call, model: Model) -> None:
        calls = [asyncio.create_task(call())]
        await until(model.running.is_set)
        calls += [asyncio.create_task(call()) for _ in range(5)]
        await asyncio.sleep(0.01)
        model.go.set()
        assert [(await task)[0] for task in calls] == [200] * 6

    before = set(threading.enumerate())
    serve(Limits(max_batch=2), play)
    assert sizes == [1, 2, 2, 1]
    # A thread that still computed would be cut off in the middle of torch when the process ends.
    assert set(threading.enumerate()) <= before


def test_a_request_waits_for_company_as_long_as_it_may(sizes: list[int]) -> None:
    async def play(call: Call, model: Model) -> None:
        model.go.set()
        first = asyncio.create_task(call())
        await asyncio.sleep(0.02)
        assert not model.running.is_set()
        assert [(await task)[0] for task in (first, asyncio.create_task(call()))] == [200, 200]

    serve(Limits(max_batch=2, batch_wait=60.0), play)
    assert sizes == [2]


def test_a_body_without_a_length_takes_the_room_of_the_largest() -> None:
    async def play(call: Call, model: Model) -> None:
        computing = asyncio.create_task(call(length=False))
        await until(model.running.is_set)
        status, _, answer = await call(body=b"12")
        assert (status, answer["error"].partition(" bytes")[0]) == (503, str(MAX_BYTES))
        model.go.set()
        assert (await computing)[0] == 200

    serve(Limits(max_in_flight_bytes=MAX_BYTES + 1), play)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    artifact.save(tmp_path, CARD, CARD.build())
    return tmp_path


def test_every_size_of_batch_was_computed_before_anybody_is_answered(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    compute = Predictor._probabilities

    def counted(self: Predictor, pixels: Sequence[Any]) -> list[list[float]]:
        found.append(len(pixels))
        return compute(self, pixels)

    monkeypatch.setattr(Predictor, "_probabilities", counted)
    threads = torch.get_num_threads()
    Predictor(model, max_batch=6)
    torch.set_num_threads(threads)
    assert sorted(set(found)) == [1, 2, 4, 6]


def test_the_latency_of_an_evaluation_is_that_of_one_thread(
    model: Path, digits: list[Digit], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given times of 1 to 100 ms, one of them 5 s
    taken = [*(n / 1000 for n in range(1, 100)), 5.0]
    asked: list[tuple[int, int]] = []

    def times(answer: Any, images: Sequence[bytes], size: int) -> list[float]:
        answer(images[:size])
        asked.append((size, torch.get_num_threads()))
        return taken

    monkeypatch.setattr(latency, "_times", times)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    # When
    found = latency.measure(*artifact.load(model), [digit.png for digit in digits[:32]])
    left = torch.get_num_threads()
    torch.set_num_threads(threads)
    # Then
    assert (asked, left) == ([(1, 1), (32, 1)], 2)
    assert found["batch1"]["medianMs"] == pytest.approx(50.5)
    assert 99 < found["batch1"]["p99Ms"] < 1000
    assert found["batch32"]["imagesPerSecond"] == pytest.approx(32 / 0.0505)
