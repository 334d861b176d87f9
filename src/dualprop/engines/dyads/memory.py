"""What a stream's dyads remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dualprop.nets.shapes import Shape


class Gate:
    """Whether something is there: an error, or a label."""

    __slots__ = ("open",)

    def __init__(self, opened: bool = False) -> None:
        self.open = opened


class Memory:
    """Delay lines: one tensor for a register of a layer, a row for each slot.

    What a layer has to do with a frame lies in the slot of the tick at which it saw that frame: the mean, the
    drive, and in the end the difference.

    Args:
        shapes: of one sample of z_0 .. z_L.
        samples: B.
        slots: R, the length of the delay lines.
        like: a tensor of the type and on the device of the states.

    Attributes:
        means: z̄_0 .. z̄_L, each of shape (R, B, ...).
        drives: a_1 .. a_L.
        differences: z^+ - z^- of layers 1..L.
        erring: for layers 1..L, by slot, whether there is a difference.
    """

    def __init__(self, shapes: Sequence[Shape], samples: int, slots: int, like: Tensor) -> None:
        def zeros(shape: Shape) -> Tensor:
            return torch.zeros(slots, samples, *shape, dtype=like.dtype, device=like.device)

        self.means = [zeros(shape) for shape in shapes]
        self.drives = [zeros(shape) for shape in shapes[1:]]
        self.differences = [zeros(shape) for shape in shapes[1:]]
        self.erring = [[Gate() for _ in range(slots)] for _ in shapes[1:]]

    def state_dict(self) -> dict[str, Any]:
        """All that the next tick reads."""
        kept: dict[str, Any] = {name: [each.clone() for each in getattr(self, name)] for name in _KEPT}
        return {**kept, "erring": [[gate.open for gate in gates] for gates in self.erring]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back; it has been checked. What has been widened since is zero at its end."""
        for name in _KEPT:
            for each, kept in zip(getattr(self, name), state[name], strict=True):
                each[..., : kept.shape[-1]].copy_(kept)
        for gates, opened in zip(self.erring, state["erring"], strict=True):
            for gate, each in zip(gates, opened, strict=True):
                gate.open = each


_KEPT = ("means", "drives", "differences")
