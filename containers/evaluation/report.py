"""The report about a candidate: one page with everything inside, for whoever approves or rejects it."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from evaluation import plots
from evaluation.recommendation import percent

log = logging.getLogger(__name__)

STYLE = Path(__file__).with_name("report.css")
CAPTIONS = {
    "accuracy.png": "Each mark is measured; its line is where the truth lies in 95 of 100 cases. Corrections "
    "are mostly mistakes of the model in service, so it looks worse on them than it is; the gain without "
    "them is free of that.",
    "classes.png": "A blue line is a class that the candidate recognises more often than the model in "
    "service, an orange one a class that it recognises less often.",
    "confusion.png": "Mistakes that a person would make too are less alarming than others.",
    "reliability.png": "Of answers that a model is 80 % sure of, 80 % should be right. The larger a mark, "
    "the more pictures it is about: small ones are mostly chance.",
}
RULES = {
    "THRESHOLD": "accurate enough",
    "MARGIN": "better by the margin",
    "INTERVAL": "surely better",
    "CLASSES": "no class forgotten",
}
WORDS = {"champion": "in service", "old": "old", "new": "new"}
KINDS = {
    "old": "the architecture of the model in service, trained further",
    "new": "another architecture, trained from scratch",
}
MOST_CLASSES = 300

Evaluation = Mapping[str, Any]


def write(directory: Path, candidate: str, evaluation: Evaluation) -> None:
    """Write ``report.html`` and the plots beside it; a plot that cannot be drawn does not cost the run."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn, problem = {}, ""
    try:
        drawn = plots.draw(evaluation, candidate)
    except Exception as error:
        log.exception("the plots about %s cannot be drawn", candidate)
        problem = f"{type(error).__name__}: {error}"
    for name, content in drawn.items():
        (directory / name).write_bytes(content)
    (directory / "report.html").write_text(render(candidate, evaluation, drawn, problem), "utf-8")


def render(candidate: str, evaluation: Evaluation, drawn: Mapping[str, bytes], problem: str = "") -> str:
    """Return the page; ``problem`` says why there are no plots."""
    generation = escape(evaluation["generation"])
    pictures = "".join(
        f'<figure><img alt="{escape(name.removesuffix(".png"))}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        f"<figcaption>{escape(CAPTIONS[name])}</figcaption></figure>"
        for name, content in drawn.items()
    )
    if problem:
        pictures = f'<p class="bad">The plots could not be drawn: {escape(problem)}</p>'
    body = "".join(
        [
            f"<header><p>{generation} · dataset {escape(evaluation['datasetVersion'][:12])}</p>"
            f"<h1>Candidate <em>{escape(candidate)}</em></h1><p>{escape(KINDS[candidate])}</p></header>",
            _verdict(candidate, evaluation),
            _section("Rule by rule", _rules(candidate, evaluation)),
            _section("In figures", _about_holdout(evaluation) + _figures(candidate, evaluation)),
            _section("In pictures", pictures),
            _section("Class by class", _classes(candidate, evaluation)),
            _section("How to read this", _notes(evaluation)),
        ]
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(candidate)} of {generation}</title><style>{STYLE.read_text('utf-8')}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _verdict(candidate: str, evaluation: Evaluation) -> str:
    recommended = evaluation["recommendation"]["candidate"]
    if recommended == candidate:
        kind, title = "good", f"Recommended: put {candidate} into service"
    elif recommended:
        kind, title = "calm", f"Not recommended: {recommended} is the better choice"
    else:
        kind, title = "bad", "Not recommended, and the other candidate is not either"
    mine = [rule for rule in evaluation["recommendation"]["rules"] if rule["candidate"] == candidate]
    failed = [rule["detail"] for rule in mine if not rule["passed"]]
    if failed:
        said = f"{candidate}: " + "; ".join(failed)
    elif recommended == candidate:
        said = evaluation["recommendation"]["reason"]
    else:
        said = f"{candidate} passes every rule; {recommended} is the more accurate of the two"
    return f'<div class="verdict {kind}"><strong>{escape(title)}</strong><p>{escape(said)}.</p></div>'


def _rules(candidate: str, evaluation: Evaluation) -> str:
    rows = [
        [
            '<span class="good">met</span>' if rule["passed"] else '<span class="bad">not met</span>',
            escape(RULES[rule["rule"]]),
            escape(rule["detail"]),
        ]
        for rule in evaluation["recommendation"]["rules"]
        if rule["candidate"] == candidate
    ]
    note = (
        "" if evaluation["models"]["champion"] else "<p>No model is in service: there is nothing to beat.</p>"
    )
    return _table(["", "rule", "what was found"], rows) + note


def _about_holdout(evaluation: Evaluation) -> str:
    held = evaluation["holdout"]
    return (
        f"<p>Measured on {held['examples']:,} pictures of {held['labels']} classes that no model was trained "
        f"on: {held['base']:,} of the base set and {held['groundTruth']:,} of ground truth, of these "
        f"{held['corrections']:,} corrections of predictions and {held['newestCorrections']:,} of the labels "
        "that are new in this run.</p>"
    )


def _figures(candidate: str, evaluation: Evaluation) -> str:
    names = [name for name, model in evaluation["models"].items() if model]
    models = [evaluation["models"][name] for name in names]
    compared = evaluation["comparisons"]
    rows: list[list[str]] = [
        ["architecture", *(escape(model["architecture"]) for model in models)],
        ["parameters", *(f"{model['parameters']:,}" for model in models)],
        ["right answers", *(_share(model) for model in models)],
        ["macro F1", *(f"{model['macroF1']:.3f}" for model in models)],
        ["calibration error", *(f"{100 * model['calibrationError']:.1f} points" for model in models)],
        ["right, newest corrections", *(_share(model["newestCorrections"]) for model in models)],
    ]
    if compared:
        rows += [
            ["gain", *(_gain(compared.get(name)) for name in names)],
            ["gain without corrections", *(_gain(_part(compared, name, "notSelected")) for name in names)],
            [
                "gain, newest corrections",
                *(_gain(_part(compared, name, "newestCorrections")) for name in names),
            ],
            ["right only here | only in service", *(_mcnemar(compared.get(name)) for name in names)],
        ]
    rows += [
        ["one picture takes", *(_alone(model["latency"]) for model in models)],
        ["in batches of 32", *(_together(model["latency"]) for model in models)],
    ]
    heads = [f"<em>{WORDS[name]}</em>" if name == candidate else WORDS[name] for name in names]
    return _table(["", *heads], rows, headed=True)


def _part(compared: Mapping[str, Any], name: str, part: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (compared.get(name) or {}).get(part)
    return found


def _share(measured: Mapping[str, Any]) -> str:
    if measured["accuracy"] is None:
        return "–"
    low, high = measured["accuracyInterval"]
    return f"{measured['accuracy']:.1%} <small>{100 * low:.1f} to {100 * high:.1f}</small>"


def _gain(gain: Mapping[str, Any] | None) -> str:
    if not gain:
        return "–"
    low, high = gain["interval"]
    return (
        f"{100 * gain['accuracyDifference']:+.1f} points <small>{100 * low:+.1f} to {100 * high:+.1f}</small>"
    )


def _mcnemar(gain: Mapping[str, Any] | None) -> str:
    if not gain:
        return "–"
    test = gain["mcnemar"]
    chance = test["pValue"]
    said = "p &lt; 0.0001" if chance < 0.0001 else f"p = {chance:.4f}"
    return f"{test['candidateOnlyRight']:,} | {test['championOnlyRight']:,} <small>{said}</small>"


def _alone(latency: Mapping[str, Any]) -> str:
    alone = latency["batch1"]
    return f"{alone['medianMs']:.1f} ms <small>99 % within {alone['p99Ms']:.1f}</small>"


def _together(latency: Mapping[str, Any]) -> str:
    return (
        f"{latency['batch32']['imagesPerSecond']:,.0f} pictures/s <small>{escape(latency['device'])}</small>"
    )


def _classes(candidate: str, evaluation: Evaluation) -> str:
    mine = evaluation["models"][candidate]["perClass"]
    champion = (evaluation["models"]["champion"] or {"perClass": {}})["perClass"]
    changes = {
        change["label"]: change for change in evaluation["comparisons"].get(candidate, {}).get("classes", ())
    }
    labels = [*changes, *(label for label in mine if label not in changes and mine[label]["support"])]
    rows = []
    for label in labels[:MOST_CLASSES]:
        score, change = mine[label], changes.get(label)
        recalls = [f"{champion[label]['recall']:.1%}", _lost(change["lost"])] if change else ["–", "new"]
        rows.append(
            [
                escape(label),
                f"{score['support']:,}",
                *(recalls if champion else ()),
                f"{score['recall']:.1%}",
                f"{score['precision']:.1%}",
                f"{score['f1']:.3f}",
            ]
        )
    heads = ["class", "pictures", *(["recall in service", "pictures lost"] if champion else [])]
    table = _table([*heads, "recall", "precision", "F1"], rows, headed=True)
    count = f"{len(labels)} classes" if len(labels) != 1 else "one class"
    order = ", greatest loss first" if changes else ""
    more = f", the first {MOST_CLASSES}; evaluation.json has all" if len(labels) > MOST_CLASSES else ""
    shown = " open" if len(labels) <= 12 else ""
    return f"<details{shown}><summary>{count}{order}{more}</summary>{table}</details>"


def _lost(lost: int) -> str:
    if lost > 0:
        return f'<span class="bad">{lost:,}</span>'
    return f"{-lost:,} gained" if lost else "0"


def _notes(evaluation: Evaluation) -> str:
    bound = percent(evaluation["bounds"]["maximumClassLoss"])
    notes = [
        "Intervals are 95 %: of a share Wilson's, of a gain a bootstrap of the pictures that both models "
        "answered. p is McNemar's exact test: how often two equally good models would differ as much by "
        "chance.",
        "Two candidates are two chances to be better by luck. The rule looks at the lower end of each "
        "interval, so at most one run in twenty recommends a model that is not better; the gain of the "
        "better of two looks a little larger than it is.",
        "The same holdout has judged earlier generations. Models that won on it fit it a little better than "
        "they fit the world, more so with every generation; the newest corrections have judged none.",
        "People correct mistakes, so corrections are pictures on which a model in service was wrong: any "
        "other model gains on them. They show what comes in today; the gain without them is free of this "
        "choice.",
        f"A class counts as forgotten when more than {bound} of its "
        "pictures, and more than one, are recognised no longer. With many small classes that happens by "
        "chance: look at the table before you reject, or raise the bound (MaximumClassLoss).",
        "Calibration error: the mean distance between how sure a model is and how often it is right, in 15 "
        "bins of equal width. Times are measured on the instance that evaluates, from PNG or JPEG to answer.",
    ]
    return f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], headed: bool = False) -> str:
    """Return a table of cells that are HTML already; ``headed``: the first of each row is its heading."""
    top = "".join(f"<th>{head}</th>" for head in heads)
    lines = "".join(
        "<tr>"
        + "".join(
            f"<th>{cell}</th>" if headed and index == 0 else f"<td>{cell}</td>"
            for index, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
