"""Instructions per request of the server with a model that does nothing, beside bare uvicorn.

Run ``python bench/serve_instructions.py``; it needs valgrind. callgrind counts the instructions of the
server's process while it answers, so the figure hardly depends on what else the machine does. The kernel's
are not in it: `serve_requests.py` measures the CPU time of both.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from serving.load import Load, generate
from serving.servers import HERE, running
from sklearn.datasets import load_digits

OURS = "ours"
COMMANDS = {
    OURS: ["null_ours.py"],
    "bare uvicorn, the same headers": ["null_uvicorn.py"],
    "bare uvicorn, two headers less": ["null_uvicorn.py", "plain"],
}
WARM_UP_REQUESTS = 300


def instructions(script: str, more: list[str], picture: Path, connections: int, requests: int) -> float:
    """Return a server's instructions per request."""
    counts, pipes = picture.with_name("callgrind.out"), f"--vgdb-prefix={picture.with_name('vgdb')}"
    valgrind = ["valgrind", "--tool=callgrind", pipes, "--instr-atstart=no", f"--callgrind-out-file={counts}"]

    def command(port: int) -> list[str]:
        return [str(shutil.which(valgrind[0])), *valgrind[1:], sys.executable, script, str(port), *more]

    with running(command, body=picture.read_bytes(), pinned=False) as server:

        def play(requests: int) -> None:
            outcome = generate(Load(server.port, str(picture), "image/png", connections, requests))
            if not outcome.all_answered:
                raise RuntimeError(f"{script} answered {outcome.statuses}")

        def control(*command: str) -> None:
            subprocess.run(
                ["callgrind_control", pipes, *command, str(server.process.pid)],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

        play(WARM_UP_REQUESTS)
        control("-i", "on")
        play(requests)
        control("-d")
    dumped = re.search(r"^(?:summary|totals): (\d+)", Path(f"{counts}.1").read_text(), re.MULTILINE)
    if dumped is None or dumped[1] == "0":
        raise RuntimeError(f"callgrind counted nothing of {script}")
    return int(dumped[1]) / requests


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="requests to count (default: 2000)")
    parser.add_argument("--connections", type=int, default=32, help="concurrent clients (default: 32)")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        print("not measured: valgrind is not installed")
        return 0
    found: dict[str, float] = {}
    for name, (script, *more) in COMMANDS.items():
        with tempfile.TemporaryDirectory() as scratch:
            picture = Path(scratch) / "digit.png"
            Image.fromarray((load_digits().images[0] * 15).astype("uint8")).save(picture)
            found[name] = instructions(
                str(HERE / script), more, picture, options.connections, options.requests
            )
        print(f"{name:32}{found[name]:10.0f} instructions{found[OURS] / found[name]:8.2f} x", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
