"""The inference server as a process, over real HTTP."""

from __future__ import annotations

import base64
import http.client
import io
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.imaging import MAX_BYTES
from local.ports import free_port
from models import artifact
from models.artifact import ModelCard
from tests.containers.conftest import Digit, Job, encode
from tests.containers.test_containers_imaging import bomb

PNG = {"Content-Type": "image/png"}
CARD = ModelCard("convnet", [str(digit) for digit in range(10)], 16, 1, "g00000007", "new")


class Server:
    """A started ``python -m inference serve``."""

    def __init__(self, job: Job, **settings: str) -> None:
        self.port = free_port()
        self.process = job.start(
            "inference", "serve", SAGEMAKER_BIND_TO_PORT=str(self.port), BIND_HOST="127.0.0.1", **settings
        )

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] = PNG
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
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
        self.process.communicate(timeout=60)
        return int(self.process.returncode)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    job = Job(tmp_path_factory.mktemp("endpoint"))
    torch.manual_seed(0)
    artifact.save(job.base / "model", CARD, CARD.build())
    started = Server(job)
    seen = started.ping_until(200)
    assert set(seen[:-1]) <= {503}  # up before the model is, and says so
    yield started
    assert started.end() == 0
    # SageMaker mounts the model read-only, for a user who is not root.
    assert sorted(path.name for path in (job.base / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_ping_and_an_answer_with_label_and_scores(server: Server, digits: list[Digit]) -> None:
    assert server.request("GET", "/ping") == (200, {"model": "g00000007/new"})
    for body, kind in ((digits[0].png, "image/png"), (encode(digits[0].image, "JPEG"), "image/jpeg; q=1")):
        status, answer = server.request("POST", "/invocations", body, {"Content-Type": kind})
        assert status == 200
        assert sorted(answer) == ["label", "model", "score", "scores", "topK"]
        assert answer["model"] == "g00000007/new"
        assert list(answer["scores"]) == CARD.labels
        assert sum(answer["scores"].values()) == pytest.approx(1.0, abs=1e-5)
        assert answer["score"] == max(answer["scores"].values()) == answer["scores"][answer["label"]]
        best = sorted(answer["scores"].items(), key=lambda item: -item[1])[:3]
        assert answer["topK"] == [{"label": label, "score": score} for label, score in best]


def npy(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def test_every_way_to_send_a_picture_gets_the_same_answer(server: Server, digits: list[Digit]) -> None:
    pixels = np.asarray(digits[0].image)
    rgb = np.stack([pixels] * 3, axis=2)
    ways: list[tuple[bytes, str]] = [
        (digits[0].png, "image/png"),
        (npy(pixels), "application/x-npy"),
        (npy(pixels[:, :, None]), "application/x-npy"),
        (npy(np.asfortranarray(rgb)), "application/x-npy"),
        (json.dumps({"pixels": pixels.tolist()}).encode(), "application/json; charset=utf-8"),
        (json.dumps({"image": base64.b64encode(digits[0].png).decode()}).encode(), "application/json"),
    ]
    answers = [server.request("POST", "/invocations", body, {"Content-Type": kind}) for body, kind in ways]
    assert [status for status, _ in answers] == [200] * len(ways)
    assert all(answer == answers[0][1] for _, answer in answers)


def test_headers_of_sagemaker_come_back(server: Server, digits: list[Digit]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    given = {"X-Amzn-SageMaker-Custom-Attributes": "top_k=1", "X-Amzn-SageMaker-Inference-Id": "id-1"}
    connection.request("POST", "/invocations", digits[0].png, {**PNG, **given})
    response = connection.getresponse()
    assert len(json.loads(response.read())["topK"]) == 1
    assert {name: response.headers[name] for name in given} == given
    connection.close()


JSON = {"Content-Type": "application/json"}
NPY = {"Content-Type": "application/x-npy"}


def promise(shape: tuple[int, ...]) -> bytes:
    """Return the header of an array that is larger than its file."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def npy_header(text: str) -> bytes:
    """Return an array's file whose header is any text."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


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
            "'text/csv' is not accepted: send image/png, image/jpeg, application/x-npy, application/json",
        ),
        (b"1,2,3", {}, 415, "'' is not accepted"),
        (b"[1]", JSON, 400, 'send one JSON object with either "image"'),
        (b'{"pixels": [[1]], "image": ""}', JSON, 400, 'send one JSON object with either "image"'),
        (b"{", JSON, 400, "the body is not JSON"),
        (b"[" * 100_000, JSON, 400, "the body is not JSON"),
        (b'{"image": 7}', JSON, 400, '"image" must be text'),
        (b'{"image": "#"}', JSON, 400, '"image" is not base64'),
        (b'{"image": "AAAA"}', JSON, 400, "neither a PNG nor a JPEG"),
        (b'{"pixels": [[1, 2], [3]]}', JSON, 400, '"pixels" is no array'),
        (b'{"pixels": [[0.5]]}', JSON, 400, "whole numbers"),
        (b'{"pixels": [[-1, 256]]}', JSON, 400, "0 to 255, and are -1 to 256"),
        (b'{"pixels": [1]}', JSON, 400, "the array has shape (1,)"),
        (b"no array", NPY, 400, "no array in NumPy's .npy format"),
        (b"\x93NUMPY\x09\x00", NPY, 400, "unknown version"),
        (npy(np.zeros((2, 2), np.float32)), NPY, 400, "the array is of float32: send uint8"),
        (npy(np.array([{"code": "never run"}])), NPY, 400, "the array is of object: send uint8"),
        (npy(np.zeros((2, 2, 2), np.uint8)), NPY, 400, "(2, 2, 2)"),
        (npy(np.zeros((0, 2), np.uint8)), NPY, 400, "(0, 2)"),
        (npy(np.zeros((2, 2), np.uint8))[:-1], NPY, 400, "needs 4 bytes of data and has 3"),
        (promise((100_000, 100_000)), NPY, 413, "100000 x 100000 pixels"),
        (promise((-1, -2)) + b"xx", NPY, 400, "(-1, -2)"),
        (npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (True, True)}"), NPY, 400, "True"),
        (npy_header("(" * 9000), NPY, 400, "no array in NumPy's .npy format"),
        (npy_header("-" * 9000 + "1"), NPY, 400, "no array in NumPy's .npy format"),
        (npy_header("{[]: 1}"), NPY, 400, "no array in NumPy's .npy format"),
        (
            npy_header("{'descr': '" + "i1," * 999 + "', 'fortran_order': False, 'shape': (1, 1)}"),
            NPY,
            400,
            "…",
        ),
        # numpy would make 4 bytes x 400,000 x 10,000 of it
        (b'{"pixels": [["' + b"a" * 400_000 + b'"' + b', "b"' * 10_000 + b"]]}", JSON, 400, "whole numbers"),
        (b'{"pixels": [[' + b"9" * 5000 + b"]]}", JSON, 400, "the body is not JSON"),
        (b'{"pixels": [[1e999, NaN]]}', JSON, 400, "whole numbers"),
        (b'{"pixels": [[true]]}', JSON, 400, "whole numbers"),
        (b'{"pixels": [[], []]}', JSON, 400, "shape (2, 0)"),
        (b'{"pixels": ' + b"[" * 500 + b"1" + b"]" * 500 + b"}", JSON, 400, "(1, 1, 1, 1)"),
        (b'{"image": "\\ud800"}', JSON, 400, '"image" is not base64'),
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
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/invocations", iter(chunks), PNG, encode_chunked=True)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    png = digits[0].png
    assert send([png[:20], png[20:]])[0] == 200
    assert send([bytes(1 << 20)] * 6 + [b"and one more"])[0] == 413
    # Refused when it is too large, not when it ends: this one never does.
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        head += b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (MAX_BYTES + 1)
        connection.sendall(head + bytes(MAX_BYTES + 1) + b"\r\n")
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 413")


def raw(server: Server, *parts: bytes) -> bytes:
    """Send bytes and return all that comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def post(body: bytes, *headers: bytes, version: bytes = b"1.1", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [b"POST /invocations HTTP/" + version, b"Host: x", b"Content-Type: image/png", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % size, b"", body])


def test_pipelined_requests_are_answered_in_their_order(server: Server, digits: list[Digit]) -> None:
    ids = [b"X-Amzn-SageMaker-Inference-Id: %d" % number for number in range(5)]
    sent = [post(digits[0].png, name) for name in ids[:-1]] + [post(b"", ids[-1], b"Connection: close")]
    answers = raw(server, b"".join(sent)).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 4 + [b"400"]
    for name, answer in zip(ids, answers, strict=True):
        assert name.lower() in answer.lower()


def test_a_client_of_http_1_0_gets_a_length_and_the_end(server: Server, digits: list[Digit]) -> None:
    head, _, body = raw(server, post(digits[0].png, version=b"1.0")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"
    assert json.loads(body)["label"]


def test_a_client_that_asks_before_it_sends_is_told(server: Server, digits: list[Digit]) -> None:
    expect = b"Expect: 100-continue"
    png = digits[0].png
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(post(b"", expect, length=len(png)))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(png)
        assert connection.recv(20).startswith(b"HTTP/1.1 200")
    # A body that is too large is refused before it is sent, and the connection is not used again
    refused = raw(server, post(b"", expect, length=MAX_BYTES + 1))
    assert refused.startswith(b"HTTP/1.1 413")
    assert b"connection: close\r\n" in refused


@pytest.mark.parametrize(
    ("header", "status", "echoed"),
    [
        (b"X-Amzn-SageMaker-Custom-Attributes: " + b"t" * 1024, b"200", True),
        (b"X-Amzn-SageMaker-Custom-Attributes: " + b"t" * 1025, b"400", False),
        (b"X-Amzn-SageMaker-Custom-Attributes: caf\xe9", b"400", False),
        (b"X-Amzn-SageMaker-Custom-Attributes: top_k=\xb2", b"400", False),
        (b"X-Amzn-SageMaker-Custom-Attributes: top_k=" + b"9" * 900, b"400", True),
        (b"X-Amzn-SageMaker-Custom-Attributes: a\x00b", b"400", False),
        (b"X-Amzn-SageMaker-Inference-Id: caf\xe9", b"200", False),
    ],
)
def test_only_what_sagemaker_takes_back_comes_back(
    server: Server, digits: list[Digit], header: bytes, status: bytes, echoed: bool
) -> None:
    answer = raw(server, post(digits[0].png, header, b"Connection: close"))
    assert answer[9:12] == status
    assert (header.lower() in answer.lower()) is echoed


def test_ping_answers_in_time_while_large_pictures_are_decoded(server: Server) -> None:
    large = encode(Image.new("L", (4900, 4900)))  # just within the limit
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(server.request, "POST", "/invocations", large) for _ in range(6)]
        waited = []
        while not all(answer.done() for answer in answers):
            begun = time.monotonic()
            assert server.request("GET", "/ping")[0] == 200
            waited.append(time.monotonic() - begun)
    assert [answer.result()[0] for answer in answers] == [200] * 6
    assert waited
    assert max(waited) < 2  # SageMaker's limit


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
    # A batch adds up in another order than a picture alone, which the last digits show.
    for (status, answer), (_, expected) in zip(together, alone * 3, strict=True):
        assert status == 200
        assert answer["scores"] == pytest.approx(expected["scores"], abs=1e-6)


def test_a_stop_finishes_what_is_in_flight(tmp_path: Any, digits: list[Digit]) -> None:
    # Given a request whose body is half sent
    job = Job(tmp_path)
    artifact.save(job.base / "model", CARD, CARD.build())
    server = Server(job)
    server.ping_until(200)
    png = digits[0].png
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            + f"Expect: 100-continue\r\nContent-Length: {len(png)}\r\n\r\n".encode()
        )
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # the server has begun with it
        connection.sendall(png[:40])
        # When the server is told to stop, and no longer takes new connections
        server.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
                time.sleep(0.05)
            except ConnectionError:
                break
        time.sleep(0.3)  # longer than the server waits when it is given no time to end
        assert server.process.poll() is None
        # Then the request still gets its answer, and the process ends well
        connection.sendall(png[40:])
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 200")
    server.process.communicate(timeout=60)
    assert server.process.returncode == 0


def test_a_stop_before_the_model_is_loaded_is_clean_too(tmp_path: Any) -> None:
    job = Job(tmp_path)
    artifact.save(job.base / "model", CARD, CARD.build())
    server = Server(job)
    server.ping_until(503)
    assert server.end() == 0


def no_model(job: Job) -> str:
    return "model.json is missing"


def pickled_model(job: Job) -> str:
    artifact.save(job.base / "model", CARD, CARD.build())
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


def test_weights_that_are_not_the_registered_ones_are_not_served(job: Job) -> None:
    artifact.save(job.base / "model", CARD, CARD.build())
    digest = artifact.weights_digest(job.base / "model")
    server = Server(job, MODEL_SHA256=digest.upper())
    server.ping_until(200)
    assert server.end() == 0
    server = Server(job, MODEL_SHA256="0" * 64)
    server.process.communicate(timeout=60)
    assert server.process.returncode == 2
    assert f"has the SHA-256 {digest} and the registry says {'0' * 64}" in job.failure


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
    job.run("inference", "serve", code=2, MODEL_SHA256="abc")
    assert "MODEL_SHA256 is 'abc': it must be 64 hex digits" in job.failure
    job.run("inference", "serve", code=2, PRECISION="bf16")
    assert "PRECISION is 'bf16': it must be one of auto, fp16, fp32" in job.failure
    assert "usage: python -m inference serve" in job.run("inference", "train", code=2)
