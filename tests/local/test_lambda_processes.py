"""Worker processes: how many, how long, and that none is left; the settings; the init time-out."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from local.lambda_runtime.artifacts import Artifacts
from local.lambda_runtime.errors import InvalidRuntimeError
from local.lambda_runtime.http import Connection
from local.lambda_runtime.identity import access_key_for, known_keys, role_of
from local.lambda_runtime.interpreter import find, is_supported
from local.lambda_runtime.settings import SettingError, Settings
from local.ports import free_port
from tests.local.lambda_helpers import (
    ROOT,
    Functions,
    Server,
    archive,
    eventually,
    running_server,
    workers_of,
)

SLEEPING = "import time\ndef lambda_handler(event, context):\n    time.sleep(event or 0)\n    return 1"


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A server that keeps two idle workers for four seconds and allows 0.7 seconds for the init phase."""
    settings = {"MAX_IDLE": "2", "IDLE_SECONDS": "4", "INIT_TIMEOUT": "0.7", "MAX_RUNNING": "3"}
    environment = {f"TRUTHLOOP_LAMBDA_{name}": value for name, value in settings.items()}
    with running_server(free_port(), **environment) as server:
        yield server


def in_parallel(functions: Functions, name: str, count: int, event: Any) -> None:
    threads = [threading.Thread(target=functions.invoke, args=(name, event)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_idle_workers_are_capped_and_then_reaped(small: Server) -> None:
    functions = Functions(small.client)
    names = [functions.create(SLEEPING) for _ in range(4)]
    for name in names:
        functions.invoke(name)

    assert len(workers_of(small.process.pid)) == 2
    eventually(lambda: not workers_of(small.process.pid))
    assert functions.invoke(names[0]) == 1


def test_the_least_recently_used_worker_goes_first(small: Server) -> None:
    functions = Functions(small.client)
    source = "import os\ndef lambda_handler(event, context):\n    return os.getpid()"
    first, second, third = (functions.create(source) for _ in range(3))
    pids = {name: functions.invoke(name) for name in (first, second)}
    assert functions.invoke(first) == pids[first]
    functions.invoke(third)

    assert functions.invoke(first) == pids[first]
    assert functions.invoke(second) != pids[second]


def test_more_calls_than_slots_wait_for_their_turn(small: Server) -> None:
    functions = Functions(small.client)
    name = functions.create(SLEEPING)
    eventually(lambda: not workers_of(small.process.pid))  # idle ones do not count
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, len(workers_of(small.process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    in_parallel(functions, name, 5, 0.4)
    done.set()
    watcher.join()

    assert 1 <= most <= 3


def test_an_init_phase_that_is_too_long_starts_again_within_the_functions_time(small: Server) -> None:
    functions = Functions(small.client)
    slow = functions.create(
        "import time\ntime.sleep(1)\ndef lambda_handler(event, context):\n    return 1", Timeout=9
    )
    endless = functions.create("import time\ntime.sleep(60)", Timeout=1)

    assert functions.invoke(slow) == 1
    assert any("Phase: init\tStatus: timeout" in line for line in functions.log(slow))
    error = functions.fail(endless)
    assert error["errorType"] == "Sandbox.Timedout"
    assert error["errorMessage"].endswith("Task timed out after 1.00 seconds")


def test_a_worker_that_dies_while_idle_is_replaced(small: Server) -> None:
    functions = Functions(small.client)
    name = functions.create("import os\ndef lambda_handler(event, context):\n    return os.getpid()")
    before = functions.invoke(name)
    os.kill(before, signal.SIGKILL)
    # A process can be waited for when the last of its threads has ended, not when the first is a zombie.
    eventually(lambda: not alive(before) and len(list(Path(f"/proc/{before}/task").iterdir())) == 1)
    time.sleep(0.1)

    assert functions.invoke(name) != before


def test_deleting_a_function_ends_its_workers(small: Server) -> None:
    functions = Functions(small.client)
    name = functions.create("import os\ndef lambda_handler(event, context):\n    return os.getpid()")
    pid = functions.invoke(name)
    functions.api.delete_function(FunctionName=name)

    assert pid not in workers_of(small.process.pid)


CHILD = """
import os, subprocess
def lambda_handler(event, context):
    child = subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL)
    if event: subprocess.Popen.wait(child)
    return [os.getpid(), child.pid]
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_however_the_server_ends(how: signal.Signals) -> None:
    with running_server(free_port()) as server:
        functions = Functions(server.client)
        name = functions.create(CHILD, Timeout=100)
        pids = set(functions.invoke(name))
        busy = threading.Thread(target=invoke_until_the_end, args=(functions, name))
        busy.start()
        started = {child.pid for child in psutil.Process(server.process.pid).children(recursive=True)}
        eventually(lambda: len(workers_of(server.process.pid)) == 1)
        workdir = Path(psutil.Process(next(iter(pids))).environ()["HOME"]).parents[1]
        time.sleep(0.3)  # until the second call runs
        started |= {child.pid for child in psutil.Process(server.process.pid).children(recursive=True)}
        server.process.send_signal(how)
        server.process.wait(timeout=60)
        busy.join()

        eventually(lambda: not [pid for pid in pids | started if alive(pid)])
        assert how is signal.SIGKILL or not workdir.exists()
        shutil.rmtree(workdir, ignore_errors=True)


def invoke_until_the_end(functions: Functions, name: str) -> None:
    """Invoke a function that never answers; the server is ended under it."""
    try:
        functions.api.invoke(FunctionName=name, Payload=b"1")
    except Exception as error:  # whichever way the connection ends
        print("the call ended with", error)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_configured_interpreter_that_is_none_is_one_clear_error() -> None:
    with running_server(free_port(), TRUTHLOOP_LAMBDA_PYTHON="/nonexistent/python") as server:
        functions = Functions(server.client)
        name = functions.create()
        with pytest.raises(ClientError, match="TRUTHLOOP_LAMBDA_PYTHON=/nonexistent/python does not run"):
            functions.invoke(name)


def test_a_bad_setting_ends_the_server_with_one_message() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local", "--no-deploy", "--port", str(free_port())],
        cwd=ROOT,
        env={**os.environ, "TRUTHLOOP_LAMBDA_MAX_RUNNING": "none"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "TRUTHLOOP_LAMBDA_MAX_RUNNING='none': give a number of at least 1" in done.stderr


def test_settings_come_from_the_environment() -> None:
    assert Settings.from_environment({}) == Settings()
    changed = Settings.from_environment(
        {"TRUTHLOOP_LAMBDA_MAX_IDLE": "0", "TRUTHLOOP_LAMBDA_RETRY_MINUTE": "60"}
    )
    assert (changed.max_idle, changed.retry_minute) == (0, 60.0)
    with pytest.raises(SettingError, match="at least 0"):
        Settings.from_environment({"TRUTHLOOP_LAMBDA_IDLE_SECONDS": "-1"})


def test_access_keys_belong_to_roles() -> None:
    arn = "arn:aws:iam::123456789012:role/one-of-the-identity-test"
    key = access_key_for(arn)
    assert re.fullmatch(r"ASIA[A-Z2-7]{16}", key)
    assert key == access_key_for(arn) != access_key_for(arn + "s")
    assert role_of(key) == arn == known_keys()[key]
    assert role_of("AKIAIOSFODNN7EXAMPLE") is None


def test_python_runtimes_are_run_and_no_others() -> None:
    assert is_supported("python3.13")
    assert not any(map(is_supported, ("nodejs22.x", "python2.7", "provided.al2023", None)))
    current = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert find(current) == sys.executable
    assert find("python3.99") == sys.executable  # there is none: the current one stands in
    with pytest.raises(InvalidRuntimeError):
        find(current, "/nonexistent/python")


def test_unpacking_is_shared_read_only_and_compiled(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "unpacked")
    below, above = archive({"a.py": "A = 1", "b.py": "B = 1"}), archive({"b.py": "B = 2", "../c.py": ""})

    one = artifacts.unpack("opt", [below, above], sys.executable)

    assert artifacts.unpack("opt", [below, above], sys.executable) == one
    assert artifacts.unpack("opt", [above, below], sys.executable) != one
    assert (one / "b.py").read_text() == "B = 2"
    assert (one / "c.py").exists()  # a name cannot lead outside
    assert list((one / "__pycache__").glob("a.*.pyc"))
    assert stat.S_IMODE((one / "a.py").stat().st_mode) == 0o444
    with pytest.raises(InvalidRuntimeError, match="not able to unzip"):
        artifacts.unpack("opt", [b"x"], sys.executable)
    artifacts.remove()
    assert not (tmp_path / "unpacked").exists()


def test_a_request_may_come_in_pieces() -> None:
    worker, server = tcp_pair()
    connection = Connection(server)
    whole = b"POST /2018-06-01/runtime/invocation/1/response HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"
    for start in range(0, len(whole), 20):
        assert connection.read() is None
        worker.sendall(whole[start : start + 20])
    request = eventually(connection.read)
    assert (request.method, request.body, request.headers) == ("POST", b"body", {"content-length": "4"})
    connection.respond("202 Accepted", {"A": "b"}, b"{}")
    assert worker.recv(100) == b"HTTP/1.1 202 Accepted\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"
    worker.close()
    eventually(lambda: connection.read() is None and connection.closed)
    connection.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far
