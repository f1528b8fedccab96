# ruff: noqa: E501 - a template reads better in one line
"""The server process itself: its port, who may talk to it, how it ends."""

from __future__ import annotations

import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from local.guard import Guard
from local.ports import free_port

TRUST = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",'
    ' "Principal": {"Service": "lambda.amazonaws.com"}}]}'
)
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def started(
    *arguments: str, port: int, program: str = "local", **environment: str
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PORT": str(port), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ask(port: int, headers: dict[str, str], method: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, "/", headers=headers)
    response = connection.getresponse()
    response.read()
    return response


@pytest.mark.parametrize("program", [["local", "--no-deploy"], ["demo.serve"]])
def test_a_port_in_use_is_one_clear_message(program: list[str]) -> None:
    # Given another process on the port
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        # When
        with started(*program[1:], port=port, program=program[0]) as process:
            out, error = process.communicate(timeout=120)

    # Then
    assert process.returncode == 1
    assert out == ""
    assert error.startswith(f"error: cannot listen on 127.0.0.1:{port}")
    assert "PORT=" in error
    assert len(error.splitlines()) == 1


def test_a_free_port_is_kept_for_the_server_that_names_it() -> None:
    port = free_port()

    with socket.socket() as anybody, pytest.raises(OSError, match="in use"):
        anybody.bind(("127.0.0.1", port))  # what the kernel tries for those who name none
    with socket.create_server(("127.0.0.1", port)) as server:
        assert server.getsockname()[1] == port


def test_a_port_that_is_no_port_is_refused() -> None:
    with started("--no-deploy", "--port", "many", port=1) as process:
        _, error = process.communicate(timeout=120)

    assert process.returncode == 2
    assert "'many' is not a port number" in error


@pytest.mark.parametrize("program", ["local", "demo", "demo.serve"])
def test_an_old_python_is_one_clear_message(program: str) -> None:
    # The check runs before anything is imported that an old Python could not read.
    code = f"import sys, runpy; sys.version_info = (3, 10, 4, 'final', 0); runpy.run_module('{program}', run_name='__main__')"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == "error: this needs Python 3.11 or newer, and this is 3.10.4\n"


@pytest.mark.parametrize("target", ["demo", "local", "test"])
def test_make_refuses_an_old_python(target: str, tmp_path: Path) -> None:
    # Given a Python 3.10, as far as make asks it, and no environment yet
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.4 || exit 1\n')
    old.chmod(0o755)

    # When
    command = ["make", target, f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    # Then
    assert done.returncode == 2
    assert f"Truthloop needs Python 3.11 or newer; {old} is Python 3.10.4." in done.stdout
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    # Given a server with a work directory and a function's worker process
    port = free_port()
    with started("--no-deploy", port=port, TMPDIR=str(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert list(tmp_path.iterdir())
        _start_a_worker(port)
        children = psutil.Process(process.pid).children(recursive=True)

        # When
        process.send_signal(number)
        _, error = process.communicate(timeout=60)

    # Then
    assert process.returncode == 0
    assert "Traceback" not in error
    psutil.wait_procs(children, timeout=60)
    assert not [child for child in children if child.is_running()]
    assert not list(tmp_path.iterdir())


def _start_a_worker(port: int) -> None:
    session = boto3.session.Session("test", "test", region_name="us-east-1")
    functions, iam = (
        session.client(name, endpoint_url=f"http://localhost:{port}") for name in ("lambda", "iam")
    )
    role = iam.create_role(RoleName="worker", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("index.py", "def handler(event, context):\n    return event\n")
    functions.create_function(
        FunctionName="worker",
        Runtime="python3.13",
        Role=role,
        Handler="index.handler",
        Code={"ZipFile": archive.getvalue()},
    )
    assert functions.invoke(FunctionName="worker", Payload=b"1")["StatusCode"] == 200


def _wait_until_it_handles(number: signal.Signals, process: subprocess.Popen[str]) -> None:
    """Wait for the handler: before that, a signal ends Python itself, whenever that is on this machine."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (number - 1) & 1:
            return
        time.sleep(0.005)
    pytest.fail(f"the server ended with {process.returncode} before it took {number.name}")


def test_it_ends_cleanly_while_it_starts(tmp_path: Path) -> None:
    with started("--no-deploy", port=free_port(), TMPDIR=str(tmp_path)) as process:
        _wait_until_it_handles(signal.SIGTERM, process)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_what_a_killed_server_leaves_is_deleted_by_the_next(tmp_path: Path) -> None:
    # Given a server that was killed, one that lives, and a directory that is none of ours
    with started("--no-deploy", port=free_port(), TMPDIR=str(tmp_path)) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "ready\n"
        [left] = tmp_path.iterdir()
        killed.kill()
        killed.wait(timeout=60)
    foreign = tmp_path / "truthloop-local-notes"
    foreign.mkdir()
    assert left.exists()

    # When two more start side by side
    with (
        started("--no-deploy", port=free_port(), TMPDIR=str(tmp_path)) as one,
        started("--no-deploy", port=free_port(), TMPDIR=str(tmp_path)) as two,
    ):
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

        # Then what nobody owns is gone, and nothing else
        assert not left.exists()
        assert len(list(tmp_path.iterdir())) == 3
        one.terminate()
        two.terminate()
        one.wait(timeout=60)
        two.wait(timeout=60)
    assert list(tmp_path.iterdir()) == [foreign]


def test_it_listens_on_the_loopback_interface_only(server: Any) -> None:
    listening = {
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == server.port
    }

    assert listening == {"127.0.0.1"}


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "bucket.localhost", "a.s3.localhost"])
def test_local_names_are_served(server: Any, name: str) -> None:
    assert ask(server.port, {"Host": f"{name}:{server.port}"}).status != 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},
        {"Host": "attacker.example:{port}"},
        {"Host": "localhost.attacker.example:{port}"},
        {"Host": "localhost"},
        {"Host": "localhost:1"},
        {"Host": "localhost:port"},
        {"Host": "localhost:{port}", "Origin": "https://attacker.example"},
        {"Host": "localhost:{port}", "Origin": "null"},
        {"Host": "localhost:{port}", "Origin": "http://localhost:3000"},
        {"Host": "localhost:{port}", "Sec-Fetch-Site": "cross-site"},
        {"Host": "localhost:{port}", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_web_pages_are_refused(server: Any, headers: dict[str, str]) -> None:
    sent = {name: value.replace("{port}", str(server.port)) for name, value in headers.items()}

    assert ask(server.port, sent).status == 403
    assert ask(server.port, sent, "OPTIONS").status == 403


def test_a_page_of_its_own_is_served(server: Any) -> None:
    host = f"localhost:{server.port}"
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}

    assert ask(server.port, headers).status == 200


def test_no_request_without_a_host() -> None:
    assert Guard(lambda *_: [], 4566).refusal({}) is not None


def test_it_sends_no_cors_headers(server: Any) -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        response = ask(server.port, {"Host": f"localhost:{server.port}"}, method)
        assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]


def test_connections_stay_open_and_answers_come_at_once(server: Any) -> None:
    # Given a table
    dynamodb = server.client("dynamodb")
    dynamodb.create_table(
        TableName="latency",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    s3 = server.client("s3")
    s3.create_bucket(Bucket="latency")

    # When
    times: dict[str, list[float]] = {"dynamodb": [], "s3": []}
    for number in range(20):
        for name, call in (
            ("dynamodb", lambda n=number: dynamodb.put_item(TableName="latency", Item={"id": {"S": str(n)}})),
            ("s3", lambda n=number: s3.put_object(Bucket="latency", Key=str(n), Body=b"x" * 4000)),
        ):
            begun = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begun)

    # Then neither Nagle's algorithm (40 ms) nor a late 100 Continue (1 s) is in the way: they would hold up each
    # call but the first ones of a connection, and others' work on the machine does not hold up all of them
    assert min(times["dynamodb"][10:]) < 0.03
    assert min(times["s3"][10:]) < 0.03


def test_concurrent_updates_are_all_kept(server: Any) -> None:
    # Given one item
    dynamodb = server.client("dynamodb", max_pool_connections=16)
    dynamodb.create_table(
        TableName="counter",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )

    def add(_: int) -> None:
        dynamodb.update_item(
            TableName="counter",
            Key={"id": {"S": "x"}},
            UpdateExpression="ADD n :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
        )

    # When
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(add, range(160)))

    # Then
    item = dynamodb.get_item(TableName="counter", Key={"id": {"S": "x"}})["Item"]
    assert item["n"] == {"N": "160"}


def test_large_and_chunked_bodies_arrive_whole(server: Any) -> None:
    s3 = server.client("s3")
    s3.create_bucket(Bucket="bodies")
    body = os.urandom(3_000_000)

    s3.put_object(Bucket="bodies", Key="big", Body=body)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "PUT",
        "/bodies/chunked",
        body=iter([b"one ", b"two"]),
        headers={"Host": f"localhost:{server.port}", "Transfer-Encoding": "chunked"},
        encode_chunked=True,
    )
    assert connection.getresponse().status == 200

    assert s3.get_object(Bucket="bodies", Key="big")["Body"].read() == body
    assert s3.get_object(Bucket="bodies", Key="chunked")["Body"].read() == b"one two"
    head = s3.head_object(Bucket="bodies", Key="big")
    assert head["ContentLength"] == len(body)


def test_buckets_have_hosts_of_their_own(server: Any) -> None:
    server.client("s3").create_bucket(Bucket="hosted")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    connection.request("PUT", "/a/key", body=b"value", headers={"Host": f"hosted.localhost:{server.port}"})
    assert connection.getresponse().status == 200

    assert server.client("s3").get_object(Bucket="hosted", Key="a/key")["Body"].read() == b"value"


@pytest.mark.parametrize(
    ("service", "operation"), [("cloudformation", "list_types"), ("ecr", "describe_pull_through_cache_rules")]
)
def test_what_is_missing_says_so(server: Any, service: str, operation: str) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(server.client(service, retries={"total_max_attempts": 1}), operation)()

    assert refused.value.response["Error"]["Code"] == "NotImplemented"
    assert operation in refused.value.response["Error"]["Message"]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("no colon", 400),
        (" folded: value", 400),
        ("\r\n".join(f"X-{n}: 1" for n in range(101)), 431),
        ("X: " + "a" * 70_000, 431),
        ("connection: Close\r\nX-Empty:", 200),
    ],
)
def test_it_reads_headers_or_says_why_not(server: Any, lines: str, status: int) -> None:
    request = f"GET / HTTP/1.1\r\nHost: localhost:{server.port}\r\n{lines}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request.encode())
        assert connection.recv(12) == f"HTTP/1.1 {status}".encode()
