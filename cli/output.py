"""How the commands print and ask."""

from __future__ import annotations

import json
import sys
from typing import Any

from cli.errors import NotConfirmedError


def print_json(value: Any) -> None:
    """Print a value as JSON, for programs."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def counted(number: int, one: str) -> str:
    """Return a number of things: ``1 object``, ``2 objects``."""
    return (
        f"{number} {one}"
        if number == 1
        else f"{number} {one[:-1] + 'ies' if one.endswith('y') else one + 's'}"
    )


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is deleted.

    Raises
    ------
    NotConfirmedError
        When the answer is not yes, or nobody is there to answer.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmedError(f"{question} Nobody is here to answer: say --yes")
    print(f"{question} [yes/no] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise NotConfirmedError("nothing was done")
