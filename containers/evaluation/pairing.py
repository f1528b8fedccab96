"""Two models on the same examples: what is gained, and whether chance explains it. Pure functions.

Both models answered every example, so only the examples that one has right and the other has not say anything
about the difference, and the examples are resampled, not the models apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.scoring import Codes

RESAMPLES = 10_000
_SMOOTHING = np.array([0.5, 1.0, 0.5])
"""Pseudo-examples: lost, the same in both, gained."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class McNemar:
    """The exact test of whether two models are right equally often; ``p_value`` is two-sided."""

    candidate_only_right: int
    champion_only_right: int
    p_value: float


@dataclass(frozen=True)
class Gain:
    """What a candidate gains on the champion in accuracy on so many examples, with the 95 % interval."""

    examples: int
    difference: float
    interval: tuple[float, float]
    mcnemar: McNemar


@dataclass(frozen=True)
class ClassChange:
    """What became of the ``support`` examples of one class, and how many of them the champion had right."""

    label: str
    support: int
    champion_right: int
    mcnemar: McNemar

    @property
    def lost(self) -> int:
        """How many fewer the candidate has right than the champion; negative: more."""
        return self.mcnemar.champion_only_right - self.mcnemar.candidate_only_right

    @property
    def recall_difference(self) -> float:
        """The candidate's recall less the champion's."""
        return -self.lost / self.support


def paired_bootstrap(champion_right: Flags, candidate_right: Flags, seed: int = 0) -> NDArray[np.float64]:
    """Return :data:`RESAMPLES` differences in accuracy over resampled examples.

    An example contributes -1, 0 or 1, hence resampling is a draw from a multinomial over these three,
    whatever the number of examples. Half a pseudo-example in each cell of the 2 × 2 table keeps the interval
    honest where few examples differ: four gained and none lost (p = 0.13) would else be a sure gain, and two
    models without any difference an interval of no width. Source of the pseudo-examples: Agresti and Min
    2005, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24.
    """
    gained, lost = _discordant(champion_right, candidate_right)
    total = len(champion_right)
    counts = np.array([lost, total - gained - lost, gained]) + _SMOOTHING
    draws = np.random.default_rng(seed).multinomial(total, counts / counts.sum(), RESAMPLES)
    differences: NDArray[np.float64] = (draws[:, 2] - draws[:, 0]) / total
    return differences


def gain(champion_right: Flags, candidate_right: Flags, seed: int = 0) -> Gain:
    """Return the candidate's gain in accuracy over the champion; there must be an example."""
    gained, lost = _discordant(champion_right, candidate_right)
    low, high = np.quantile(paired_bootstrap(champion_right, candidate_right, seed), [0.025, 0.975])
    total = len(champion_right)
    return Gain(total, (gained - lost) / total, (float(low), float(high)), mcnemar(gained, lost))


def mcnemar(candidate_only_right: int, champion_only_right: int) -> McNemar:
    """Return McNemar's test in its exact form.

    Were the two equally good, the counts would be a fair coin's. The two-sided p-value is twice the smaller
    tail, at most 1.
    """
    tail = _fair_tail(
        min(candidate_only_right, champion_only_right), candidate_only_right + champion_only_right
    )
    return McNemar(candidate_only_right, champion_only_right, min(1.0, 2 * tail))


def _fair_tail(most: int, tosses: int) -> float:
    """Return the probability of at most ``most`` heads in ``tosses`` of a fair coin.

    From the largest term downwards, each from the one before: exact to rounding for a million tosses too,
    where the binomial coefficients themselves have 300,000 digits.
    """
    logarithm = math.lgamma(tosses + 1) - math.lgamma(most + 1) - math.lgamma(tosses - most + 1)
    term = total = math.exp(logarithm - tosses * math.log(2))
    for heads in range(most, 0, -1):
        term *= heads / (tosses - heads + 1)
        total += term
        if term < total * 1e-17:
            break
    return min(1.0, total)


def _discordant(champion_right: Flags, candidate_right: Flags) -> tuple[int, int]:
    return int((candidate_right & ~champion_right).sum()), int((champion_right & ~candidate_right).sum())


def class_changes(
    truth: Codes, champion_right: Flags, candidate_right: Flags, labels: Sequence[str], known: Sequence[str]
) -> list[ClassChange]:
    """Compare two models class by class, the greatest loss of recall first.

    Only labels that the champion knows (``known``) and that the examples hold are compared: a class that is
    new cannot get worse, and of one without examples nothing is known.

    Parameters
    ----------
    truth
        Positions in ``labels``.
    champion_right, candidate_right
        Of the same examples.
    """

    def count(among: Flags) -> list[int]:
        found: list[int] = np.bincount(truth[among], minlength=len(labels)).tolist()
        return found

    support, had = count(np.ones_like(champion_right)), count(champion_right)
    gained, lost = count(candidate_right & ~champion_right), count(champion_right & ~candidate_right)
    familiar = set(known)
    changes = [
        ClassChange(label, support[row], had[row], mcnemar(gained[row], lost[row]))
        for row, label in enumerate(labels)
        if support[row] and label in familiar
    ]
    return sorted(changes, key=lambda change: (change.recall_difference, -change.lost, change.label))


def is_worse(change: ClassChange, bound: float) -> bool:
    """Say whether a class has become worse than may be.

    More than ``bound`` of its examples must be lost, and more than one: of a class with three examples a
    single one is a third, and one picture must not decide about a model.
    """
    allowed = bound * change.support
    # 0.29 of 100 is 28.999…: exactly the bound is not more than it.
    return change.lost > 1 and change.lost > allowed and not math.isclose(change.lost, allowed)


def may_be_chance(worst: Sequence[ClassChange], compared: int) -> bool:
    """Say whether none of some classes has lost more than chance explains, where ``compared`` were looked at.

    The largest of many differences is large by chance alone, so the least p-value is multiplied by their
    number (Bonferroni).
    """
    return all(change.mcnemar.p_value * compared > 0.05 for change in worst)
