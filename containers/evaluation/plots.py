"""The evaluation's plots as PNG files, from ``evaluation.json`` alone.

Colours are Okabe and Ito's, which colour-blind people tell apart, and every model has a mark of its own as
well. Labels are the users' text: nothing in them is taken for a formula.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.recommendation import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE = "#1d2733", "#5b6673", "#d9dfe6"
BETTER, WORSE = "#0072B2", "#D55E00"
COLOURS = {"champion": "#6b7785", "old": "#E69F00", "new": "#0072B2"}
MARKS = {"champion": "s", "old": "o", "new": "^"}
SPOKEN = {"champion": "in service", "old": "old", "new": "new"}

WIDTH, DOTS = 7.4, 110
"""Inches, and dots per inch."""
MANY = 25
"""Classes up to which each has a row of its own in a plot."""
LABEL_CHARACTERS = 20
_SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": False,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}

_HEADING: dict[str, Any] = {"color": MUTED, "fontsize": 8.5, "bbox": {"fc": "white", "ec": "none", "pad": 1}}

Evaluation = Mapping[str, Any]


def draw(evaluation: Evaluation, candidate: str) -> dict[str, bytes]:
    """Return the plots about a candidate: file name → PNG."""
    _provide_cache()
    import matplotlib as mpl  # half a second that only an evaluation pays

    plots: dict[str, Callable[[Evaluation, str], Figure]] = {
        "accuracy.png": _accuracy,
        "classes.png": _classes,
        "confusion.png": _confusion,
        "reliability.png": _reliability,
    }
    found = {}
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes; the page's tables have it as it is.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        for name, plot in plots.items():
            buffer = io.BytesIO()
            plot(evaluation, candidate).savefig(buffer, format="png", metadata={"Software": None})
            found[name] = buffer.getvalue()
    return found


def _provide_cache() -> None:
    """Give matplotlib a directory for its list of fonts: a container's home may not be writable."""
    if "MPLCONFIGDIR" not in os.environ:
        cache = Path(tempfile.gettempdir()) / f"truthloop-matplotlib-{os.getuid()}"
        cache.mkdir(mode=0o700, exist_ok=True)
        os.environ["MPLCONFIGDIR"] = str(cache) if cache.stat().st_uid == os.getuid() else tempfile.mkdtemp()


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=DOTS, layout="constrained", facecolor="white")


def _present(evaluation: Evaluation) -> list[str]:
    return [name for name, model in evaluation["models"].items() if model]


def _spoken(label: str) -> str:
    return shorten(label, LABEL_CHARACTERS)


def _accuracy(evaluation: Evaluation, candidate: str) -> Figure:
    """Plot accuracies with their intervals and, beside them, what each candidate gains."""
    names = _present(evaluation)
    sections: list[tuple[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]] = [
        (f"all {evaluation['holdout']['examples']} pictures", lambda model: model)
    ]
    newest = evaluation["holdout"]["newestCorrections"]
    if newest:
        sections.append((f"{newest} newest corrections", lambda model: model["newestCorrections"]))
    compared = evaluation["comparisons"]
    figure = _figure(1.5 + 0.3 * len(names) * len(sections) + (0.5 if compared else 0))
    if compared:
        left, right = figure.subplots(1, 2)
        _gains(right, evaluation)
    else:
        left = figure.subplots()
    rows: list[tuple[float, str]] = []
    place = 0.0
    for title, part in sections:
        left.text(0, place - 0.62, title, transform=left.get_yaxis_transform(), **_HEADING)
        for name in names:
            measured = part(evaluation["models"][name])
            low, high = (100 * end for end in measured["accuracyInterval"])
            left.plot([low, high], [place, place], color=COLOURS[name], lw=2.2, solid_capstyle="round")
            left.plot(100 * measured["accuracy"], place, MARKS[name], color=COLOURS[name], ms=7)
            rows.append((place, SPOKEN[name]))
            place += 1
        place += 0.8
    threshold = 100 * evaluation["bounds"]["accuracyThreshold"]
    left.axvline(threshold, color=MUTED, lw=1, ls=(0, (3, 3)), zorder=0)
    left.set_title("Right answers, with 95 % intervals")
    left.set_xlabel(f"% of the pictures; dashed: threshold, {threshold:g} %")
    _finish_rows(left, rows, place)
    return figure


def _gains(axes: Axes, evaluation: Evaluation) -> None:
    sections: tuple[tuple[str, Callable[[Mapping[str, Any]], Mapping[str, Any] | None]], ...] = (
        ("all pictures", lambda comparison: comparison),
        ("without corrections", lambda comparison: comparison["notSelected"]),
    )
    rows: list[tuple[float, str]] = []
    place = 0.0
    for title, part in sections:
        measured = {name: part(each) for name, each in evaluation["comparisons"].items()}
        found = [(name, gain) for name, gain in measured.items() if gain]
        if not found:
            continue
        axes.text(0, place - 0.62, title, transform=axes.get_yaxis_transform(), **_HEADING)
        for name, gain in found:
            low, high = (100 * end for end in gain["interval"])
            axes.plot([low, high], [place, place], color=COLOURS[name], lw=2.2, solid_capstyle="round")
            axes.plot(100 * gain["accuracyDifference"], place, MARKS[name], color=COLOURS[name], ms=7)
            rows.append((place, SPOKEN[name]))
            place += 1
        place += 0.8
    axes.axvline(0, color=INK, lw=1, zorder=0)
    axes.set_title("Gain on the model in service")
    axes.set_xlabel("percentage points; right of 0: better")
    _finish_rows(axes, rows, place)


def _finish_rows(axes: Axes, rows: Sequence[tuple[float, str]], end: float) -> None:
    axes.set_yticks([place for place, _ in rows], [name for _, name in rows])
    axes.set_ylim(end - 1.2, -1.1)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)


def _classes(evaluation: Evaluation, candidate: str) -> Figure:
    """Plot each class's recall beside the champion's; of many classes those that change most."""
    mine = evaluation["models"][candidate]["perClass"]
    champion = (evaluation["models"]["champion"] or {"perClass": {}})["perClass"]
    known = {change["label"] for change in evaluation["comparisons"].get(candidate, {}).get("classes", ())}
    shown = [label for label, score in mine.items() if score["support"]]
    title = "How many of each class are recognised"
    if len(shown) > MANY:
        total = len(shown)
        shown, title = _most_telling(shown, mine, champion, known)
        title += f" (of {total})"
    figure = _figure(1.25 + 0.24 * len(shown))
    axes = figure.subplots()
    for row, label in enumerate(shown):
        recall = 100 * mine[label]["recall"]
        if label in known:
            before = 100 * champion[label]["recall"]
            colour = WORSE if recall < before else BETTER
            axes.plot([before, recall], [row, row], color=colour, lw=2.2, zorder=2)
            axes.plot(before, row, MARKS["champion"], color=COLOURS["champion"], ms=6.5, zorder=3)
        axes.plot(recall, row, MARKS[candidate], color=COLOURS[candidate], ms=7, zorder=4)
    axes.set_yticks(range(len(shown)), [f"{_spoken(label)}  ({mine[label]['support']})" for label in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    recalls = [100 * mine[label]["recall"] for label in shown]
    recalls += [100 * champion[label]["recall"] for label in shown if label in known]
    axes.set_xlim(max(-2, 10 * (min(recalls) // 10) - 10), 102)
    axes.set_title(title)
    axes.set_xlabel("% of the class recognised (recall); in brackets: pictures of the class")
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    _model_legend(figure, (["champion"] if known else []) + [candidate])
    return figure


def _most_telling(
    labels: Sequence[str],
    mine: Mapping[str, Any],
    champion: Mapping[str, Any],
    known: set[str],
) -> tuple[list[str], str]:
    """Choose some of many classes: those that lose and that gain most, else the least recognised."""
    compared = sorted(
        (label for label in labels if label in known),
        key=lambda label: mine[label]["recall"] - champion[label]["recall"],
    )
    if len(compared) > MANY:
        half = MANY // 2
        return compared[:half] + compared[
            -half:
        ], f"The {half} classes that lose and the {half} that gain most"
    least = sorted(labels, key=lambda label: mine[label]["recall"])[:MANY]
    return least, f"The {MANY} classes that are recognised least"


def _model_legend(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="", marker=MARKS[name], color=COLOURS[name], ms=7, label=SPOKEN[name])
        for name in names
    ]
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), handletextpad=0.2)


def _confusion(evaluation: Evaluation, candidate: str) -> Figure:
    """Plot what is taken for what: all pairs of few classes, else the most frequent mistakes."""
    model = evaluation["models"][candidate]
    counts = model["confusionMatrix"]
    labels = sorted(set(counts).union(*counts.values()))
    if len(labels) <= MANY:
        return _matrix(counts, labels)
    examples = evaluation["holdout"]["examples"]
    support = {label: score["support"] for label, score in model["perClass"].items()}
    return _mistakes(counts, support, examples - round(model["accuracy"] * examples))


def _matrix(counts: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> Figure:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    matrix = np.array([[counts.get(true, {}).get(said, 0) for said in labels] for true in labels])
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure = _figure(max(2.6, min(6.8, 1.4 + 0.42 * len(labels))))
    axes = figure.subplots()
    blues = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#9cc7e4", "#0072B2", "#003f66"])
    # The root makes single mistakes visible beside hundreds of right answers.
    axes.imshow(shares, cmap=blues, norm=PowerNorm(0.5, 0, 1), aspect="auto")
    size = 9 if len(labels) <= 12 else 6.5
    for row, column in np.argwhere(matrix):
        axes.text(
            column,
            row,
            str(matrix[row, column]),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if shares[row, column] > 0.25 else INK,
            weight="normal" if row == column else "bold",
        )
    names = [_spoken(label) for label in labels]
    long = max(map(len, names)) > 3
    axes.set_xticks(range(len(labels)), names, rotation=45 if long else 0, ha="right" if long else "center")
    axes.set_yticks(range(len(labels)), names)
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color=LINE, lw=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("What is taken for what (number of pictures)")
    axes.set_xlabel("what the model answers; the darker, the larger the share of the row")
    axes.set_ylabel("what it is")
    return figure


def _mistakes(counts: Mapping[str, Mapping[str, int]], support: Mapping[str, int], wrong: int) -> Figure:
    from matplotlib.ticker import MaxNLocator

    mistakes = sorted(
        ((count, true, said) for true, row in counts.items() for said, count in row.items() if said != true),
        key=lambda mistake: (-mistake[0], mistake[1:]),
    )
    shown = mistakes[:20]
    figure = _figure(1.1 + 0.25 * max(len(shown), 2))
    axes = figure.subplots()
    for row, (count, true, _) in enumerate(shown):
        axes.barh(row, count, color=WORSE, height=0.62)
        share = count / support[true]
        axes.text(count, row, f" {count}  ({100 * share:.0f} %)", va="center", fontsize=8.5)
    axes.set_yticks(range(len(shown)), [f"{_spoken(true)} → {_spoken(said)}" for _, true, said in shown])
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.margins(x=0.15)
    title = f"The most frequent of {wrong:,} mistakes" if shown else "No mistakes"
    axes.set_title(title)
    axes.set_xlabel("pictures (share of the first class)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    return figure


def _reliability(evaluation: Evaluation, candidate: str) -> Figure:
    """Plot how often the model is right beside how sure it is, and how many pictures that is about."""
    names = [name for name in ("champion", candidate) if evaluation["models"][name]]
    figure = _figure(4.6)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 100], [0, 100], color=MUTED, lw=1, ls=(0, (3, 3)), zorder=0)
    axes.text(50, 53, "as right as it is sure", color=MUTED, fontsize=8.5, ha="right", va="bottom")
    for name in names:
        bins = evaluation["models"][name]["calibration"]["reliability"]
        sure = [100 * each["confidence"] for each in bins]
        right = [100 * each["accuracy"] for each in bins]
        error = evaluation["models"][name]["calibrationError"]
        most = max(each["examples"] for each in bins)
        axes.plot(sure, right, color=COLOURS[name], lw=1, alpha=0.45)
        axes.scatter(
            sure,
            right,
            s=[12 + 110 * (each["examples"] / most) ** 0.5 for each in bins],
            marker=MARKS[name],
            color=COLOURS[name],
            label=f"{SPOKEN[name]}: calibration error {100 * error:.1f} points",
            zorder=3,
            clip_on=False,
        )
        edges = [100 * each["low"] for each in bins]
        width = 100 / evaluation["models"][name]["calibration"]["bins"]
        offset = 0 if name == names[0] else width * 0.42
        below.bar(
            [edge + offset + width * 0.08 for edge in edges],
            [each["examples"] for each in bins],
            width * (0.42 if len(names) > 1 else 0.84),
            align="edge",
            color=COLOURS[name],
        )
    axes.set_xlim(0, 101)
    axes.set_ylim(0, 104)
    axes.set_title("Can its probabilities be believed?")
    axes.set_ylabel("% right")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.98), markerscale=0.6)
    axes.grid(True)
    below.set_ylabel("pictures")
    below.set_yscale("symlog", linthresh=1)
    below.set_ylim(bottom=0)
    below.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    below.set_xlabel("how sure the model is, % (above: below the dashed line it is too sure)")
    for each in (axes, below):
        each.set_axisbelow(True)
        each.tick_params(length=0)
    return figure
