"""The report's plots as inline SVG: each in a wide form and, for phones, in a narrow one.

Text stays text (no outlines), so the browser draws it in the page's own font and it can be selected.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter

from demo.result import Confusion, Moment, Result, Span

INK = "#1d2733"
MUTED = "#6b7785"
LINE = "#dfe4ea"
GOOD = "#0f8a6d"
BAD = "#d1495b"
CALM = "#3d6fb6"
WARM = "#e09f3e"

STREAMS = {
    "everyday": ("everyday digits", CALM),
    "drifted": ("drifted digits, corrected", WARM),
    "unlabelled": ("drifted digits, never labelled", GOOD),
}

LANES = ("retrain", "pipeline 1", "pipeline 2", "monitor", "deploy", "endpoint", "requests")
LANE_NAMES = {
    "retrain": "retrain\nmachine",
    "pipeline 1": "first\npipeline run",
    "pipeline 2": "second\npipeline run",
    "deploy": "deploy\nmachine",
}
SPAN_COLOURS = {
    "retrain": CALM,
    "pipeline 1": "#7a6bb0",
    "pipeline 2": "#7a6bb0",
    "monitor": WARM,
    "deploy": CALM,
    "endpoint": GOOD,
    "requests": "#8fa3b8",
}

LONGEST_GAP_SECONDS = 10.0

WIDE, NARROW = 8.6, 3.5
"""Width of the two forms in inches; SVG counts 72 points to the inch."""


def both(draw: Callable[..., None], name: str, heights: tuple[float, float], *data: Any) -> str:
    """Return the wide and the narrow form of a plot, of which the page shows one."""
    forms = []
    for form, width, height in (("wide", WIDE, heights[0]), ("narrow", NARROW, heights[1])):
        settings = {
            "svg.fonttype": "none",
            "svg.hashsalt": f"{name}-{form}",  # ids of two plots in one page must differ
            "font.family": "sans-serif",
            "font.size": 10 if form == "wide" else 9,
            "text.color": INK,
            "axes.edgecolor": LINE,
            "axes.labelcolor": MUTED,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelcolor": MUTED,
            "ytick.labelcolor": INK,
        }
        with mpl.rc_context(settings):
            figure = plt.figure(figsize=(width, height), layout="constrained")
            draw(figure, form == "narrow", *data)
            forms.append(f'<div class="{form}">{_svg(figure, name)}</div>')
    return "".join(forms)


def _svg(figure: Any, name: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # The page decides about the size: the drawing scales with its box.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1, flags=re.DOTALL)
    text = re.sub(r"font: ([^;\"]*?)'?sans-serif'?[^;\"]*", r"font: \1system-ui, sans-serif", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{name}" class="plot"', 1)


def accuracy_over_time(result: Result) -> str:
    """Plot every batch of requests at its time, and mark what happened."""
    return both(_accuracy, "accuracy over time", (3.9, 4.6), result)


def _accuracy(figure: Any, narrow: bool, result: Result) -> None:
    axes = figure.subplots()
    start = result.started_at
    for stream, (title, colour) in STREAMS.items():
        mine = [point for point in result.points if point.stream == stream]
        if not mine:
            continue
        times = [point.time - start for point in mine]
        values = [point.accuracy * 100 for point in mine]
        for first, last in _stretches(times):
            axes.plot(
                times[first:last], values[first:last], color=colour, lw=2, solid_capstyle="round", zorder=3
            )
        axes.scatter(
            times,
            values,
            s=[14 + point.requests * 0.25 for point in mine],
            color=colour,
            edgecolor="white",
            linewidth=0.8,
            zorder=4,
            label=title,
        )
    axes.set_ylim(-4, 104)
    axes.set_xlim(0, result.finished_at - start)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.grid(axis="y", color=LINE, lw=0.8)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    _moments(axes, result.moments, start, narrow)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower left",
        ncols=1 if narrow else 3,
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.4,
        markerscale=1.8,
    )


def _stretches(times: Sequence[float]) -> list[tuple[int, int]]:
    """Return where requests followed each other: no line is drawn over a pause of more than ten seconds."""
    ends = [
        number for number in range(1, len(times)) if times[number] - times[number - 1] > LONGEST_GAP_SECONDS
    ]
    return list(zip([0, *ends], [*ends, len(times)], strict=True))


def _moments(axes: Any, moments: Sequence[Moment], start: float, narrow: bool) -> None:
    """Draw numbered flags above the plot: their names stand in the list below it."""
    lowest, highest = axes.get_xlim()
    room = (highest - lowest) * (0.065 if narrow else 0.03)
    taken: list[float] = []  # where the last flag of each level stands
    for number, moment in enumerate(moments, 1):
        at = moment.time - start
        level = next((i for i, last in enumerate(taken) if at - last >= room), len(taken))
        taken[level : level + 1] = [at]
        axes.axvline(at, color=MUTED, lw=0.8, ls=(0, (2, 3)), zorder=1)
        axes.annotate(
            str(number),
            (at, 1.045 + level * (0.062 if narrow else 0.075)),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="center",
            fontsize=8,
            color="white",
            bbox={"boxstyle": "circle,pad=0.22", "fc": INK, "ec": "none"},
            annotation_clip=False,
        )


def timeline(result: Result) -> str:
    """Draw every execution, step, job and endpoint status as a bar in its lane."""
    return both(_timeline, "timeline of the loop", (4.6, 5.6), result)


def _timeline(figure: Any, narrow: bool, result: Result) -> None:
    axes = figure.subplots()
    start = result.started_at
    lanes = [lane for lane in LANES if any(span.lane == lane for span in result.spans)]
    base = 0.0
    ticks = []
    for lane in lanes:
        rows = _rows([span for span in result.spans if span.lane == lane])
        for number, row in enumerate(rows):
            for span in row:
                _bar(axes, span, start, base + number, narrow, result.finished_at - start)
        ticks.append(base + (len(rows) - 1) / 2)
        base += len(rows) + 0.55
        axes.axhline(base - 0.78, color=LINE, lw=0.8)
    axes.set_yticks(ticks, [LANE_NAMES.get(lane, lane) for lane in lanes])
    axes.set_ylim(base - 0.78, -0.7)
    axes.set_xlim(0, result.finished_at - start)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.tick_params(length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    _moments(axes, result.moments, start, narrow)


def _rows(spans: Sequence[Span]) -> list[list[Span]]:
    """Stack spans that overlap: each goes into the first row that is free at its start."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda item: (item.start, -item.end)):
        for row in rows:
            if row[-1].end <= span.start + 0.05:
                row.append(span)
                break
        else:
            rows.append([span])
    return rows


def _bar(axes: Any, span: Span, start: float, y: float, narrow: bool, total: float) -> None:
    colour = BAD if span.status in {"Failed", "FAILED", "TIMED_OUT", "ABORTED"} else SPAN_COLOURS[span.lane]
    width = max(span.end - span.start, total / 300)
    pale = span.status in {"Creating", "Updating"}
    axes.barh(
        y,
        width,
        left=span.start - start,
        height=0.72,
        color=colour,
        alpha=0.45 if pale else 1.0,
        lw=0.9,
        edgecolor="white",
        zorder=3,
    )
    name = "" if span.lane in {"retrain", "deploy", "monitor"} else span.name
    # About 0.012 of the width per letter fits inside the bar.
    if name and width / total > len(name) * (0.030 if narrow else 0.0115):
        axes.text(
            span.start - start + width / 2,
            y,
            name,
            ha="center",
            va="center_baseline",
            fontsize=7.5,
            color=INK if pale else "white",
            zorder=4,
        )


def confusions(before: Confusion, after: Confusion) -> str:
    """Draw both confusion matrices of the exam, side by side or one above the other."""
    return both(_confusions, "confusion matrix before and after", (4.0, 6.6), before, after)


def _confusions(figure: Any, narrow: bool, before: Confusion, after: Confusion) -> None:
    axes = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    green = LinearSegmentedColormap.from_list("good", ["#ffffff00", GOOD])
    red = LinearSegmentedColormap.from_list("bad", ["#ffffff00", BAD])
    for plot, title, matrix in ((axes[0], "before", before), (axes[1], "after", after)):
        totals = [max(sum(row), 1) for row in matrix.counts]
        shares = [[count / total for count in row] for row, total in zip(matrix.counts, totals, strict=True)]
        size = len(matrix.labels)
        right = [[shares[i][j] if i == j else 0.0 for j in range(size)] for i in range(size)]
        wrong = [[shares[i][j] if i != j else 0.0 for j in range(size)] for i in range(size)]
        plot.imshow(right, cmap=green, vmin=0, vmax=1)
        plot.imshow(wrong, cmap=red, vmin=0, vmax=1)
        for i in range(size):
            for j in range(size):
                if count := matrix.counts[i][j]:
                    plot.text(
                        j,
                        i,
                        str(count),
                        ha="center",
                        va="center_baseline",
                        fontsize=8,
                        color="white" if shares[i][j] > 0.65 else INK,
                    )
        plot.set_xticks(range(size), matrix.labels)
        plot.set_yticks(range(size), matrix.labels)
        plot.set_xticks([number - 0.5 for number in range(size + 1)], minor=True)
        plot.set_yticks([number - 0.5 for number in range(size + 1)], minor=True)
        plot.grid(which="minor", color=LINE, lw=0.6)
        plot.tick_params(which="both", length=0)
        for side in plot.spines.values():
            side.set_visible(False)
        plot.set_xlabel("predicted")
        plot.set_ylabel("true")
        plot.set_title(
            f"{title}: {matrix.accuracy:.1%} right", loc="left", fontsize=10, fontweight="bold", color=INK
        )
