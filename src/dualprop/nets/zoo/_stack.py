"""What the nets are put together with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch

from dualprop.arguments import In
from dualprop.errors import DualpropError
from dualprop.nets.net import Layer, Net
from dualprop.nets.potentials import POTENTIALS
from dualprop.nets.synapses import FEEDBACK, POOLS, Pool, Synapse, Weighted

Activation = Annotated[str, In(POTENTIALS)]
"""A potential by name."""


def chain(synapses: Sequence[Synapse], activation: str, output: str) -> Net:
    """A net of these synapses."""
    potentials = [activation] * (len(synapses) - 1) + [output]
    return Net(map(Layer, synapses, potentials))


def draw_feedback(synapses: Sequence[Weighted], feedback: str, generator: torch.Generator | None) -> None:
    """Feedback weights of their own, if so, for all but the first; after all W."""
    adjoint_at = FEEDBACK[feedback]
    for synapse in synapses[1:]:
        adjoint_at(synapse, generator)


def named_pool(pool: Pool | str) -> Pool:
    """A pool by name, over windows of 2 x 2."""
    return POOLS[pool](2) if isinstance(pool, str) else pool


def check_image(in_shape: tuple[int, ...], pool: Pool, padding: Sequence[int]) -> None:
    """Refuse an image that does not last to the end of the 3 x 3 convolutions with these paddings, pooled each."""
    side = 1
    for rows in reversed(padding):
        side = max(1, (side - 1) * pool.stride + pool.size + 2 - 2 * rows)
    if len(in_shape) != 3 or in_shape[0] < 1 or min(in_shape[1:]) < side:
        raise DualpropError(
            f"in_shape={tuple(in_shape)}: must be (channels, height, width), "
            f"at least {side} x {side} for {len(padding)} pools"
        )
