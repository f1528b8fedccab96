"""The whole loop once, from a base set to a model that is better (or exit code 2)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from demo import closing
from demo.cloud import Cloud
from demo.deployment import deploy
from demo.display import Display
from demo.errors import DemoError, StoryError
from demo.process import ROOT, LocalAwsProcess, MemoryMeter
from demo.result import Result
from demo.story import Story
from local.ports import free_port

OUTPUT = ROOT / "build" / "demo"

FAILED = 1
CHECK_FAILED = 2
INTERRUPTED = 130


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--port",
        type=_port,
        # A text default goes through the same check as a text from the command line.
        default=os.environ.get("PORT") or None,
        help="port of the embedded AWS on the loopback interface (default: PORT, else a free one)",
    )
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="where report, result and log go (default: build/demo)"
    )
    parser.add_argument("--template", type=Path, default=ROOT / "template.yaml", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number (1 to 65535)")
    return int(text)


def play(port: int, output: Path, template: Path, display: Display, meter: MemoryMeter) -> Result:
    """Start, deploy, tell the story, end everything; return the result with its checks."""
    result = Result(started_at=time.time())
    display.chapter("An AWS of one's own, on this machine")
    display.doing("starting the embedded AWS")
    with LocalAwsProcess(port, output / "local.log") as process:
        cloud = Cloud(process.endpoint)
        display.done(f"AWS APIs at {process.endpoint} (log: {_short(process.log)})")
        began = time.monotonic()
        try:
            outputs = deploy(cloud, template, display)
            result.seconds["deployment"] = time.monotonic() - began
            story = Story(cloud, outputs, display, result)
            try:
                story.play()
            finally:
                story.watcher.close_timeline()
            closing.collect(cloud, outputs, result, story.runs, story.monitor.jobs)
        except (ClientError, BotoCoreError) as error:
            process.require_alive()
            raise StoryError(f"an AWS call failed: {error}", process.last_lines()) from error
    display.doing("")
    meter.stop()
    result.finished_at = time.time()
    result.memory = {
        "peak_bytes": meter.peak_bytes,
        "peak_at": meter.peak_at,
        "measure": meter.measure,
        "samples": [[round(at, 2), size] for at, size in meter.samples],
    }
    closing.check(result)
    closing.figures(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit code."""
    given = options(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    # SIGINT as well: a shell starts background programs with it ignored, and libraries take it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    meter = MemoryMeter()
    meter.start()
    with Display(console) as display:
        try:
            result = play(given.port or free_port(), given.output, given.template, display, meter)
        except DemoError as error:
            display.failure(error)
            return FAILED
        except KeyboardInterrupt:
            display.doing("")
            display.line("stopped: everything that the demo started has been ended", "warn")
            return INTERRUPTED
        return conclude(result, given.output, display)


def conclude(result: Result, output: Path, display: Display) -> int:
    """Show the figures, write result and report; return the exit code."""
    from demo import report  # matplotlib: only now, when nothing else needs the memory

    closing.show(display, result)
    result.write(output / "result.json")
    page = output / "report.html"
    page.write_text(report.render(result), encoding="utf-8")
    display.done(f"report: {_short(page)}")
    if not result.passed:
        failed = ", ".join(check.name for check in result.checks if not check.passed)
        display.line(f"the demo failed its own check: {failed}", "bad")
        return CHECK_FAILED
    display.done("corrections in, a better model out")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
