"""Figures of what runs have kept to be looked at: first-layer filters, and the states of one test image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure as Drawing

from dualprop.errors import printable
from dualprop.runs.pictures import ZERO, Pictures
from dualprop.studies._table import Table
from dualprop.studies.report.plan import PANEL, Panel, Plan, planned

FILTERS = 8
"""Of a row, those of the largest norm."""

LAYERS = 4
"""Of a row, evenly from the first to the last."""

Array = np.ndarray[Any, Any]
COLOURS = colormaps["RdBu_r"].resampled(33)
"""Few, for the page's size; white is zero."""


def filter_pictures(kept: Mapping[str, Pictures]) -> Plan | None:
    """Weights of some neurons of the first layer, a panel a row; None where no row has kept any.

    Args:
        kept: by the row's label.
    """
    found = [(label, filters) for label, pictures in kept.items() if (filters := _largest(pictures))]

    def draw(shown: tuple[str, list[tuple[str, Array, float]]]) -> Panel:
        label, filters = shown
        figure = Drawing(figsize=(PANEL[0], PANEL[1] * 0.8))
        axes = figure.subplots()
        _show(axes, _tiles([_coloured(array) for _, array, _ in filters], 4))
        axes.set_title(printable(label), parse_math=False)
        numbers = ", ".join(number for number, _, _ in filters)
        return figure, f"First-layer filters of {label}", f"Weights of neurons {numbers}."

    rows = [[label, number, f"{scale:.3g}"] for label, filters in found for number, _, scale in filters]
    text = (
        f"Weights of the {FILTERS} neurons of the first layer with the largest norm, in the best-validation net "
        "of one seed. Red is positive, blue negative; for images in colour, the weights of red, green and blue."
    )
    data = Table("", ("row", "neuron", "largest |weight|"), rows)
    return planned("First-layer filters", text, data, found, draw)


def dyad_pictures(kept: Mapping[str, Pictures]) -> Plan | None:
    """Mean and difference of the two states in some layers, a panel a row; None where no row has kept any.

    Args:
        kept: by the row's label.
    """
    found = [(label, pictures, layers) for label, pictures in kept.items() if (layers := _layers(pictures))]

    def draw(shown: tuple[str, Pictures, list[int]]) -> Panel:
        label, pictures, layers = shown
        some = [layers[round(k * (len(layers) - 1) / max(1, LAYERS - 1))] for k in range(LAYERS)]
        some = list(dict.fromkeys(some))
        figure = Drawing(figsize=PANEL)
        grid = figure.subplots(2, len(some), squeeze=False)
        for column, layer in enumerate(some):
            for row, (what, words) in enumerate((("mean", "z̄"), ("difference", "z⁺ - z⁻"))):
                axes = grid[row][column]
                _show(axes, _whole(_array(pictures, f"{what}/{layer}")))
                if column == 0:
                    axes.set_ylabel(words)
            share = pictures.numbers.get(f"crossed/{layer}")
            crossed = "" if share is None else f"{100 * share:.2g} %"
            grid[0][column].set_title(f"layer {layer}")
            grid[1][column].set_xlabel(crossed)
        figure.suptitle(printable(label), parse_math=False)
        said = "; ".join(f"layer {layer}: {_share(pictures, layer) or 'no kinks'}" for layer in some)
        return figure, f"States of {label}", f"Share of neurons whose nudge crossed a kink: {said}."

    rows = [
        [
            label,
            str(layer),
            *(f"{pictures.scales[f'{what}/{layer}']:.3g}" for what in ("mean", "difference")),
            _share(pictures, layer),
        ]
        for label, pictures, layers in found
        for layer in layers
    ]
    text = (
        "The two states of every neuron at the end, for the first test image: above their mean z̄, below their "
        "difference z⁺ - z⁻, which carries the error down; each picture on a scale of its own, red positive, blue "
        "negative. Below: the share of neurons, over a hundred test images, whose nudge crossed a kink of their "
        "activation, where a finite difference is no derivative."
    )
    columns = ("row", "layer", "largest |z̄|", "largest |z⁺ - z⁻|", "crossed a kink, %")
    return planned("Dyads", text, Table("", columns, rows), found, draw)


def _share(pictures: Pictures, layer: int) -> str:
    share = pictures.numbers.get(f"crossed/{layer}")
    return "" if share is None else f"{100 * share:.2f}"


def _array(pictures: Pictures, name: str) -> Array:
    """In [-1, 1]."""
    values: Array = (pictures.arrays[name].numpy().astype(float) - ZERO) / 127
    return np.clip(values, -1, 1)


def _largest(pictures: Pictures) -> list[tuple[str, Array, float]]:
    """Number, weights and scale of the filters with the largest norm, in the order of their numbers."""
    found = []
    for name in pictures.arrays:
        kind, _, number = name.partition("/")
        if kind == "filters" and number.isdecimal() and pictures.arrays[name].dim() == 3:
            array = _array(pictures, name)
            scale = pictures.scales[name]
            found.append((float(np.linalg.norm(array)) * scale, number, array, scale))
    shapes = {array.shape for _, _, array, _ in found}
    chosen = sorted(found, key=lambda each: -each[0])[:FILTERS] if len(shapes) == 1 else []
    return [(number, array, scale) for _, number, array, scale in sorted(chosen, key=lambda each: int(each[1]))]


def _layers(pictures: Pictures) -> list[int]:
    """The layers whose states were kept."""
    kinds = [
        {name.partition("/")[2] for name in pictures.arrays if name.startswith(f"{what}/")}
        for what in ("mean", "difference")
    ]
    return sorted(int(number) for number in set.intersection(*kinds) if number.isdecimal())


def _coloured(array: Array) -> Array:
    """A filter (C, h, w) as colours (h, w, 4): its own where it has three channels, else red and blue for ±."""
    if len(array) == 3:
        levels = np.round((array.transpose(1, 2, 0) + 1) * 8) / 16
        return np.concatenate([levels, np.ones((*levels.shape[:2], 1))], axis=2)
    return _signed(array.mean(0))


def _signed(array: Array) -> Array:
    colours: Array = COLOURS((array + 1) / 2)
    return colours


def _whole(array: Array) -> Array:
    """The states of a layer as one picture: channels side by side, or neurons in a square."""
    if array.ndim == 3:
        return _tiles([_signed(channel) for channel in array], math.ceil(math.sqrt(len(array))))
    if array.ndim == 2:
        return _signed(array)
    wide = math.ceil(math.sqrt(len(array)))
    square = np.full(wide * math.ceil(len(array) / wide), np.nan)
    square[: len(array)] = array
    colours = _signed(np.nan_to_num(square).reshape(-1, wide))
    colours[..., 3] = ~np.isnan(square).reshape(-1, wide)
    return colours


def _tiles(images: Sequence[Array], columns: int) -> Array:
    """Pictures of one size side by side, with a gap that shows the page."""
    height, width, _ = images[0].shape
    rows = math.ceil(len(images) / columns)
    whole = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4))
    for place, image in enumerate(images):
        y, x = (place // columns) * (height + 1), (place % columns) * (width + 1)
        whole[y : y + height, x : x + width] = image
    return whole


def _show(axes: Any, colours: Array) -> None:
    axes.imshow((255 * colours).round().astype(np.uint8), interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
