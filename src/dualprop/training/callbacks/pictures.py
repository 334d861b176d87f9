"""What a run leaves to be looked at: its first layer, and the states that one test image brings about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dualprop.engines.states import State
from dualprop.errors import DivergenceError
from dualprop.nets.net import Net
from dualprop.runs.folder import Run
from dualprop.runs.pictures import Pictures
from dualprop.training.callbacks.base import Callback

if TYPE_CHECKING:
    from dualprop.training.trainer import Batch, Trainer

SAMPLES = 100
"""Of the test data, whose nudges are counted; the states that are kept are the first one's."""

FILTERS, FILTER_BYTES = 36, 30_000
"""At most so many filters, of so many numbers together."""

STATE_BYTES, LAYER_BYTES = 50_000, 2048
"""Numbers that are kept of all states, and of one layer's mean or difference."""


class KeptPictures(Callback):
    """Writes, at the very end, what pictures of the run are made of; see `dualprop.runs.pictures`.

    "filters/i" is the weight of neuron or channel i of the first layer, where the input is an image: those of the
    largest norm. "mean/k" and "difference/k" are z̄_k and z_k^+ - z_k^- of the first test image, for each layer k.
    The number "crossed/k" is the share of neurons, over some test images, whose z_k^+ and z_k^- lie on different
    sides of a kink of their activation.

    Args:
        run: the run folder.
        batches: of the test data.
    """

    def __init__(self, run: Run, batches: Iterable[Batch]) -> None:
        self.run, self.batches = run, batches

    def end(self, trainer: Trainer) -> None:
        """Infer the states and write; a rule whose inference diverges leaves the filters alone."""
        if not trainer.processes.leads:
            return
        x, y = (_first(each) for each in next(iter(self.batches)))
        arrays = dict(filters(trainer.net, x))
        crossed: dict[str, float] = {}
        try:
            with trainer.autocast():
                state = trainer.rule.infer(x, y)
            arrays |= dict(states(state))
            crossed = dict(crossings(trainer.net, state))
        except DivergenceError:
            pass
        finite = {name: array for name, array in arrays.items() if bool(torch.isfinite(array).all())}
        Pictures.of(finite, crossed).write(self.run)


def _first(each: Any) -> Any:
    """The first samples of inputs or targets, each of several if there are several."""
    return tuple(map(_first, each)) if isinstance(each, tuple) else each[:SAMPLES]


def filters(net: Net, x: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights of the first layer's neurons as images (C, h, w), those of the largest norm by their numbers."""
    weight = getattr(net.stack[0].synapse, "weight", None)
    if not isinstance(x, Tensor) or x.dim() != 4 or not isinstance(weight, Tensor):
        return
    if weight.dim() == 2 and weight.shape[1] == x[0].numel():
        weight = weight.reshape(-1, *x.shape[1:])
    if weight.dim() != 4 or weight.shape[1] != x.shape[1]:
        return
    weight = weight.detach()
    count = min(FILTERS, FILTER_BYTES // weight[0].numel(), len(weight))
    largest = weight.flatten(1).norm(dim=1).topk(count).indices.sort().values
    yield from ((f"filters/{i}", weight[i]) for i in largest.tolist())


def states(state: State) -> Iterator[tuple[str, Tensor]]:
    """Mean and difference of the first sample in each layer, as many of its neurons as there is room for."""
    depth = len(state.mean) - 1
    room = min(LAYER_BYTES, STATE_BYTES // (2 * depth))
    for name, layers in (("mean", state.mean), ("difference", state.difference)):
        for k in range(1, depth + 1):
            yield f"{name}/{k}", _thinned(layers[k][0], room)


def _thinned(z: Tensor, room: int) -> Tensor:
    """The state of one sample as (channels, height, width) or as neurons in a row: the first of them that fit.

    Where not even one channel fits, it has every second, third, ... row and column.
    """
    if z.dim() < 2:
        return z.reshape(-1)[:room]
    if z.dim() == 2:
        return z[: max(1, room // z.shape[1]), :room]
    z = z.flatten(0, -3)
    every = 1
    while z[0, ::every, ::every].numel() > room:
        every += 1
    z = z[:, ::every, ::every]
    return z[: max(1, room // z[0].numel())]


def crossings(net: Net, state: State) -> Iterator[tuple[str, float]]:
    """For each layer whose activation has kinks the share of neurons with one between z^+ and z^-."""
    for k, layer in enumerate(net.stack, 1):
        plus, minus = (layer.potential.piece(z[k]) for z in (state.plus, state.minus))
        if plus is not None and minus is not None:
            yield f"crossed/{k}", float((plus != minus).double().mean())
