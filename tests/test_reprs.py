"""What a notebook or a terminal shows of public things: a few words, no tensors and no addresses."""

import pytest
import torch

import dualprop as dp

NET, X, Y = dp.nets.mlp([4, 8, 3]), torch.randn(50, 4), torch.arange(50) % 3
GRAPH = dp.Graph()
GRAPH.layer("h", {GRAPH.input("x"): dp.Dense(4, 8)})
SHOWN = {
    "rule": lambda: dp.DualProp(NET, states=dp.devices.Noise(0.1)),
    "state": lambda: dp.DualProp(NET).infer(X, Y),
    "step": lambda: dp.DualProp(NET).backward(X, Y),
    "alignment": lambda: dp.alignment(dp.DualProp(NET), X, Y),
    "names": lambda: dp.RULES,
    "potential": lambda: dp.POTENTIALS["relu"],
    "loss": lambda: dp.LOSSES["mse"],
    "schedule": lambda: dp.Order([2, [1]], 3),
    "data": lambda: dp.data.load("digits"),
    "batches": lambda: dp.data.Batches(dp.data.load("digits").train, 100),
    "settings": lambda: dp.Settings(),
    "graph": lambda: GRAPH,
    "learner": lambda: dp.stream.Learner(NET),
    "tick": lambda: dp.stream.Learner(NET).tick(X[0], 1),
    "carrier": lambda: dp.distributed.Simulated(),
    "way": lambda: dp.distributed.InFlight(4),
    "counting": dp.counting,
    "trace": lambda: dp.devices.Trace(NET),
    "trainer": lambda: dp.Trainer(NET, dp.DualProp(NET), torch.optim.SGD(NET.parameters(), 0.1), [(X, Y)]),
    "conversion": lambda: dp.conversion(dp.convert(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU()))),
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_is_short(name):
    shown = repr(SHOWN[name]())
    assert len(shown) < 1000
    assert " at 0x" not in shown
    assert "tensor(" not in shown


def test_it_says_what_it_is():
    assert repr(dp.LOSSES) == "<loss: mse, mse-linearised, cross_entropy>"
    assert repr(GRAPH) == "Graph(inputs: x; layers: h)"
    assert repr(SHOWN["batches"]()) == "Batches(15 of 100 from Split(1437 images of (1, 8, 8)))"
    with dp.counting() as counts:
        dp.DualProp(NET).backward(X, Y)
    assert repr(counts) == "counting(products: forward 2, feedback 1, gradient 2)"
