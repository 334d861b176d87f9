"""The labels that wait for their frames to reach the output."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dualprop.errors import DualpropError
from dualprop.nets.losses import Loss
from dualprop.nets.shapes import Shape


class Label(NamedTuple):
    """What is known of a frame.

    Attributes:
        target: encoded, shape (B, ...).
        given: the numbers of the samples that have a label.
    """

    target: Tensor
    given: tuple[int, ...]


class Encoder:
    """Makes targets of labels; a class is encoded once.

    Args:
        loss: which says how.
        samples: B, how many samples a frame has.
        shape: of one sample of the output.
        like: a tensor of the targets' type, on their device.
    """

    def __init__(self, loss: Loss, samples: int, shape: Shape, like: Tensor) -> None:
        self._loss, self._samples, self._shape, self._like = loss, samples, shape, like
        self._classes: dict[int, Tensor] = {}

    def __call__(self, y: Any) -> Label | None:
        """The label of a frame; None if none of its samples has one.

        Args:
            y: a class or a float target of the output's shape; for several samples one for each, None for one that
                is missing.

        Raises:
            DualpropError: for anything else, or a class that the output does not have.
        """
        if self._samples == 1:
            return Label(self._one(y), (0,))
        if not isinstance(y, list | tuple | np.ndarray | Tensor) or not getattr(y, "ndim", 1):
            raise DualpropError(
                f"y={repr(y)[:60]}: must be a list of {self._samples} labels, None for one that is missing"
            )
        many: Any = y
        if len(many) != self._samples:
            raise DualpropError(f"y: {len(many)} labels for {self._samples} samples")
        given = tuple(number for number, each in enumerate(many) if each is not None)
        rows = [self._one(each) if each is not None else self._like.new_zeros(1, *self._shape) for each in many]
        return Label(torch.cat(rows), given) if given else None

    def _one(self, y: Any) -> Tensor:
        number = _number(y)
        if number is not None:
            if not 0 <= number < self._shape[0]:
                raise DualpropError(f"y: class index {number}, but it must be in 0..{self._shape[0] - 1}")
            if number not in self._classes:
                self._classes[number] = self._encoded(torch.tensor([number], device=self._like.device))
            return self._classes[number]
        if not isinstance(y, Tensor) or not y.is_floating_point():
            words = f"a tensor of {y.dtype}" if isinstance(y, Tensor) else repr(y)[:60]
            raise DualpropError(f"y={words}: must be a class, 0..{self._shape[0] - 1}, or a float tensor")
        return self._encoded(y[None])

    def _encoded(self, y: Tensor) -> Tensor:
        return self._loss.encode(y.detach(), torch.Size((1, *self._shape)), self._like.dtype)


def new_classes(y: Any, known: int) -> int:
    """How many classes a label, or one of several samples, names that are new.

    Args:
        y: as in `Encoder`.
        known: how many there are, numbered from 0.

    Raises:
        DualpropError: for one that is not the next.
    """
    seen = known
    for each in y if isinstance(y, list | tuple) or getattr(y, "ndim", 0) > 0 else [y]:
        number = _number(each)
        if number is not None and number > seen:
            raise DualpropError(f"y={number}: there are {seen} classes, and a new one is the next, {seen}")
        seen += number == seen
    return seen - known


def _number(y: Any) -> int | None:
    """A class as a whole number; None for anything else."""
    if isinstance(y, Tensor) and y.ndim == 0 and not y.is_floating_point() and y.dtype != torch.bool:
        return int(y)
    return int(y) if isinstance(y, int | np.integer) and not isinstance(y, bool) else None


class Book(dict[int, Label]):
    """Labels by the numbers of their frames, as long as these have not had their turn.

    Attributes:
        missed: how many came after their frames' turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.missed = 0

    def state_dict(self) -> dict[str, Any]:
        """Frames and labels as lists."""
        return {
            "frames": list(self),
            "targets": [label.target.clone() for label in self.values()],
            "given": [list(label.given) for label in self.values()],
            "missed": self.missed,
        }

    def widen(self, outputs: int) -> None:
        """So many classes more, of which the frames that wait are none."""
        for frame, (target, given) in list(self.items()):
            self[frame] = Label(functional.pad(target, (0, outputs)), given)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.clear()
        self.missed = int(state["missed"])
        for frame, target, given in zip(state["frames"], state["targets"], state["given"], strict=True):
            self[frame] = Label(target.clone(), tuple(given))
