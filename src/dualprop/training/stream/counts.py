"""What has been seen of a stream, and who says that it has changed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

WINDOW = 1000
"""Frames of the accuracy that is called recent."""


@dataclass
class Counts:
    """What has been seen of a stream so far.

    Attributes:
        items: how many the source has given.
        judged: frames whose label was there when they were at the output.
        correct: how many of those were classified as their labels say.
        dropped: frames that the learner was too slow for.
        unread: lines and frames that could not be read.
        recent: 1 or 0 for each of the last thousand that were judged.
        first: for each frame on its way to the output, whether it is the first view of a picture.
        drifts: ticks at which errors were seen to be more than before.
        called: what frames are called that may still be labelled, each with its tick.
    """

    items: int = 0
    judged: int = 0
    correct: int = 0
    dropped: int = 0
    unread: int = 0
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW))
    first: deque[bool] = field(default_factory=deque)
    drifts: list[int] = field(default_factory=list)
    called: deque[tuple[int | str, int]] = field(default_factory=deque)

    @property
    def accuracy(self) -> float:
        """Of all judged so far; NaN for none."""
        return self.correct / self.judged if self.judged else math.nan

    @property
    def recent_accuracy(self) -> float:
        """Of the last thousand."""
        return sum(self.recent) / len(self.recent) if self.recent else math.nan

    def state_dict(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return {name: list(value) if isinstance(value, deque) else value for name, value in vars(self).items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name, value in vars(self).items():
            kept = state[name]
            setattr(self, name, deque(kept, value.maxlen) if isinstance(value, deque) else kept)


class Detector(Protocol):
    """What says that a stream has changed, as River's ADWIN does."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last error has shown a change."""

    @property
    def estimation(self) -> float:
        """How often there is an error, as far as nothing has changed."""

    def update(self, x: float) -> Any:
        """Take an error, 0 or 1."""


def detector() -> Detector | None:
    """River's ADWIN, if River is there."""
    try:
        from river.drift import ADWIN
    except ImportError:
        return None
    adwin: Detector = ADWIN()
    return adwin
