"""Nets in ONNX's runtime: the outputs are those of net(x), for any number of samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

import dualprop as dp  # noqa: E402
from dualprop.onnx import export  # noqa: E402
from tests.slow import but_slow  # noqa: E402


def two_inputs():
    g = dp.Graph()
    a, b = g.input("a"), g.input("b")
    h = g.layer("h", {a: dp.Dense(6, 9), b: dp.Dense(4, 9, bias=False)}, "tanh")
    y = g.layer("y", {h: dp.Dense(9, 3), a: dp.Dense(6, 3)}, "linear")
    return g.net(outputs=[y, h])


NETS = {
    "mlp": (lambda: dp.nets.mlp([64, 20, 10]), [(1, 8, 8)]),
    "tanh": (lambda: dp.nets.mlp([6, 9, 5, 3], "tanh"), [(6,)]),
    "hard": (lambda: dp.nets.mlp([6, 9, 3], "hard-sigmoid", output="sigmoid"), [(6,)]),
    "feedback": (lambda: dp.nets.mlp([6, 9, 3], feedback="kolen-pollack"), [(6,)]),
    "two inputs": (two_inputs, [(6,), (4,)]),
    "vgg_like": (lambda: dp.nets.vgg_like(num_classes=4, in_shape=(3, 32, 32)), [(3, 32, 32)]),
    "softmax pool": (lambda: dp.nets.vgg_like(num_classes=4, in_shape=(3, 32, 32), pool="softmax"), [(3, 32, 32)]),
    "resnet8": (lambda: dp.nets.resnet8(num_classes=4, in_shape=(3, 32, 32)), [(3, 32, 32)]),
    "vit_tiny": (lambda: dp.nets.vit_tiny(num_classes=4, in_shape=(3, 32, 32)), [(3, 32, 32)]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", but_slow(list(NETS), *[name for name in NETS if name not in ("mlp", "two inputs")])
)
def test_onnxruntime_says_the_same(name, tmp_path):
    make, shapes = NETS[name]
    net = make()
    file = export(net, tmp_path / "net.onnx", *shapes)
    session = onnxruntime.InferenceSession(file)
    assert [each.name for each in session.get_inputs()] == list(net.wiring.inputs)
    for samples in (1, 5):
        inputs = [torch.rand(samples, *shape) for shape in shapes]
        expected = net(tuple(inputs) if len(inputs) > 1 else inputs[0])
        feed = {each.name: x.numpy() for each, x in zip(session.get_inputs(), inputs, strict=True)}
        for ours, theirs in zip(
            session.run(None, feed), expected if isinstance(expected, tuple) else (expected,), strict=True
        ):
            np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_what_is_refused(tmp_path):
    net = dp.nets.mlp([6, 9, 3])
    with pytest.raises(dp.DualpropError, match=r"x: .*6"):
        export(net, tmp_path / "net.onnx", (5,))
    with pytest.raises(dp.DualpropError, match="0 shapes, but the net has 1"):
        export(net, tmp_path / "net.onnx")
    with pytest.raises(dp.DualpropError, match="cycles"):
        export(dp.nets.hopfield_mlp([6, 9, 3]), tmp_path / "net.onnx", (6,))
    (tmp_path / "net.onnx").write_text("mine")
    with pytest.raises(dp.DualpropError, match="in_shapes=6: must be a list"):
        export(net, tmp_path / "net.onnx", 6)
    with pytest.raises(dp.DualpropError, match="net: of type Linear"):
        export(torch.nn.Linear(6, 3), tmp_path / "net.onnx", (6,))
    with pytest.raises(dp.DualpropError, match="exists; choose another file"):
        export(net, tmp_path / "net.onnx", (6,))
    assert (tmp_path / "net.onnx").read_text() == "mine"
