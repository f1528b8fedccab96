"""What goes into a predictor and what comes out. No torch here: the server listens before it is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict


@dataclass(slots=True)
class Request:
    """One picture to classify: the body as it came, its content type, how many labels are wanted."""

    body: bytes
    kind: str
    top_k: int


class Scored(TypedDict):
    """A label and its probability, as they stand in an answer's body."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The label, its probability, the best ones, the probabilities of all, and which model said so."""

    label: str
    score: float
    top_k: tuple[Scored, ...]
    scores: dict[str, float]
    model: str

    def to_json(self) -> dict[str, Any]:
        """Return the members of an answer's body."""
        return {
            "label": self.label,
            "score": self.score,
            "topK": self.top_k,
            "scores": self.scores,
            "model": self.model,
        }
