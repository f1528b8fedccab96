"""``truthloop``: look at a deployed loop and mend its data, on AWS or on the local AWS alike."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from cli import conflicts, decisions, doctor, forget, models, quarantine, reingest, requeue
from cli.errors import CommandError
from cli.stack import Stack, plain_errors

COMMANDS: dict[str, Callable[[Stack, argparse.Namespace, Console], int]] = {
    "decisions": decisions.run,
    "models": models.run,
    "quarantine": quarantine.run,
    "requeue": requeue.run,
    "conflicts": conflicts.run,
    "settle": conflicts.settle,
    "forget": forget.run,
    "doctor": doctor.run,
    "reingest": reingest.run,
}
"""What each command does, by name."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--stack",
        default=os.environ.get("TRUTHLOOP_STACK", "truthloop"),
        help="name of the stack (default: TRUTHLOOP_STACK, else truthloop)",
    )
    common.add_argument("--json", action="store_true", help="print JSON, for programs")
    top = argparse.ArgumentParser(prog="truthloop", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    decisions.add_parser(commands, common)
    models.add_parser(commands, common)
    quarantine.add_parser(commands, common)
    requeue.add_parser(commands, common)
    conflicts.add_parsers(commands, common)
    forget.add_parser(commands, common)
    doctor.add_parser(commands, common)
    reingest.add_parser(commands, common)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script.

    Returns
    -------
    int
        0 when the command did what was asked; 1 when it could not, which it says in one sentence, or when
        ``doctor`` found something wrong; 2 for a command line that cannot be read; 130 when interrupted.
    """
    given = parser().parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    try:
        with plain_errors():
            return COMMANDS[given.command](Stack(given.stack), given, console)
    except CommandError as error:
        print(f"truthloop: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "truthloop: interrupted; what was done stays done, and the same command goes on", file=sys.stderr
        )
        return 130
    except BrokenPipeError:  # truthloop decisions | head
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
