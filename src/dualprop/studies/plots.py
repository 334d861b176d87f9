"""Pictures for a notebook: the dyads of one sample, and how near gradients are to backprop's."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dualprop.arguments import CountOrZero, check, checked
from dualprop.convert.alignment import ConvertedAlignment
from dualprop.engines.states import State
from dualprop.errors import DualpropError, printable
from dualprop.rules.diagnostics import Alignment
from dualprop.studies._figure import BLACK, COLOURS, styled

UP, DOWN = COLOURS[0], COLOURS[1]
MOST = 64
"""Neurons of which every one is drawn; of more, that many evenly spaced ones."""
SHORT = 3
"""Characters of a layer's name that lies below an axis; longer ones stand upright."""


class Plot(Figure):
    """A figure that a notebook shows by itself."""

    def _repr_png_(self) -> bytes:
        """The picture, whether or not pyplot has been told of notebooks."""
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


@checked
@styled
def plot_dyads(state: State, sample: CountOrZero = 0) -> Plot:
    """Both states of every neuron, and their differences, layer by layer.

    Above, each neuron's z^- and z^+ with a line between them; below, z^+ - z^-, the error. Of a layer with more
    than 64 neurons as many evenly spaced ones are shown.

    Args:
        state: what `rule.infer(x, y)` gave.
        sample: which of the batch, from 0 on.

    Returns:
        A figure, which a notebook shows and `figure.savefig("dyads.png")` keeps.

    Raises:
        DualpropError: for a sample that the batch does not have.

    Example:
        >>> import torch, dualprop as dp
        >>> rule = dp.DualProp(dp.nets.mlp([4, 8, 3]))
        >>> figure = dp.plot_dyads(rule.infer(torch.randn(5, 4), torch.arange(5) % 3))
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['layer 1 (8,)', 'layer 2 (3,)']
    """
    batch = len(state.plus[0])
    if sample >= batch:
        raise DualpropError(f"sample={sample}: the batch has {batch}, from 0 to {batch - 1}")
    layers = range(1, len(state.plus))
    figure = Plot(figsize=(1 + 2.2 * len(layers), 3.4))
    above, below = figure.subplots(2, len(layers), squeeze=False, sharex="col")
    for k, states, errors in zip(layers, above, below, strict=True):
        plus, minus = (_some(side[k][sample]) for side in (state.plus, state.minus))
        neurons = range(len(plus))
        states.vlines(neurons, minus, plus, color=BLACK, linewidth=0.6, alpha=0.5)
        states.plot(neurons, minus, ".", color=DOWN, markersize=4, label="z⁻")
        states.plot(neurons, plus, ".", color=UP, markersize=4, label="z⁺")
        shape = tuple(state.plus[k].shape[1:])
        states.set_title(f"layer {k} {shape}")
        errors.bar(neurons, [p - m for p, m in zip(plus, minus, strict=True)], color=BLACK, width=0.8)
        errors.set_xlabel("neuron" if len(plus) == math.prod(shape) else f"{len(plus)} of {math.prod(shape)}")
    above[0].set_ylabel("states")
    below[0].set_ylabel("z⁺ - z⁻")
    figure.legend(*above[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _some(state: Tensor) -> list[float]:
    """The neurons that are drawn."""
    flat = state.detach().flatten()
    if len(flat) > MOST:
        flat = flat[torch.linspace(0, len(flat) - 1, MOST).round().long()]
    numbers: list[float] = flat.double().tolist()
    return numbers


Alignments = Alignment | ConvertedAlignment


@styled
def plot_alignment(alignments: Alignments | Mapping[str, Alignments]) -> Plot:
    """Cosine to backprop's gradient and ratio of the norms, layer by layer.

    Args:
        alignments: what `dp.alignment` gave, of a rule or of a converted module; or several by name, one colour
            each. Where a net has cycles, the cosine is that to the gradient that the rule approximates.

    Returns:
        A figure, which a notebook shows and `figure.savefig("alignment.png")` keeps.

    Raises:
        DualpropError: for anything else, or for none.

    Example:
        >>> import torch, dualprop as dp
        >>> net, x, y = dp.nets.mlp([4, 8, 3]), torch.randn(5, 4), torch.arange(5) % 3
        >>> by_beta = {f"{beta}": dp.alignment(dp.DualProp(net, beta=beta), x, y) for beta in (0.1, 1.0)}
        >>> [axes.get_ylabel() for axes in dp.plot_alignment(by_beta).axes]
        ['cosine to backprop', 'norm ÷ that of backprop']
    """
    named = {"": alignments} if isinstance(alignments, Alignments) else alignments
    check("alignments", named, Mapping[str, Alignments])
    if not named:
        raise DualpropError("alignments: none")
    found = {name: _by_layer(alignment) for name, alignment in named.items()}
    longest = max((len(layer) for layers, _, _ in found.values() for layer in layers), default=1)
    figure = Plot(
        figsize=(8, 2.8 + 0.07 * (longest if longest > SHORT else 0))
    )  # room for names that stand upright
    cosine, ratio = figure.subplots(1, 2)
    for number, (name, (layers, cosines, ratios)) in enumerate(found.items()):
        colour = COLOURS[number % len(COLOURS)]
        for axes, values in ((cosine, cosines), (ratio, ratios)):
            if values is not None:
                axes.plot(range(len(layers)), values, "o-", color=colour, label=printable(name))
                _named(axes, layers)
    own = any(alignment.cosine is None for alignment in named.values())
    cosine.set_ylabel("cosine to the rule's own" if own else "cosine to backprop")
    ratio.set_ylabel("norm ÷ that of backprop")
    if "" not in named:
        figure.legend(*cosine.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _by_layer(alignment: Alignments) -> tuple[list[str], Sequence[float] | None, Sequence[float] | None]:
    """Names of layers or modules, cosines and ratios of norms."""
    if isinstance(alignment, ConvertedAlignment):
        names = list(alignment.cosine)
        return names, [alignment.cosine[n] for n in names], [alignment.norm_ratio[n] for n in names]
    cosine = alignment.own if alignment.cosine is None else alignment.cosine
    return [str(k) for k in range(1, 1 + len(cosine or ()))], cosine, alignment.norm_ratio


def _named(axes: Axes, layers: Sequence[str]) -> None:
    """Layers below an axis: all, or some of many."""
    step = max(1, len(layers) // 12)
    places = range(0, len(layers), step)
    axes.set_xticks(list(places), [printable(layers[place]) for place in places])
    if any(len(name) > SHORT for name in layers):
        axes.tick_params(axis="x", labelrotation=90, labelsize="small")
    axes.set_xlabel("layer")
