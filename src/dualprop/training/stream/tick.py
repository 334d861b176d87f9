"""What a learner measures at a tick."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dualprop.nets.losses import Loss


@dataclass(eq=False)
class Tick:
    """What a learner saw of a frame when that was at the output, before its label acted.

    Attributes:
        frame: its number; frame t came in at the t-th tick, counted from 0. None before the first is there.
        said: what the net said of it, shape (B, ...); None before the first.
        output: that without a batch dimension where a tick has one sample.
        target: its label, encoded, shape (B, ...), if that has come by now.
        given: which of its samples have a label.
        loss: ℓ(output, target), the mean over the samples that have a label, a tensor without dimensions; None
            where there is none yet (computed when it is asked for).
        correct: how many of those samples are classified as their labels say.
    """

    frame: int | None
    said: Tensor | None
    target: Tensor | None = None
    given: tuple[int, ...] = ()
    rule: Loss | None = None
    samples: int = 1

    @property
    def output(self) -> Tensor | None:
        """What the net said of the frame; without a batch dimension where a tick has one sample."""
        return self.said if self.said is None or self.samples > 1 else self.said[0]

    @cached_property
    def loss(self) -> Tensor | None:
        """The mean loss of the samples that have a label."""
        output, target = self._judged
        return None if output is None or self.rule is None else self.rule.value(output, target).mean()

    @cached_property
    def correct(self) -> int | None:
        """How many samples have their largest output where their target is largest."""
        output, target = self._judged
        return None if output is None else int((output.flatten(1).argmax(1) == target.flatten(1).argmax(1)).sum())

    @property
    def _judged(self) -> tuple[Tensor | None, Tensor]:
        """Outputs and targets of the samples that have a label."""
        if self.said is None or self.target is None:
            return None, torch.empty(0)
        some = list(self.given)
        whole = len(some) == self.samples
        return (self.said, self.target) if whole else (self.said[some], self.target[some])
