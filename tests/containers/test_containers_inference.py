"""The inference server as a process, over real HTTP."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from common import artifact
from common.architectures import build
from common.artifact import ModelCard
from common.imaging import MAX_BYTES
from tests.containers.conftest import Digit, Job, encode
from tests.containers.test_containers_imaging import bomb

PNG = {"Content-Type": "image/png"}
CARD = ModelCard("convnet", [str(digit) for digit in range(10)], 16, 1, "g00000007", "new")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A started ``python -m inference serve``."""

    def __init__(self, job: Job) -> None:
        self.port = free_port()
        self.process = job.start(
            "inference", "serve", SAGEMAKER_BIND_TO_PORT=str(self.port), BIND_HOST="127.0.0.1"
        )

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] = PNG
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def ping_until(self, wanted: int) -> list[int]:
        """Ping until the wanted status comes; return all that came."""
        seen: list[int] = []
        until = time.monotonic() + 60
        while time.monotonic() < until:
            assert self.process.poll() is None, self.process.communicate()[1]
            try:
                seen.append(self.request("GET", "/ping")[0])
            except ConnectionError:
                time.sleep(0.02)
                continue
            if seen[-1] == wanted:
                return seen
            time.sleep(0.02)
        raise AssertionError(f"no {wanted} from /ping within 60 s: {seen}")

    def end(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=30)
        return int(self.process.returncode)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    job = Job(tmp_path_factory.mktemp("endpoint"))
    torch.manual_seed(0)
    artifact.save(job.base / "model", CARD, build(CARD.architecture, CARD.shape))
    started = Server(job)
    seen = started.ping_until(200)
    assert set(seen[:-1]) <= {503}  # up before the model is, and says so
    yield started
    assert started.end() == 0


def test_ping_and_an_answer_with_label_and_scores(server: Server, digits: list[Digit]) -> None:
    assert server.request("GET", "/ping") == (200, {"model": "g00000007/new"})
    for body, kind in ((digits[0].png, "image/png"), (encode(digits[0].image, "JPEG"), "image/jpeg; q=1")):
        status, answer = server.request("POST", "/invocations", body, {"Content-Type": kind})
        assert status == 200
        assert sorted(answer) == ["label", "model", "score", "scores"]
        assert answer["model"] == "g00000007/new"
        assert list(answer["scores"]) == CARD.labels
        assert sum(answer["scores"].values()) == pytest.approx(1.0, abs=1e-5)
        assert answer["score"] == max(answer["scores"].values()) == answer["scores"][answer["label"]]


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"no image", PNG, 400, "neither a PNG nor a JPEG"),
        (b"", PNG, 400, "the image is empty"),
        (bomb(6000, 6000), PNG, 413, "6000 x 6000 pixels"),
        (bytes(MAX_BYTES + 1), PNG, 413, "larger than"),
        (
            b"1,2,3",
            {"Content-Type": "text/csv"},
            415,
            "'text/csv' is not accepted: send image/png or image/jpeg",
        ),
        (b"1,2,3", {}, 415, "'' is not accepted"),
    ],
)
def test_bad_input_is_answered_with_a_reason(
    server: Server, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    found, answer = server.request("POST", "/invocations", body, headers)
    assert found == status
    assert reason in answer["error"]
    assert server.request("GET", "/ping")[0] == 200


def test_a_chunked_body_has_the_same_limit(server: Server, digits: list[Digit]) -> None:
    def send(chunks: list[bytes]) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", "/invocations", iter(chunks), PNG, encode_chunked=True)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    png = digits[0].png
    assert send([png[:20], png[20:]])[0] == 200
    assert send([bytes(1 << 20)] * 6 + [b"and one more"])[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("POST", "/model", 404), ("GET", "/invocations", 405), ("POST", "/ping", 405)],
)
def test_other_routes_do_not_exist(server: Server, method: str, path: str, status: int) -> None:
    found, answer = server.request(method, path)
    assert found == status
    assert answer["error"]


def test_a_client_that_leaves_in_the_middle_harms_nobody(server: Server, digits: list[Digit]) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 900\r\n\r\nhalf"
        )
    assert server.request("POST", "/invocations", digits[0].png)[0] == 200


def test_many_clients_at_once_get_their_own_answers(server: Server, digits: list[Digit]) -> None:
    some = digits[:40]
    alone = [server.request("POST", "/invocations", digit.png) for digit in some]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda digit: server.request("POST", "/invocations", digit.png), some * 3))
    assert together == alone * 3


def test_a_stop_finishes_what_is_in_flight(tmp_path: Any, digits: list[Digit]) -> None:
    # Given a request whose body is half sent
    job = Job(tmp_path)
    artifact.save(job.base / "model", CARD, build(CARD.architecture, CARD.shape))
    server = Server(job)
    server.ping_until(200)
    png = digits[0].png
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            + f"Content-Length: {len(png)}\r\n\r\n".encode()
            + png[:40]
        )
        time.sleep(0.2)
        # When the server is told to stop, and no longer takes new connections
        server.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
                time.sleep(0.05)
            except ConnectionError:
                break
        assert server.process.poll() is None
        # Then the request still gets its answer, and the process ends well
        connection.sendall(png[40:])
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 200")
    server.process.communicate(timeout=20)
    assert server.process.returncode == 0


def test_a_stop_before_the_model_is_loaded_is_clean_too(tmp_path: Any) -> None:
    job = Job(tmp_path)
    artifact.save(job.base / "model", CARD, build(CARD.architecture, CARD.shape))
    server = Server(job)
    server.ping_until(503)
    assert server.end() == 0


def no_model(job: Job) -> str:
    return "model.json is missing"


def pickled_model(job: Job) -> str:
    artifact.save(job.base / "model", CARD, build(CARD.architecture, CARD.shape))
    torch.save({"head.weight": torch.zeros(1)}, job.base / "model/model.safetensors")
    return "model.safetensors cannot be read"


@pytest.mark.parametrize("arrange", [no_model, pickled_model])
def test_a_bad_artefact_ends_the_server_with_the_reason(job: Job, arrange: Any) -> None:
    expected = arrange(job)
    server = Server(job)
    _, log = server.process.communicate(timeout=60)
    assert server.process.returncode == 2
    assert expected in job.failure
    assert "Traceback" not in log


def test_a_port_in_use_ends_the_server_with_the_reason(job: Job) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = job.start("inference", "serve", SAGEMAKER_BIND_TO_PORT=port, BIND_HOST="127.0.0.1")
        _, log = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "address already in use" in log


def test_bad_settings_and_arguments_are_refused(job: Job) -> None:
    job.run("inference", "serve", code=2, SAGEMAKER_BIND_TO_PORT="http")
    assert "environment variable SAGEMAKER_BIND_TO_PORT is 'http': it must be a number" in job.failure
    assert "usage: python -m inference serve" in job.run("inference", "train", code=2)
