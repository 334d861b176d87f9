"""The frame of a page's figures: panels that are drawn late, each by itself, and the numbers in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from dualprop.studies._table import Table
from dualprop.studies.report.svg import drawn, markup

T = TypeVar("T")

PANEL = (3.1, 2.2)
"""Inches: narrow enough for a telephone."""

Panel = tuple[Drawing, str, str]
"""What is drawn, what it is called, and what it shows in words for those who do not see it."""


@dataclass(frozen=True)
class Figure:
    """Panels, and the numbers in them.

    Attributes:
        title: above them.
        text: what they show.
        panels: elements for a page, `<svg>` or `<img>`.
        data: the numbers.
    """

    title: str
    text: str
    panels: Sequence[str]
    data: Table


@dataclass(frozen=True)
class Plan:
    """A figure that is still to be drawn.

    Attributes:
        figure: all of it but its panels.
        draw: makes one panel out of the name that its ids begin with.
        count: how many there are.
        spare: whether a table says the same, so that it is the first to go where there is no room for all.
    """

    figure: Figure
    draw: Callable[[int, str], str]
    count: int
    spare: bool = False

    def drawn(self, name: str) -> Figure:
        """The figure; its ids begin with a name."""
        return replace(self.figure, panels=[self.draw(n, f"{name}-{n}") for n in range(self.count)])


def planned(
    title: str, text: str, data: Table, shown: Sequence[T], draw: Callable[[T], Panel], *, spare: bool = False
) -> Plan | None:
    """A figure with a panel for each of some things; None for none of them.

    Args:
        title: above it.
        text: what it shows.
        data: the numbers in it.
        shown: the things.
        draw: makes the panel of one.
        spare: whether a table says the same.
    """

    @drawn
    def panel(n: int, name: str) -> str:
        drawing, called, said = draw(shown[n])
        return markup(drawing, name, called, said)

    return Plan(Figure(title, text, (), data), panel, len(shown), spare) if shown else None


def by_epoch(right: float = 0.97) -> tuple[Drawing, Axes]:
    """A small figure with a horizontal axis of epochs, whose frame is at the same place in all of them."""
    figure = Drawing(figsize=PANEL)
    figure.set_layout_engine("none")
    axes = figure.subplots(gridspec_kw={"left": 0.17, "right": right, "bottom": 0.2, "top": 0.88})
    axes.set_xlabel("epoch")
    return figure, axes
