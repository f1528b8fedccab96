"""How many labels each author may contribute to one dataset version."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from fractions import Fraction
from itertools import accumulate


def allowances(counts: Mapping[str, int], share: float) -> dict[str, int]:
    """Return how many labels each author contributes so that nobody contributes more than their share.

    The numbers are the greatest fixed point of n(a) = min(counts(a), floor(share x total)) with total = the
    sum of n(a): capping one author makes the total smaller, which may cap another. The right side grows with
    the total, so going down from all labels ends at the greatest fixed point (Knaster and Tarski). With fewer
    than 1 / share authors nobody can keep within the share: then it is zero.

    Parameters
    ----------
    counts : Mapping[str, int]
        How many labels each author has.
    share : float
        The greatest part of the total that one author may contribute, in (0, 1].
    """
    limit = Fraction(str(share))  # as written: 0.29 of 100 is 29, though the nearest double is smaller
    ascending = sorted(counts.values())
    sums = [0, *accumulate(ascending)]
    total = sums[-1]
    while True:
        most = int(limit * total)
        below = bisect_right(ascending, most)
        capped = sums[below] + most * (len(ascending) - below)
        if capped == total:
            return {author: min(count, most) for author, count in counts.items()}
        total = capped
