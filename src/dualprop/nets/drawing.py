"""A picture of a net: its layers from the input down the page, its edges beside them, as text and as SVG.

An edge from the layer just above on the page is an arrow between the two. Every other one leaves its source to the
right and comes back at the line that names it, above its target: solid for a synapse of its own, dashed for one
that is tied to another edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from torch import nn

from dualprop.nets.potentials import POTENTIALS, Potential
from dualprop.nets.shapes import Shape
from dualprop.nets.synapses import Affine, Local, Synapse, Transposed
from dualprop.nets.wiring import Wiring

_WIDE, _HIGH, _SIZE = 7.8, 22, 13  # pixels of a letter, of a line, of the font


class _Line(NamedTuple):
    """A line of the picture: a node, or an edge into the next node."""

    text: str
    node: int | None = None  # its number; None for an edge


class _Lane(NamedTuple):
    """An edge beside the lines."""

    source: int  # the line that it leaves
    target: int  # the line that it comes to
    column: int  # from the left
    tied: bool

    @property
    def low(self) -> int:
        """The upper one of its lines, which has the lower number."""
        return min(self.source, self.target)

    @property
    def high(self) -> int:
        """The other."""
        return max(self.source, self.target)

    def touches(self, line: int) -> bool:
        """Whether it goes through a line, or ends there."""
        return self.low <= line <= self.high


@dataclass(frozen=True)
class Drawing:
    """A picture of a net: text when printed, SVG in a notebook.

    Args:
        lines: nodes and edges, from the top.
        lanes: edges beside them.

    Example:
        >>> import dualprop as dp
        >>> dp.nets.hopfield_mlp([4, 8, 3], strength=0.5).draw()
          x                       (4,)
            ↓ Dense(4, 8)
            ← 0.5 × (layer1 -> layer2)ᵀ   ◂╌╮
        1 layer1  tanh            (8,)      ┊
            ↓ Dense(8, 3)                   ┊
        2 layer2  linear  output  (3,)    ╌╌╯
    """

    lines: Sequence[_Line]
    lanes: Sequence[_Lane]

    def __str__(self) -> str:
        width = max(len(line.text) for line in self.lines) + 3
        rows = [self._row(number, line, width) for number, line in enumerate(self.lines)]
        return "\n".join(row.rstrip() for row in rows)

    __repr__ = __str__

    def _row(self, number: int, line: _Line, width: int) -> str:
        """The text of a line, and the lanes that begin, end or go by."""
        ending = [lane for lane in self.lanes if number in (lane.source, lane.target)]
        reach = max((lane.column for lane in ending), default=-1)
        level = "╌" if all(lane.tied for lane in ending) else "─"
        cells = "◂" if any(number == lane.target for lane in ending) else level if ending else " "
        for column in range(1 + max((lane.column for lane in self.lanes), default=-1)):
            cells += level if column <= reach else " "
            here = next((lane for lane in self.lanes if lane.column == column and lane.touches(number)), None)
            if here is None:
                cells += level if column < reach else " "
                continue
            up, down = here.low < number, number < here.high
            left, right = column <= reach, column < reach
            upright = "┊" if here.tied and not left else "│"
            cells += {(True, True): "┼" if left else upright, (True, False): "┴" if right else "╯"}.get(
                (up, down), "┬" if right else "╮"
            )
        return line.text.ljust(width) + cells

    @property
    def svg(self) -> str:
        """The picture as a document of SVG."""
        width = _WIDE * (max(len(line.text) for line in self.lines) + 3)
        columns = 1 + max((lane.column for lane in self.lanes), default=-1)
        size = f'width="{width + 24 * (columns + 1):.0f}" height="{_HIGH * (len(self.lines) + 1)}"'
        style = f'font-family="monospace" font-size="{_SIZE}" fill="currentColor" stroke="none"'
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', _ARROW]
        for number, line in enumerate(self.lines):
            y = _HIGH * (number + 1)
            if line.node is not None:
                box = f'x="4" y="{y - 15}" width="{width - 12:.0f}" height="{_HIGH - 2}" rx="5"'
                fill = "#4c72b0" if line.node > 0 else "#999999"
                parts.append(f'<rect {box} fill="{fill}" fill-opacity="0.18" stroke="{fill}"/>')
            text = escape(line.text).replace(" ", "&#160;")
            parts.append(f'<text x="10" y="{y}" xml:space="preserve">{text}</text>')
        parts += [self._path(lane, width) for lane in self.lanes]
        return "\n".join([*parts, "</svg>"])

    def _path(self, lane: _Lane, width: float) -> str:
        label = 18 + _WIDE * len(self.lines[lane.target].text)  # where it comes to
        right = width + 24 * lane.column + 14
        above, below = (_HIGH * (line + 1) - 5 for line in (lane.source, lane.target))
        turn = 6 if below > above else -6
        there = f"M {width - 6:.0f} {above} H {right - 6:.0f} q 6 0 6 {turn} V {below - turn}"
        way = f"{there} q 0 {turn} -6 {turn} H {label:.0f}"
        dash = ' stroke-dasharray="4 3"' if lane.tied else ""
        return f'<path d="{way}" fill="none" stroke="currentColor"{dash} marker-end="url(#arrow)"/>'

    def _repr_svg_(self) -> str:
        return self.svg


_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M 0 0 L 8 4 L 0 8 z" fill="currentColor"/></marker></defs>'
)


def drawn(
    wiring: Wiring, synapses: Sequence[Synapse], potentials: Sequence[Potential], shapes: Mapping[int, Shape]
) -> Drawing:
    """The picture of a net.

    Args:
        wiring: how its layers are connected.
        synapses: on its edges.
        potentials: of its layers.
        shapes: of one sample of the states, by number, as far as they are known.
    """
    heads = _heads(wiring, potentials)
    lines: list[_Line] = []
    at: dict[int, int] = {}  # the line of a node
    ends: list[tuple[int, int]] = []  # edge, and its line
    for k in [*range(0, -len(wiring.inputs), -1), *range(1, wiring.depth + 1)]:
        above = lines[-1].node if lines else None
        for e in wiring.into[k] if k > 0 else ():
            direct = wiring.edges[e][0] == above
            above = None if direct else above  # of several from there the others go around
            lines.append(_Line(f"    {'↓' if direct else '←'} {_label(wiring, synapses, e)}"))
            if not direct:
                ends.append((e, len(lines) - 1))
        at[k] = len(lines)
        lines.append(_Line(f"{heads[k]}  {shapes.get(k, '')}".rstrip(), k))
    spans = [(at[wiring.edges[e][0]], line, isinstance(synapses[e], Transposed)) for e, line in ends]
    return Drawing(lines, _lanes(spans))


def _lanes(spans: Sequence[tuple[int, int, bool]]) -> list[_Lane]:
    """Short ones on the left, no two that meet in one column."""
    lanes: list[_Lane] = []
    for source, target, tied in sorted(spans, key=lambda span: abs(span[1] - span[0])):
        low, high = sorted((source, target))
        taken = {lane.column for lane in lanes if lane.low <= high and lane.high >= low}
        column = next(c for c in range(len(lanes) + 1) if c not in taken)
        lanes.append(_Lane(source, target, column, tied))
    return lanes


def _heads(wiring: Wiring, potentials: Sequence[Potential]) -> dict[int, str]:
    """Number, name and activation of every node, in columns."""
    columns = []
    for k in wiring.out_of:
        activation = ""
        if k > 0:
            potential = potentials[k - 1]
            activation = next((word for word, p in POTENTIALS.items() if p == potential), str(potential))
        last = "output" if k in wiring.outputs else ""
        columns.append((str(k) if k > 0 else "", wiring.name(k), activation, last))
    number, *widths = (max(map(len, column)) for column in zip(*columns, strict=True))
    heads = {}
    for k, (first, *words) in zip(wiring.out_of, columns, strict=True):
        padded = "  ".join(word.ljust(width) for word, width in zip(words, widths, strict=True))
        heads[k] = f"{first.rjust(number)} {padded}"
    return heads


def _label(wiring: Wiring, synapses: Sequence[Synapse], e: int) -> str:
    """What is on an edge."""
    synapse = synapses[e]
    if isinstance(synapse, Transposed):
        tied = next(o for o, other in enumerate(synapses) if other is synapse.tied)
        scale = "" if synapse.scale == 1 else f"{synapse.scale:g} × "
        return f"{scale}({wiring.arrow(tied)})ᵀ"
    return _what(synapse)


def _what(synapse: Synapse) -> str:
    """A synapse by its kind and its sizes, pools where they are."""
    if isinstance(synapse, Local):
        return _modules(synapse.module)
    kind = type(synapse.core).__name__
    if isinstance(synapse.core, Affine):
        kind = _modules(synapse.core.module)
    sizes = [word for word in synapse.core.extra_repr().split(", ") if word and "=" not in word]
    parts = [synapse.core.pool, f"{kind}({', '.join(sizes)})" if sizes else kind, synapse.behind]
    return " → ".join(str(part) for part in parts if part is not None)


def _modules(module: nn.Module) -> str:
    """One module, or those of a sequence, by their types."""
    parts = list(module.children()) if isinstance(module, nn.Sequential) else [module]
    return " → ".join(type(part).__name__.removeprefix("_") for part in parts)
