"""Check a model's file: ``python -m models.check my_model.py [--shape 10x224x3] [--set width=64]``.

The exit code is 0 when everything holds, 1 when something does not, 2 when there is nothing to check.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from models.check.definition import IMAGE_SIZES
from models.check.kit import DEFAULT_SHAPE, inspect
from models.check.report import Finding
from models.interface import ModelShape

_SHAPE = re.compile(r"(\d+)x(\d+)x([13])")


def _shape(text: str) -> ModelShape:
    found = _SHAPE.fullmatch(text)
    if not found or int(found[1]) < 2 or int(found[2]) not in IMAGE_SIZES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no shape: say classes x pixels x channels, such as 10x224x3 (at least 2 classes, "
            "8 to 1024 pixels, 1 or 3 channels)"
        )
    return ModelShape(*map(int, found.groups()))


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: say name=value")
    return name, value


def _begin(title: str) -> None:
    """Show on a terminal what is being looked at; its finding takes the line's place."""
    if sys.stdout.isatty():
        print(f"… {title}", end="", flush=True)


def _tell(finding: Finding) -> None:
    if sys.stdout.isatty():
        print("\r\x1b[K", end="")
    print(finding, flush=True)


def main(arguments: list[str]) -> int:
    """Check the file that the command line names and return the exit code."""
    parser = argparse.ArgumentParser("python -m models.check", description="Check a model's file.")
    parser.add_argument("file", type=Path, help="anywhere; docs/own-model.md says what it holds")
    parser.add_argument(
        "--shape",
        type=_shape,
        default=DEFAULT_SHAPE,
        metavar="10x32x3",
        help="classes x pixels x channels to try it with; its PREFERENCES hold before it",
    )
    parser.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="given",
        help="one of its hyperparameters; may be repeated",
    )
    asked = parser.parse_args(arguments)
    if not asked.file.is_file():
        print(f"{asked.file} is no file", file=sys.stderr)
        return 2
    began = time.perf_counter()
    found = inspect(asked.file, asked.shape, dict(asked.given), _tell, _begin)
    broken = sum(finding.kept is False for finding in found)
    unknown = sum(finding.kept is None for finding in found)
    print(f"\n{asked.file}: {len(found) - broken - unknown} of {len(found)} hold", end="")
    print(f", {broken} do not, {unknown} could not be checked" if broken else "", end="")
    print(f" ({time.perf_counter() - began:.0f} s)")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
