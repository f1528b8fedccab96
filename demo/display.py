"""The live progress display: a spinner and a changing line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from demo.errors import DemoError

MARKS = {"done": ("✓", "green"), "info": ("·", "dim"), "warn": ("!", "yellow"), "bad": ("✗", "red")}
"""Mark and colour of a line, by its kind."""

STEP_COLOURS = {
    "Succeeded": "green",
    "Failed": "red",
    "Executing": "cyan",
    "Starting": "cyan",
    "Stopped": "red",
}


class Display:
    """Tells the story as it goes.

    On a terminal the last line is alive (what is waited for, and how long already). Anywhere else each
    line is printed once, with the seconds since the start in front, so a log file reads well.

    Parameters
    ----------
    console
        Where to write.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.started = time.monotonic()
        self._live: Live | None = None
        self._doing = ""
        self._doing_since = self.started
        self._detail: RenderableType | None = None
        self._chapters = 0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console, get_renderable=self._footer, refresh_per_second=8, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def elapsed(self) -> float:
        """Seconds since the display was made."""
        return time.monotonic() - self.started

    def _footer(self) -> RenderableType:
        if not self._doing:
            return Text("")
        seconds = time.monotonic() - self._doing_since
        line = Spinner(
            "dots", text=Text.assemble(" ", self._doing, (f"  {seconds:.0f} s", "dim")), style="cyan"
        )
        parts: list[RenderableType] = [line]
        if self._detail is not None:
            parts.insert(0, self._detail)
        return Group(*parts)

    def chapter(self, title: str) -> None:
        """Begin a chapter of the story."""
        self._chapters += 1
        self.doing("")
        self.console.print()
        self.console.print(f"[bold]{self._chapters:>2}  {escape(title)}[/bold]")

    def line(self, text: str, kind: str = "info") -> None:
        """Say something that stays."""
        mark, colour = MARKS[kind]
        stamp = f"{self.elapsed:6.1f}s"
        self.console.print(f"[dim]{stamp}[/dim] [{colour}]{mark}[/{colour}] {escape(text)}", soft_wrap=True)

    def done(self, text: str) -> None:
        """Say that something has been reached."""
        self.line(text, "done")

    def doing(self, text: str, detail: RenderableType | None = None) -> None:
        """Say what is waited for now; shown only on a terminal, until the next call."""
        if text != self._doing:
            self._doing_since = time.monotonic()
        self._doing = text
        self._detail = detail

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table; every column but the first is set to the right if it holds figures."""
        cells = [[escape(str(cell)) for cell in row] for row in rows]
        table = Table(
            title=escape(title),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
        )
        for index, name in enumerate(columns):
            figures = index > 0 and all(_is_figure(row[index]) for row in cells)
            table.add_column(escape(name), justify="right" if figures else "left", overflow="fold")
        for row in cells:
            table.add_row(*row)
        self.console.print()
        self.console.print(table)

    def failure(self, error: DemoError) -> None:
        """Print the one message of an error, and its evidence."""
        self.doing("")
        self.console.print()
        self.console.print(f"[bold red]The demo stopped:[/bold red] {escape(str(error))}", soft_wrap=True)
        for line in error.evidence:
            self.console.print(f"[dim]    {escape(line)}[/dim]", soft_wrap=True)


def _is_figure(cell: str) -> bool:
    return not cell or cell[0] in "0123456789+-−–$" or cell == "n/a"


def steps_table(steps: Iterable[tuple[str, str, float | None]]) -> Table:
    """Render the steps of a pipeline run: name, status, seconds."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 10))
    for name, status, seconds in steps:
        colour = STEP_COLOURS.get(status, "dim")
        table.add_row(name, f"[{colour}]{status}[/{colour}]", "" if seconds is None else f"{seconds:.1f} s")
    return table
