"""What a cold start of each function costs, in instructions, beside a bare handler.

Run ``python bench/init_cost.py``; it needs valgrind. Init is what happens before the first AWS call of a
typical invocation: the interpreter's start, the import of ``app`` and the making of the clients that this
invocation uses (`CLIENTS`), with the layer as ``make`` builds it and the environment as Lambda sets it.
Nothing can be written beside the code there, so what the layer has not compiled is compiled anew; the
interpreter's own library and boto3 are compiled. The bare handler imports nothing. Instructions are counted
by cachegrind with a fixed hash seed: two runs differ by less than 0.2 %, whatever else the machine does.

``init_cost.json`` is the baseline. A function whose ratio to the bare handler has grown by more than 2 %
fails, with the modules that grew; ``--update`` writes the present figures into it. ``--explain FUNCTION``
shows what each part costs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BASELINE = Path(__file__).with_suffix(".json")
GROWTH_LIMIT = 0.02
BARE = "bare handler"

CLIENTS: dict[str, tuple[str, ...]] = {
    "ingest_ground_truth": ("objects", "registry", "events"),
    "claim_run": ("table", "objects"),
    "preflight_run": ("table", "objects", "endpoint", "registry", "alarms", "quotas"),
    "snapshot_dataset": ("table", "objects", "endpoint", "registry"),
    "start_pipeline": ("table", "objects", "pipeline"),
    "decide_run": ("objects", "pipeline", "registry"),
    "release_run": ("table", "pipeline"),
    "reconcile_endpoint": ("table", "endpoint", "registry"),
    "apply_deployment": ("endpoint", "registry"),
    "smoke_test_endpoint": ("objects", "endpoint"),
    "finish_deployment": ("table", "endpoint", "registry"),
    "run_monitor": ("objects", "endpoint", "jobs"),
}
"""The ports that an invocation uses when nothing has gone wrong before it."""

_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_SESSION_TOKEN": "bench",
    "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
    "LOOP_TABLE_NAME": "truthloop-loop",
    "DATA_BUCKET_NAME": "truthloop-data",
    "PIPELINE_NAME": "truthloop-pipeline",
    "MODEL_PACKAGE_GROUP_NAME": "truthloop-models",
    "ENDPOINT_NAME": "truthloop-endpoint",
    "POWERTOOLS_SERVICE_NAME": "retrain",
    "POWERTOOLS_METRICS_NAMESPACE": "Truthloop",
    "POWERTOOLS_LOG_LEVEL": "INFO",
}
_LOOK = """
import os, resource, sys
sizes = {}
for name, module in list(sys.modules.items()):
    path = getattr(getattr(module, "__spec__", None), "cached", None)
    source = getattr(module, "__file__", None)
    path = path if path and os.path.exists(path) else source
    sizes[name] = os.path.getsize(path) if path and os.path.exists(path) else 0
import json
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "modules": sizes}))
"""


@dataclass(frozen=True)
class Cost:
    """What one start costs.

    Attributes
    ----------
    instructions
        As cachegrind counts them; 0 where they were not counted.
    peak_kib
        Peak resident memory, KiB.
    modules
        Bytes of compiled code of each module that is loaded.
    """

    instructions: int
    peak_kib: int
    modules: dict[str, int] = field(repr=False)


class Bench:
    """Counts starts with one layer and one interpreter.

    Parameters
    ----------
    folder : Path
        A folder of its own; the layer is built and the functions are copied into it.
    """

    def __init__(self, folder: Path) -> None:
        self.python = interpreter()
        self._layer = folder / "layer/python"
        self._functions = folder / "functions"
        self._home = folder / "home"
        self._home.mkdir()
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "functions", self._functions, ignore=ignored)
        (self._functions / BARE).mkdir()
        (self._functions / BARE / "app.py").write_text(
            "def lambda_handler(event, context):\n    return event\n"
        )
        source = folder / "source"
        shutil.copytree(ROOT / "layers/common", source, ignore=ignored)
        made = [
            f"ARTIFACTS_DIR={folder / 'layer'}",
            f"PYTHON={sys.executable}",
            f"LAMBDA_PYTHON={self.python}",
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        subprocess.run(
            ["make", "--silent", "build-CommonLayer", *made],
            cwd=source, check=True, timeout=240, env=environment, capture_output=True,
        )  # fmt: skip

    @property
    def setting(self) -> dict[str, str]:
        """What figures depend on besides the code: those of other settings cannot be compared."""
        code = (
            "import botocore, platform, sys; print('%d.%d' % sys.version_info[:2], "
            "botocore.__version__, platform.machine())"
        )
        told = self._run([self.python, "-c", code], BARE).split()
        return dict(zip(("python", "botocore", "machine"), told, strict=True))

    def look(self, function: str) -> Cost:
        """Start a function without counting: its memory and its modules."""
        told = json.loads(self._run([self.python, "-c", code_of(function) + _LOOK], function))
        return Cost(0, told["peak"], told["modules"])

    def count(self, function: str, code: str | None = None) -> int:
        """Return the instructions of a function's start."""
        return self._count(function, code_of(function) if code is None else code)

    def cost(self, function: str) -> Cost:
        """Return all that a function's start costs."""
        looked = self.look(function)
        return Cost(self.count(function), looked.peak_kib, looked.modules)

    def _count(self, function: str, code: str) -> int:
        tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        told = self._run([*tool, self.python, "-c", code], function)
        found = re.search(r"I\s+refs:\s+([\d,]+)", told)
        if not found:
            raise RuntimeError(f"valgrind counted nothing for {function}: {told}")
        return int(found[1].replace(",", ""))

    def _run(self, command: list[str], function: str) -> str:
        environment = {
            **_ENVIRONMENT,
            "HOME": str(self._home),
            "PYTHONPATH": f"{self._layer}:{self._functions / function}",
        }
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{function} does not start: {done.stderr[-2000:]}")
        return done.stdout + (done.stderr if command[0] == "valgrind" else "")


def interpreter() -> str:
    """Return Lambda's Python with boto3, as ``make test`` sets it up, or else this one."""
    lambdas = ROOT / ".venv-3.13/bin/python"
    return str(lambdas) if lambdas.is_file() else sys.executable


def code_of(function: str) -> str:
    """Return what a function does before its first AWS call."""
    if function == BARE:
        return "import app"
    return "import app; w = app.wiring(); " + "; ".join(f"w.{port}" for port in CLIENTS[function])


def grown(baseline: dict[str, Any], found: dict[str, Cost]) -> list[str]:
    """Return a sentence for each function that has grown by more than the limit.

    Parameters
    ----------
    baseline : dict
        The content of ``init_cost.json``.
    found : dict
        The present costs, with that of the bare handler.
    """
    bare = found[BARE].instructions
    sentences = []
    for name, cost in found.items():
        before = baseline["functions"].get(name)
        if name == BARE:
            continue
        ratio = cost.instructions / bare
        if before is None:
            sentences.append(f"{name} is not in {BASELINE.name}; run: python bench/init_cost.py --update")
        elif ratio > before["ratio"] * (1 + GROWTH_LIMIT):
            percent = (ratio / before["ratio"] - 1) * 100
            more = ", ".join(growth_of_modules(baseline, name, cost.modules))
            sentences.append(
                f"{name} starts with {percent:.1f} % more instructions than {BASELINE.name} says "
                f"({before['ratio']:.2f} -> {ratio:.2f} times a bare handler). "
                f"Modules that grew: {more or 'none'}. "
                "Make them smaller, load them later, or accept it: python bench/init_cost.py --update"
            )
    return sentences


def growth_of_modules(baseline: dict[str, Any], function: str, modules: dict[str, int]) -> list[str]:
    """Return the modules that are new to a function, and those whose code is larger, largest first."""
    before = loaded(baseline, function)
    more = {name: size - before.get(name, 0) for name, size in modules.items()}
    order = sorted((name for name, size in more.items() if size > 0), key=lambda name: -more[name])
    return [f"{name} (+{more[name]:,} bytes{'' if name in before else ', new'})" for name in order[:12]]


def loaded(baseline: dict[str, Any], function: str) -> dict[str, int]:
    """Return the modules that a function loaded when the baseline was written, with their bytes of code."""
    entry = baseline["functions"][function]
    sizes: dict[str, int] = baseline["modules"]
    return {name: sizes[name] for name in [*baseline["common"], *entry["own"]]}


def to_baseline(setting: dict[str, str], found: dict[str, Cost]) -> dict[str, Any]:
    """Return what ``init_cost.json`` holds: the modules that all functions load stand in it once."""
    bare = found[BARE].instructions
    costs = {name: cost for name, cost in found.items() if name != BARE}
    sizes = {name: size for cost in costs.values() for name, size in cost.modules.items()}
    common = set(sizes).intersection(*(cost.modules for cost in costs.values()))
    functions = {
        name: {
            "ratio": round(cost.instructions / bare, 3),
            "millionInstructions": round(cost.instructions / 1e6),
            "peakMiB": round(cost.peak_kib / 1024, 1),
            "own": sorted(set(cost.modules) - common),
        }
        for name, cost in costs.items()
    }
    return {
        "setting": setting,
        "functions": functions,
        "common": sorted(common),
        "modules": dict(sorted(sizes.items())),
    }


def to_text(baseline: dict[str, Any]) -> str:
    """Return a baseline as JSON with one line per function and per module."""
    parts = []
    for name, value in baseline.items():
        lines = (
            [f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items()]
            if (name in ("functions", "modules"))
            else []
        )
        text = "{\n  " + ",\n  ".join(lines) + "\n }" if lines else json.dumps(value)
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def explain(bench: Bench, function: str) -> None:
    """Print what each part of a function's start adds."""
    parts = ["import app", "from truthloop.aws.session import Session; Session()"]
    parts += [f"app.wiring().{port}" for port in CLIENTS[function]]
    codes = ["pass", "import truthloop.telemetry", *("; ".join(parts[: n + 1]) for n in range(len(parts)))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = list(pool.map(lambda code: bench.count(function, code), codes))
    names = ["the interpreter", "logs and metrics", "the step", "botocore", *CLIENTS[function]]
    for name, before, after in zip(names, [0, *counts], counts, strict=False):
        print(f"{name:24}{(after - before) / 1e6:10,.0f} M")


def measure(bench: Bench, functions: Sequence[str]) -> dict[str, Cost]:
    """Return the costs of some functions and of the bare handler, measured side by side."""
    names = [BARE, *functions]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(bench.cost, names), strict=True))


def code_bytes(modules: dict[str, int]) -> int:
    """Return how many bytes of compiled code a start loads."""
    return sum(modules.values())


def main() -> int:
    """Measure, print the table, and tell whether a function has grown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="write the figures into init_cost.json")
    parser.add_argument("--explain", metavar="FUNCTION", choices=sorted(CLIENTS), help="what each part costs")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is not installed, and nothing else here counts instructions: nothing was measured.")
        return 0
    with tempfile.TemporaryDirectory(prefix="init-cost-") as folder:
        bench = Bench(Path(folder))
        if options.explain:
            explain(bench, options.explain)
            return 0
        setting = bench.setting
        found = measure(bench, list(CLIENTS))
    bare = found[BARE]
    print("Python {python}, botocore {botocore}, {machine}".format(**setting))
    print(f"{'':24}{'ports':>8}{'instructions':>14}{'ratio':>8}{'peak':>10}{'above bare':>12}")
    for name, cost in found.items():
        ratio = cost.instructions / bare.instructions
        print(
            f"{name:24}{len(CLIENTS.get(name, ())):8}{cost.instructions / 1e6:12,.0f} M{ratio:8.1f}"
            f"{cost.peak_kib / 1024:6.1f} MiB{(cost.peak_kib - bare.peak_kib) / 1024:8.1f} MiB"
        )
    if options.update:
        BASELINE.write_text(to_text(to_baseline(setting, found)))
        print(f"{BASELINE.name} is written.")
        return 0
    baseline = json.loads(BASELINE.read_text())
    if baseline["setting"] != setting:
        print(f"The baseline is of {baseline['setting']}: it cannot be compared. Run --update there or here.")
        return 0
    sentences = grown(baseline, found)
    print("\n".join(sentences) or f"No function has grown by more than {GROWTH_LIMIT:.0%}.")
    return 1 if sentences else 0


if __name__ == "__main__":
    raise SystemExit(main())
