"""``truthloop``: look at a deployed loop, on AWS or on the local AWS alike."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from cli import decisions, doctor, models
from cli.errors import CommandError
from cli.stack import Stack, plain_errors


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--stack",
        default=os.environ.get("TRUTHLOOP_STACK", "truthloop"),
        help="name of the stack (default: TRUTHLOOP_STACK, else truthloop)",
    )
    common.add_argument("--json", action="store_true", help="print JSON instead of a table")
    top = argparse.ArgumentParser(prog="truthloop", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    log = commands.add_parser(
        "decisions", parents=[common], help="the decision log, newest first: why it did or did not retrain"
    )
    log.add_argument("--limit", type=_positive, default=20, help="how many decisions (default: 20)")
    commands.add_parser("models", parents=[common], help="the registry's packages, and which is in service")
    commands.add_parser("doctor", parents=[common], help="is everything there, and does it answer?")
    return top


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def run(given: argparse.Namespace, console: Console) -> int:
    """Run one command; return the exit code."""
    stack = Stack(given.stack)
    if given.command == "decisions":
        found = decisions.read(stack, given.limit)
        _show(given, console, found, "no decisions yet: nothing has started the retrain state machine")
        return 0
    if given.command == "models":
        packages = models.read(stack)
        _show(given, console, packages, "no models yet: no run has registered a package")
        return 0
    findings = doctor.examine(stack)
    if given.json:
        _json(findings_as_maps(findings))
    else:
        console.print(doctor.table(findings))
    return 0 if all(finding.ok for finding in findings) else 1


def findings_as_maps(findings: list[doctor.Finding]) -> list[dict[str, Any]]:
    """Return what ``doctor --json`` prints."""
    return [{"name": finding.name, "ok": finding.ok, "detail": finding.detail} for finding in findings]


def _show(given: argparse.Namespace, console: Console, items: list[dict[str, Any]], nothing: str) -> None:
    if given.json:
        _json(items)
    elif not items:
        console.print(nothing)
    else:
        console.print((decisions if given.command == "decisions" else models).table(items))


def _json(items: list[dict[str, Any]]) -> None:
    json.dump(items, sys.stdout, indent=2)
    sys.stdout.write("\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    given = parser().parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    try:
        with plain_errors():
            return run(given, console)
    except CommandError as error:
        print(f"truthloop: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # truthloop decisions | head
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
