"""Server CPU per request with a model that does nothing, beside other servers.

Run ``make bench-serve``, or ``python bench/serve_requests.py`` (which measures the peers that are
installed). CPU is user and system time of all of a server's processes (/proc), per request; the client is
another process. Each server has one core of its own, the client the others: to wake another core costs a
virtual machine more than the request does. All servers run at the same time and are asked in turn, so that a
busy machine hits all; medians are printed.

- ours: HTTP, headers, limits, the queue, the hand-over of a batch to the worker thread and back, the answer
  as JSON with ten probabilities. Not in it: decoding the picture and the model, which a null predictor skips.
- bare uvicorn: uvloop and httptools, an ASGI application that reads the body and answers fixed bytes, as
  many as ours and with as many headers; plain: without the two that SageMaker's contract sends back.
- FastAPI: a route that reads the body and returns a dict.
- sagemaker-inference: AWS's toolkit on its multi-model server (Java), with a user's four functions.

It says whether ours is within its limits; it fails only when it could not measure.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from PIL import Image
from serving.load import Load, generate
from serving.servers import BENCH_PYTHON, HERE, Started, cores, running
from sklearn.datasets import load_digits

MMS_LIMIT, UVICORN_LIMIT = 1 / 5, 1.5
OURS, UVICORN, PLAIN = "ours", "bare uvicorn", "bare uvicorn, plain"
FASTAPI, MMS = "FastAPI on uvicorn", "sagemaker-inference, MMS"


def main() -> int:
    """Measure, print the table and say whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000, help="requests of a round (default: 4000)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: 7)")
    parser.add_argument("--connections", type=int, default=32, help="concurrent clients (default: 32)")
    options = parser.parse_args()
    starts: dict[str, tuple[str, ...]] = {
        OURS: (sys.executable, "null_ours.py"),
        UVICORN: (sys.executable, "null_uvicorn.py"),
        PLAIN: (sys.executable, "null_uvicorn.py", "plain"),
    }
    if BENCH_PYTHON.is_file():
        starts[FASTAPI] = (str(BENCH_PYTHON), "null_fastapi.py")
    if BENCH_PYTHON.is_file() and shutil.which("java"):
        starts[MMS] = (str(BENCH_PYTHON), "null_mms.py")
    for name in (FASTAPI, MMS):
        if name not in starts:
            print(f"{name}: not measured; it needs `make .venv-bench/.done`" + (" and Java" * (name == MMS)))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        picture = scratch / "digit.png"
        Image.fromarray((load_digits().images[0] * 15).astype("uint8")).save(picture)
        body = picture.read_bytes()
        servers = {
            name: stack.enter_context(
                running(lambda port, of=of: [of[0], str(HERE / of[1]), str(port), *of[2:]], body=body)  # type: ignore[misc]
            )
            for name, of in starts.items()
        }
        own, others = cores()
        os.sched_setaffinity(0, others)
        print(f"servers on core {sorted(own)}, client on {sorted(others)}, {options.connections} connections")

        def load(server: Started) -> Load:
            return Load(server.port, str(picture), "image/png", options.connections, options.requests)

        for server in servers.values():
            generate(load(server))  # the JVM compiles, the caches fill
        microseconds: dict[str, list[float]] = {name: [] for name in servers}
        rates: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(options.rounds):
            for name, server in servers.items():
                before = server.cpu_seconds()
                outcome = generate(load(server))
                microseconds[name].append((server.cpu_seconds() - before) / options.requests * 1e6)
                rates[name].append(outcome.requests_per_second)
                if not outcome.all_answered:
                    print(f"{name} answered {outcome.statuses}", file=sys.stderr)
                    return 1
        memory = {name: server.resident_mib() for name, server in servers.items()}
    medians = {name: statistics.median(times) for name, times in microseconds.items()}
    print(f"{'':26}{'CPU/request':>13}{'least':>9}{'requests/s':>12}{'memory':>10}{'ours is':>10}")
    for name, median in medians.items():
        print(
            f"{name:26}{median:10.0f} µs{min(microseconds[name]):6.0f} µs"
            f"{statistics.median(rates[name]):12.0f}"
            f"{memory[name]:6.0f} MiB{medians[OURS] / median:8.2f} x"
        )
    for peer, limit in ((UVICORN, UVICORN_LIMIT), (MMS, MMS_LIMIT)):
        if peer in medians:
            ratio = medians[OURS] / medians[peer]
            verdict = "within" if ratio <= limit else "EXCEEDS"
            print(f"ours / {peer}: {ratio:.2f}, {verdict} the limit of {limit:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
