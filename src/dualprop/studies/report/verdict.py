"""Whether a measured number agrees with a published one, by a rule fixed before anything was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

ENOUGH = 3
"""Seeds from which on there is a verdict."""

ROUNDING = 1e-9
"""What binary fractions add to differences of decimal ones."""

RULE = (
    "A row agrees where |difference| ≤ max(2·√(s²/n + s_p²/n_p), margin) with n ≥ 3 seeds, and differs beyond; s "
    "and s_p are the standard deviations over the n seeds measured here and the n_p published ones, the margin "
    "is 0.1 points for accuracies in %. With fewer seeds it only says whether their mean is within the published "
    "± 2 s_p, never that it agrees. Shortened schedules and other settings are not compared at all. In brackets "
    "stands the interval of the difference, ± 2·√(s²/n + s_p²/n_p), or ± 2 s_p for fewer than 3 seeds."
)
"""The rule in words."""


class Number(Protocol):
    """A published number."""

    @property
    def mean(self) -> float:
        """In the unit that is shown."""

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds; None where none was given."""

    @property
    def seeds(self) -> int:
        """How many there were."""


@dataclass(frozen=True)
class Verdict:
    """What is said of a number.

    Attributes:
        kind: "agrees", "differs", "within", "outside", "unknown", "not comparable" or "not run".
        words: the same for a reader.
        difference: measured minus published; None where either is missing or they do not compare.
        half: half the width of the interval of the difference; None where no spread is known.
    """

    kind: str
    words: str
    difference: float | None = None
    half: float | None = None


def judge(published: Number | None, measured: Sequence[float], margin: float = 0.0, unlike: str = "") -> Verdict:
    """Compare the seeds' numbers with a published one.

    Args:
        published: None where there is none.
        measured: a number a seed, in the same unit.
        margin: up to which a difference counts as none.
        unlike: why they do not compare; empty where they do.

    Example:
        >>> class Bp:
        ...     mean, std, seeds = 98.45, 0.04, 5
        >>> judge(Bp, [98.50, 98.53, 98.44], margin=0.1).words
        'agrees'
        >>> judge(Bp, [98.50], margin=0.1).words
        'n = 1, within published ± 2 s'
    """
    if not measured:
        return Verdict("not run", "not run")
    if unlike:
        return Verdict("not comparable", f"not comparable: {unlike}")
    if published is None:
        return Verdict("not comparable", "nothing published")
    n = len(measured)
    difference = statistics.fmean(measured) - published.mean
    if not math.isfinite(difference):
        return Verdict("differs", "differs: not a number", difference)
    if n < ENOUGH:
        if published.std is None:
            return Verdict("unknown", f"n = {n}, no spread was published", difference)
        half = 2 * published.std
        kind = "within" if abs(difference) <= half + ROUNDING else "outside"
        return Verdict(kind, f"n = {n}, {kind} published ± 2 s", difference, half)
    theirs = 0.0 if published.std is None else published.std**2 / published.seeds
    half = 2 * math.sqrt(statistics.variance(measured) / n + theirs)
    kind = "agrees" if abs(difference) <= max(half, margin) + ROUNDING else "differs"
    return Verdict(kind, kind, difference, half)
