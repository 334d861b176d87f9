"""The states that a rule learns from: two of every neuron, their mean and their difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dualprop.nets.wiring import Wiring


class ByLayer(tuple[Tensor, ...]):
    """One tensor for each layer: index k = 1..L, 0 for the (first) input; layers and inputs by name as well.

    Example:
        >>> from dualprop.nets.wiring import Wiring
        >>> states = ByLayer.of(Wiring.chain(1), {0: torch.zeros(2, 3), 1: torch.ones(2, 4)})
        >>> states["x"].shape, states[1].shape
        (torch.Size([2, 3]), torch.Size([2, 4]))
    """

    names: Mapping[str, Tensor]

    @classmethod
    def of(cls, wiring: Wiring, tensors: Mapping[int, Tensor]) -> ByLayer:
        """From tensors by number, inputs at 0, -1, ..."""
        states = cls(tensors[k] for k in range(wiring.depth + 1))
        states.names = {wiring.name(k): tensor for k, tensor in tensors.items()}
        return states

    def __getitem__(self, key: Any) -> Any:
        """By number, slice or name."""
        return self.names[key] if isinstance(key, str) else super().__getitem__(key)

    def map(self, f: Callable[..., Tensor], *others: ByLayer) -> ByLayer:
        """f of every tensor, with the same one of the others."""
        mapped = ByLayer(map(f, self, *others))
        mapped.names = {
            name: f(tensor, *(other.names[name] for other in others)) for name, tensor in self.names.items()
        }
        return mapped


def rms(z: Tensor) -> float:
    """The root of the mean square, NaN of nothing."""
    return (
        float(torch.linalg.vector_norm(z, dtype=torch.float64)) / math.sqrt(z.numel()) if z.numel() else math.nan
    )


@dataclass(frozen=True, repr=False)
class State:
    """Two states of all neurons for one batch; index k = 0..L, k = 0 is the input.

    Which two they are is the rule's: nudged and free equilibria, targets and activities, or twice the same.

    Attributes:
        plus: z_k^+, the states nearer to the target, each of shape (B, ...).
        minus: z_k^-, of the same shapes; where nothing has nudged layer k yet, the very tensor of plus[k].
        share: that of the plus states in the mean, in [0, 1].
        mean: z̄_k = share z_k^+ + (1 - share) z_k^-, the activity (computed).
        difference: z_k^+ - z_k^-, which grows with the error (computed).

    Example:
        >>> state = State((torch.ones(2, 3),), (torch.zeros(2, 3),))
        >>> float(state.mean[0][0, 0]), float(state.difference[0][0, 0])
        (0.5, 1.0)
        >>> state
        State of 2 samples, share 0.5
          layer  shape  rms of the mean  of the difference
          0      (3,)               0.5                  1
    """

    plus: tuple[Tensor, ...]
    minus: tuple[Tensor, ...]
    share: float = 0.5

    @cached_property
    def mean(self) -> tuple[Tensor, ...]:
        """z̄_k for k = 0..L."""
        return _each(lambda plus, minus: torch.lerp(minus, plus, self.share), self.plus, self.minus)

    @cached_property
    def difference(self) -> tuple[Tensor, ...]:
        """z_k^+ - z_k^- for k = 0..L."""
        return _each(torch.sub, self.plus, self.minus)

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} of {len(self.plus[0])} samples, share {self.share:g}"

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """What a person is shown of every layer."""
        plus, mean, difference = (_named(side) for side in (self.plus, self.mean, self.difference))
        return [("layer", "shape", "rms of the mean", "of the difference")] + [
            (name, str(tuple(z.shape[1:])), f"{rms(mean[name]):.3g}", f"{rms(difference[name]):.3g}")
            for name, z in plus.items()
        ]

    def __repr__(self) -> str:
        """A line for every layer: how large its activity is, and its error."""
        rows = self._rows()
        layer, shape, mean, difference = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [f"  {a:<{layer}}  {b:<{shape}}  {c:>{mean}}  {d:>{difference}}" for a, b, c, d in rows]
        return "\n".join([self._title, *lines])

    def _repr_html_(self) -> str:
        """The same as a table, for a notebook."""
        head, *rows = self._rows()
        cells = "".join(f"<th>{cell}</th>" for cell in head)
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        return f"<table><caption>{self._title}</caption><tr>{cells}</tr>{body}</table>"


def _named(side: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
    """One state of every layer by its name; by its number where it has none."""
    return side.names if isinstance(side, ByLayer) else {str(k): z for k, z in enumerate(side)}


def _each(f: Callable[..., Tensor], plus: tuple[Tensor, ...], minus: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """f of both states of every layer."""
    if isinstance(plus, ByLayer) and isinstance(minus, ByLayer):
        return plus.map(f, minus)
    return tuple(map(f, plus, minus))
