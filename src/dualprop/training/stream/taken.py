"""What a learner takes: frames, nets and the updates of a tick; an error in one line for all others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dualprop.arguments import check
from dualprop.engines.dyads.schedules import Parallel, Schedule, Update, parse
from dualprop.errors import DualpropError
from dualprop.nets.wiring import Wiring


def frame_of(x: Tensor, like: Tensor, samples: int) -> Tensor:
    """A frame, without a graph.

    Args:
        x: the frame as it was given.
        like: of the type and device that it must have.
        samples: how many come in at a tick.

    Raises:
        DualpropError: for a frame that no net could take.
    """
    if type(x) is not Tensor:
        check("x", x, Tensor)
    if x.dtype is not like.dtype or x.device != like.device:
        raise DualpropError(
            f"x: {x.dtype} on {x.device}, but the net's parameters are {like.dtype} on {like.device}"
        )
    if samples > 1 and (x.ndim < 2 or len(x) != samples):
        raise DualpropError(f"x: shape {tuple(x.shape)}, but it must be ({samples}, ...)")
    if x.layout is not torch.strided:
        raise DualpropError(f"x: of layout {x.layout}, but it must be dense")
    if not x.ndim:
        raise DualpropError("x: a number, but it must be of the shape of one sample")
    flat = x.detach().reshape(-1)
    if not math.isfinite(torch.dot(flat, flat)) and not bool(torch.isfinite(x).all()):
        raise DualpropError("x: NaN or infinite")
    return x.detach() if x.requires_grad else x


def output_of(wiring: Wiring) -> int:
    """The number of the output layer."""
    if len(wiring.inputs) > 1 or len(wiring.outputs) > 1:
        ends = {"inputs": wiring.inputs, "outputs": tuple(map(wiring.name, wiring.outputs))}
        several = "; ".join(f"{what} {', '.join(names)}" for what, names in ends.items() if len(names) > 1)
        raise DualpropError(f"net: a learner takes one with one input and one output, but this one has {several}")
    output = wiring.outputs[0]
    if further := wiring.out_of[output]:
        raise DualpropError(
            "net: a learner takes one whose output leads nowhere else, "
            f"but this one has {wiring.arrow(further[0])}"
        )
    return output


def updates_of(schedule: Schedule | str | None, wiring: Wiring) -> Sequence[Update]:
    """The updates of a tick, the same for each, once there is a frame everywhere."""
    order = parse(schedule) if isinstance(schedule, str) else schedule or Parallel(1)
    if order.tolerance or order.damping:
        raise DualpropError(f"schedule={order!r}: a tick settles nothing; give no tolerance and no damping")
    generator = torch.Generator().manual_seed(order.seed)
    before = generator.get_state()
    updates = order.plan(wiring, generator, done=wiring.depth)
    if not torch.equal(before, generator.get_state()):
        raise DualpropError(f"schedule={order!r}: draws its order, but that of a tick must stand")
    return updates
