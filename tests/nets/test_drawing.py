"""The picture of a net, as text written out by hand and as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
import torch
from torch import nn

import dualprop as dp
from tests.oracles.graph_nets import ENERGIES, GRAPHS, named_net
from tests.oracles.refused import refused

SVG = "{http://www.w3.org/2000/svg}"


def tied() -> dp.Net:
    """Two inputs, a skip, a pair that is tied, a loop."""
    g = dp.Graph()
    x, u = g.input("x"), g.input("u")
    h = g.layer("hidden", {x: dp.Dense(6, 4), u: dp.Dense(2, 4)}, "tanh")
    i = g.layer("i", {h: dp.Dense(4, 4)}, "shifted-sigmoid")
    norm = dp.Local(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3)))
    y = g.layer("y", {i: norm, u: dp.Dense(2, 3)}, "linear")
    g.connect(i, h, dp.Transposed(g.edge(h, i), scale=-0.5))
    g.connect(i, i, dp.Identity())
    return g.net([y])


def test_as_text() -> None:
    """u is the line above hidden, so that its edge is an arrow there and x's goes around; lanes cross."""
    assert str(tied().draw()).splitlines() == [
        "  x                                (6,)   ──╮",
        "  u                                (2,)   ──┼───╮",
        "    ← Dense(6, 4)                         ◂─╯   │",
        "    ↓ Dense(2, 4)                               │",
        "    ← -0.5 × (hidden -> i)ᵀ               ◂╌╌╌╮ │",
        "1 hidden  tanh                     (4,)       ┊ │",
        "    ↓ Dense(4, 4)                             ┊ │",
        "    ← Identity                            ◂─╮ ┊ │",
        "2 i       shifted-sigmoid          (4,)   ──┴─╯ │",
        "    ↓ LayerNorm → Linear                        │",
        "    ← Dense(2, 3)                         ◂─────╯",
        "3 y       linear           output  (3,)",
    ]


def test_convolutions_pools_and_modules() -> None:
    """Shapes are drawn where they are known: given, or seen in a batch."""
    synapses = [
        dp.Pooled(dp.Conv2d(1, 2, 3), dp.MaxPool2d(2)),
        dp.Affine(nn.ConvTranspose2d(2, 1, 2)),
        dp.Dense(4, 3, pool=dp.AvgPool2d(2)),
    ]
    net = dp.Net(map(dp.Layer, synapses, ["relu", "tanh", "linear"]))
    lines = [
        "  x",
        "    ↓ Conv2d(1, 2, 3) → MaxPool2d(2, stride=2)",
        "1 layer1  relu",
        "    ↓ ConvTranspose2d",
        "2 layer2  tanh",
        "    ↓ AvgPool2d(2, stride=2) → Dense(4, 3)",
        "3 layer3  linear  output",
    ]
    assert str(net.draw()).splitlines() == lines
    shapes = {0: "(1, 8, 8)", 2: "(2, 3, 3)", 4: "(1, 4, 4)", 6: "(3,)"}
    shown = [f"{line:24}  {shapes[n]}" if n in shapes else line for n, line in enumerate(lines)]
    assert str(net.draw((1, 8, 8))).splitlines() == shown
    fresh = dp.Net(map(dp.Layer, synapses, ["relu", "tanh", "linear"]))
    dp.DualProp(fresh).backward(torch.zeros(1, 1, 8, 8), torch.tensor([0]))
    assert str(fresh.draw()) == str(net.draw((1, 8, 8)))
    with refused("x: shape .3,. a sample, but the layer takes images"):
        net.draw((3,))
    with refused("x: 2 shapes, but the net has 1 inputs"):
        net.draw((1, 8, 8), (3,))


def both_ways() -> dp.Net:
    """From i an edge up the page and one down it."""
    g = dp.Graph()
    h = g.layer("h", {g.input("x"): dp.Dense(4, 3)})
    i = g.layer("i", {h: dp.Dense(3, 3)})
    j = g.layer("j", {i: dp.Dense(3, 3)})
    g.connect(i, h, dp.Dense(3, 3))
    return g.net([g.layer("y", {j: dp.Dense(3, 2), i: dp.Dense(3, 2)}, "linear")])


@pytest.mark.parametrize("name", [*{**GRAPHS, **ENERGIES}, "both ways"])
def test_every_edge_is_in_the_picture_once(name: str) -> None:
    """Between two lines or beside them, in columns that do not meet; and SVG draws the same."""
    net = both_ways() if name == "both ways" else named_net(name)
    drawing = net.draw()
    text, edges = str(drawing), net.wiring.edges
    assert text.count("↓") + text.count("←") == len(edges)
    assert len(drawing.lanes) == text.count("◂") == text.count("←")
    for lane in drawing.lanes:
        for other in drawing.lanes:
            if lane is not other and lane.column == other.column:
                assert lane.high < other.low or other.high < lane.low
        source = drawing.lines[lane.source].node
        target = next(line.node for line in drawing.lines[lane.target :] if line.node is not None)
        assert (source, target) in edges
    picture = ET.fromstring(drawing._repr_svg_())
    assert len(picture.findall(f"{SVG}rect")) == len(net) + len(net.wiring.inputs)
    assert len(picture.findall(f"{SVG}path")) == len(drawing.lanes)
    words = [(t.text or "").replace("\xa0", " ") for t in picture.findall(f"{SVG}text")]
    assert words == [line.text for line in drawing.lines]


@pytest.mark.parametrize("name", dp.NETS)
def test_every_named_net_has_a_picture(name: str) -> None:
    net = dp.NETS[name]((3, 32, 32), 10)
    lines = str(net.draw((3, 32, 32))).splitlines()
    assert len(lines) == 1 + len(net) + len(net.wiring.edges)
    assert lines[0].split("(")[1].startswith("3, 32, 32)")
