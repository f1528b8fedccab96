"""What a run of the demo found out, as plain data: the figures, the checks, and all the report shows.

``build/demo/result.json`` is this, so a program can read what a person sees.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing that must hold for the demo to have succeeded."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Figure:
    """One row of the table at the end: a value as text, ready to be read."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Point:
    """Accuracy over a batch of consecutive requests of one stream.

    ``stream`` is ``everyday`` (undrifted), ``drifted`` (the traffic that is corrected) or ``unlabelled``
    (drifted digits that nobody labels); ``model`` is what the endpoint said had answered most of them.
    """

    time: float
    accuracy: float
    requests: int
    stream: str
    model: str


@dataclass(frozen=True)
class Moment:
    """Something that happened, marked on the plots."""

    time: float
    title: str


@dataclass(frozen=True)
class Span:
    """Something that lasted, drawn on the timeline."""

    lane: str
    name: str
    start: float
    end: float
    status: str


@dataclass(frozen=True)
class Confusion:
    """How often each true label was predicted as each label on the exam: ``counts[true][predicted]``."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def accuracy(self) -> float:
        """Share on the diagonal."""
        total = sum(map(sum, self.counts))
        return sum(row[index] for index, row in enumerate(self.counts)) / total if total else 0.0


@dataclass(frozen=True)
class Example:
    """One exam image with what the old and the new model said; ``png`` is base64."""

    png: str
    label: str
    before: str
    after: str


@dataclass(frozen=True)
class CostRow:
    """What one kind of machine time costs on AWS by list price; None where the price is not known."""

    what: str
    instance_type: str
    hourly_usd: float | None
    seconds: float
    usd: float | None


@dataclass
class Result:
    """Everything that a run found out."""

    started_at: float = 0.0
    finished_at: float = 0.0
    checks: list[Check] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    before: Confusion | None = None
    after: Confusion | None = None
    examples: list[Example] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    packages: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    costs: list[CostRow] = field(default_factory=list)
    estimate_usd: float | None = None
    monitor: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check passed (and there was one)."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def mark(self, time: float, title: str) -> None:
        """Note a moment for the plots."""
        self.moments.append(Moment(time, title))

    def write(self, path: Path) -> None:
        """Write the machine-readable result."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"version": 1, "passed": self.passed, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what :meth:`write` wrote."""
        data = json.loads(path.read_text())
        del data["version"], data["passed"]
        kinds = {
            "checks": Check,
            "figures": Figure,
            "points": Point,
            "moments": Moment,
            "spans": Span,
            "examples": Example,
            "costs": CostRow,
        }
        for name, kind in kinds.items():
            data[name] = [kind(**item) for item in data[name]]
        for name in ("before", "after"):
            if data[name] is not None:
                data[name] = Confusion(
                    tuple(data[name]["labels"]), tuple(tuple(row) for row in data[name]["counts"])
                )
        return cls(**data)
