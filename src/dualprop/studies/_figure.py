"""How our figures look: one style for all, a look of its own for every rule, axes with ticks at plain numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from dualprop.errors import printable
from dualprop.rules import RULES
from dualprop.runs.documents import replace_file

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 3.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "figure.titlesize": 10,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
}
"""Sizes in points."""

DEFAULT = "default"
"""What ours is put upon: a matplotlibrc in the working directory might start LaTeX, or ask for a huge picture."""

styled = style.context([DEFAULT, STYLE])
"""A decorator: what the function draws and saves has our style."""

BLACK = "#000000"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#56b4e9", "#cc79a7", "#e69f00")
"""Told apart by people who do not see all colours, too [Okabe, Ito 2008]."""

LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D")
"""Of the first six rules after bp, of the next six, ..."""

FEW = 30
"""Epochs of which every one is marked."""

MANY = 6
"""Rules whose curves one panel may hold; of more, each has a panel of its own."""


def save(figure: Figure, path: Path) -> None:
    """Replace a picture, of the kind that the ending says.

    Raises:
        CheckpointError: if it cannot be written.
    """
    replace_file(path, lambda file: figure.savefig(file, format=path.suffix[1:]))


def look(rule: str) -> dict[str, Any]:
    """Colour, line and marker of a rule, the same in every figure: bp in black, then by the order in `RULES`.

    Example:
        >>> look("bp")["color"], look("dp")["color"], look("dp")["linestyle"]
        ('#000000', '#0072b2', '-')
    """
    if rule == "bp":
        return {"color": BLACK, "linestyle": "-", "marker": "o", "linewidth": 2}
    others = [name for name in RULES if name != "bp"]
    place = others.index(rule) if rule in others else len(others)
    turn = place // len(COLOURS) % len(LINES)
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": LINES[turn], "marker": MARKERS[turn]}


def angle(cosine: float) -> float:
    """In degrees; NaN where a gradient was zero, and for a cosine of it.

    Example:
        >>> round(angle(0.5)), angle(1.0000001)
        (60, 0.0)
    """
    return cosine if math.isnan(cosine) else math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


def panels(count: int, size: tuple[float, float], columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with panels on one scale, whose horizontal axes count epochs, and room for a legend beside them.

    Args:
        count: how many.
        size: of one panel in inches.
        columns: the most side by side.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(columns * size[0] + 1.4, rows * size[1] + 0.4))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, axes in enumerate(grid):
        if i >= count:
            axes.set_visible(False)
        elif i + columns >= count:  # the lowest in its column
            axes.set_xlabel("epoch")
            axes.tick_params(axis="x", labelbottom=True)
    return figure, list(grid[:count])


def curves(axes: Axes, rule: str, runs: Sequence[Sequence[float]]) -> None:
    """The mean over runs by epoch, with a band from the lowest to the highest; points where there are few.

    Args:
        axes: with a horizontal axis of epochs.
        rule: whose look they have.
        runs: for each run a number an epoch, from epoch 1 on.
    """
    columns = list(zip(*runs, strict=True))
    epochs = range(1, len(columns) + 1)
    own = look(rule)
    if len(columns) > FEW:
        own["marker"] = None
    axes.plot(epochs, [statistics.fmean(c) for c in columns], label=printable(rule), **own)
    if len(runs) > 1:
        low, high = [min(c) for c in columns], [max(c) for c in columns]
        axes.fill_between(epochs, low, high, color=own["color"], alpha=0.1, linewidth=0)
    _whole_epochs(axes, len(columns))


def _whole_epochs(axes: Axes, count: int) -> None:
    """Ticks at whole epochs alone."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.set_xlim(*((0.5, 1.5) if count == 1 else (None, None)))


def reference(axes: Axes, rule: str, runs: Sequence[Sequence[float]]) -> None:
    """The mean of another rule by epoch, thin and dotted: what the curves of a panel are beside."""
    mean = [statistics.fmean(column) for column in zip(*runs, strict=True)]
    axes.plot(range(1, len(mean) + 1), mean, **look(rule) | {"marker": None, "linewidth": 0.8, "linestyle": ":"})


def by_layer(axes: Axes, layers: Sequence[tuple[str, Sequence[float]]]) -> None:
    """A curve for each layer by epoch, from dark for the first to light for the last.

    Args:
        axes: with a horizontal axis of epochs.
        layers: for each its name and a number an epoch, from epoch 1 on.
    """
    colours = colormaps["viridis"]
    for place, (name, numbers) in enumerate(layers):
        colour = colours(0.9 * place / max(1, len(layers) - 1))
        marker = "o" if len(numbers) <= FEW else None
        axes.plot(range(1, len(numbers) + 1), numbers, label=name, color=colour, marker=marker, markersize=2.5)
    _whole_epochs(axes, max(len(numbers) for _, numbers in layers))


def legend(figure: Figure, axes: Axes) -> None:
    """The curves' names beside the panels, where they cover none of them."""
    for name in figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper").get_texts():
        name.set_parse_math(False)


STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9))
"""Ticks in a decade, coarse to fine."""

MOST_TICKS = 9


def plain_ticks(axis: Axis, low: float, high: float) -> None:
    """Give a logarithmic axis as many ticks at plain numbers as are read easily.

    Args:
        axis: of a panel.
        low: its lower end, above 0.
        high: its upper end.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [[s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high] for steps in STEPS]
    tenths = [n / 10 for n in range(math.ceil(10 * low), math.floor(10 * high) + 1)] if high < 3 * low < 30 else []
    fitting = [ticks for ticks in (*choices, tenths) if len(ticks) <= MOST_TICKS]
    axis.set_major_locator(FixedLocator(max(fitting, key=len)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def errors_axis(axes: Axes, errors: Sequence[float]) -> None:
    """A logarithmic vertical axis for numbers that may be 0: below the smallest other it is linear.

    Args:
        axes: a panel.
        errors: what it shows, none below 0.
    """
    above = [error for error in errors if error > 0] or [1.0]
    low, high = min(above), max(above) * 1.1
    if min(errors) > 0:
        axes.set(yscale="log", ylim=(low / 1.1, high))
        return plain_ticks(axes.yaxis, low / 1.1, high)
    axes.set_yscale("symlog", linthresh=low, linscale=0.5)
    axes.set_ylim(-0.1 * low, high)
    plain_ticks(axes.yaxis, low, high)
    axes.set_yticks([0, *axes.get_yticks()])
    return None
