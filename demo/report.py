"""The report: one HTML file with everything inside, for a browser or a phone, now or in a year."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from demo import plots
from demo.closing import cost_rows, decision_row
from demo.result import Result
from demo.telling import evaluation_rows

STYLE = Path(__file__).with_name("report.css")

TAGS = {
    "SUCCEEDED": "good",
    "DEPLOYED": "good",
    "COALESCED": "calm",
    "REFUSED": "calm",
    "FAILED": "bad",
    "STOPPED": "bad",
    "REJECTED": "bad",
    "REJECTED_BY_GATE": "bad",
}


def render(result: Result) -> str:
    """Return the page."""
    parts = [
        _heroes(result),
        _section("Did it work?", "What must hold for the demo to end with exit code 0.", _checks(result)),
        _section(
            "The same digits, before and after",
            "A new scanner delivers dark ink on grey paper; the model had learnt bright ink on black. These "
            "are the first two exam digits of each kind: nobody labelled them, no model was trained on them. "
            "Crossed out is what the old model said where it was wrong.",
            _gallery(result),
        ),
        _section(
            "Accuracy over time",
            "Each dot is a batch of requests to the endpoint, judged by the true labels.",
            plots.accuracy_over_time(result) + _moments(result),
        ),
        _section(
            "The loop at work",
            "Executions of the state machines, steps of the pipeline runs, monitor jobs, the endpoint, and "
            "the requests that went on. The numbers are those above.",
            plots.timeline(result),
        ),
    ]
    if result.before and result.after:
        parts.append(
            _section(
                "What was taken for what",
                f"The exam: {sum(map(sum, result.before.counts))} drifted digits, unlabelled and unseen.",
                plots.confusions(result.before, result.after),
            )
        )
    parts += [
        _section(
            "Old, new, and the model in service",
            "Each run fine-tunes the old architecture and trains a new one from scratch, and compares both "
            "with the champion on the same frozen holdout. The intervals are 95 %.",
            _evaluations(result),
        ),
        _section(
            "Ground truth: what was refused",
            "Anyone who may upload can put anything there. A bad record does not cost its neighbours.",
            _quarantine(result),
        ),
        _section(
            "The decision log",
            "Every start of the state machine leaves a decision with its reason, also a no.",
            _decisions(result),
        ),
        _section("Figures", "", _figures(result)),
        _section(
            "What this would cost on AWS",
            "us-east-1 list prices for the instance types that the jobs named, and the seconds that they "
            "took here. While an endpoint is updated, two fleets are paid for."
            + (
                f" For a training run of full size the policy estimates {result.estimate_usd:,.2f} USD, and "
                "counts that against the monthly cap."
                if result.estimate_usd
                else ""
            ),
            _costs(result),
        ),
    ]
    when = datetime.fromtimestamp(result.started_at, UTC)
    title = "Corrections in, a better model out"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Truthloop: {title}</title>\n{_icon()}\n"
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n"
        f"</head>\n<body>\n<header><div><h1>{title}</h1><p>{_lead(result)}</p></div></header>\n<main>\n"
        + "\n".join(parts)
        + f"\n<footer>Truthloop, <code>make demo</code>, {when:%Y-%m-%d %H:%M} UTC. Digits: Alpaydin and "
        "Kaynak, Optical Recognition of Handwritten Digits, as bundled with scikit-learn.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def _icon() -> str:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.5" '
        'fill="none" stroke="#0f8a6d" stroke-width="3" stroke-dasharray="27 8"/></svg>'
    )
    return f'<link rel="icon" href="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}">'


def _lead(result: Result) -> str:
    took = result.finished_at - result.started_at
    return (
        f"A whole retraining loop ran on one machine in {took:.0f} seconds: real digits, real training, a "
        f"real endpoint, the very artefacts that <code>sam deploy</code> sends to AWS."
    )


def _heroes(result: Result) -> str:
    accuracy, counts = result.accuracy, result.counts
    before, after = accuracy.get("exam_before", 0.0), accuracy.get("exam_after", 0.0)
    return (
        '<div class="heroes">'
        f'<div class="hero"><b><span class="bad">{before:.0%}</span><i>→</i>'
        f'<span class="good">{after:.0%}</span></b>'
        "<span>accuracy on drifted digits that nobody labelled or trained on</span></div>"
        f'<div class="hero"><b>{counts.get("retrains_after_drift", 0)}</b>'
        f"<span>retrain from {counts.get('trigger_executions', 0)} triggers</span></div>"
        f'<div class="hero"><b>{counts.get("failed_requests", 0)}</b>'
        f"<span>of {counts.get('requests', 0):,} requests failed, the update included</span></div></div>"
    )


def _section(title: str, lead: str, body: str) -> str:
    words = f"<p>{escape(lead)}</p>" if lead else ""
    return f"<section><h2>{escape(title)}</h2>{words}{body}</section>"


def _checks(result: Result) -> str:
    rows = (
        f"<li class='{'passed' if check.passed else 'failed'}'><div><strong>{escape(check.name)}</strong><br>"
        f"<span>{escape(check.detail)}</span></div></li>"
        for check in result.checks
    )
    return f'<ul class="checks">{"".join(rows)}</ul>'


def _gallery(result: Result) -> str:
    pairs = []
    for example in result.examples:
        before = (
            f'<span class="good">{escape(example.before)}</span>'
            if example.before == example.label
            else f'<s class="bad">{escape(example.before)}</s>'
        )
        mark = "good" if example.after == example.label else "bad"
        pairs.append(
            f'<figure><img alt="a drifted {escape(example.label)}" src="data:image/png;base64,{example.png}">'
            f'<figcaption>{before} → <strong class="{mark}">{escape(example.after)}</strong></figcaption>'
            "</figure>"
        )
    return f'<div class="gallery">{"".join(pairs)}</div>'


def _moments(result: Result) -> str:
    items = (
        f"<li>{escape(moment.title)} ({moment.time - result.started_at:.0f} s)</li>"
        for moment in result.moments
    )
    return f'<ol class="moments">{"".join(items)}</ol>'


def _evaluations(result: Result) -> str:
    columns = [
        "model",
        "architecture",
        "accuracy",
        "95 %",
        "macro F1",
        "newest corrections",
        "against champion",
    ]
    parts = []
    for evaluation in result.evaluations:
        recommended = evaluation["recommendation"]
        parts.append(
            f"<h3>{escape(evaluation['generation'])}: "
            f"{evaluation['holdout']['examples']} holdout examples</h3>"
            + _table(columns, [[escape(cell) for cell in row] for row in evaluation_rows(evaluation)])
            + f"<p>Recommended: <strong>{escape(str(recommended['candidate']))}</strong>. "
            f"{escape(str(recommended['reason']))}</p>"
        )
    return "".join(parts)


def _quarantine(result: Result) -> str:
    rows = [
        [
            _tag(item["reason"], ""),
            escape(str(item.get("detail", ""))),
            f"<code>{escape(str(item.get('record', ''))[:160])}</code>",
        ]
        for item in result.quarantine
    ]
    return _table(["reason", "detail", "record"], rows)


def _decisions(result: Result) -> str:
    rows = []
    for decision in result.decisions:
        at, generation, outcome, triggers, reason = decision_row(decision)
        rows.append(
            [
                escape(at),
                escape(generation),
                _tag(outcome, TAGS.get(outcome, "")),
                escape(triggers),
                escape(reason),
            ]
        )
    return _table(["at (UTC)", "generation", "outcome", "triggers", "reason"], rows, tight=(0, 1, 2))


def _figures(result: Result) -> str:
    rows = [[escape(f.name), f"<strong>{escape(f.value)}</strong>", escape(f.note)] for f in result.figures]
    return _table(["figure", "value", "note"], rows)


def _costs(result: Result) -> str:
    rows = [[escape(cell) for cell in row] for row in cost_rows(result)]
    return _table(
        ["what", "instance type", "USD/hour", "seconds", "USD"], rows, figures=(2, 3, 4), last_is_sum=True
    )


def _tag(text: str, kind: str) -> str:
    return f'<span class="tag {kind}">{escape(text)}</span>'


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    figures: Sequence[int] = (),
    tight: Sequence[int] = (),
    last_is_sum: bool = False,
) -> str:
    """Return a table; on a phone each row becomes a card, whose cells name their column.

    Columns of ``figures`` are set to the right, those of ``tight`` are never broken.
    """
    classes = dict.fromkeys(tight, "t") | dict.fromkeys(figures, "n")

    def cell(index: int, content: str) -> str:
        kind = f' class="{classes[index]}"' if index in classes else ""
        inner = f"<span>{content}</span>" if content else ""
        return f'<td{kind} data-name="{escape(columns[index])}">{inner}</td>'

    def row_tag(number: int) -> str:
        return '<tr class="sum">' if last_is_sum and number == len(rows) - 1 else "<tr>"

    head = "".join(
        (f'<th class="{classes[index]}">' if index in classes else "<th>") + f"{escape(name)}</th>"
        for index, name in enumerate(columns)
    )
    body = "".join(
        row_tag(number) + "".join(cell(index, content) for index, content in enumerate(row)) + "</tr>"
        for number, row in enumerate(rows)
    )
    return f'<table class="cards"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
