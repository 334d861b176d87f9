"""Models that nobody here wrote: the example's table, with what must hold of it."""

import runpy
from pathlib import Path

import pytest
import torch

import dualprop as dp
from tests.slow import but_slow

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "torchvision_models.py"))
KINDS = {
    "resnet18": {"ReLU"},
    "vgg16_bn": {"ReLU"},
    "mobilenet_v3_small": {"ReLU", "Hardswish", "Hardsigmoid"},
    "vit_b_16": {"GELU"},
    "convnext_tiny": {"GELU"},
}


@pytest.mark.parametrize("name", but_slow(EXAMPLE["MODELS"], "vgg16_bn", "vit_b_16", "convnext_tiny"))
def test_models_that_nobody_here_wrote(name):
    make, side = EXAMPLE["MODELS"][name]
    torch.manual_seed(1)
    model = make().double()
    kind, names = type(model), list(model.state_dict())
    x, y = torch.randn(4, 3, side, side).double(), torch.arange(4)
    output, theirs = EXAMPLE["gradients"](model, x, y)
    assert dp.convert(model, beta=1e-3) is model
    assert isinstance(model, kind)
    assert list(model.state_dict()) == names
    assert set(dp.conversion(model).converted.values()) == KINDS[name]
    converted, ours = EXAMPLE["gradients"](model, x, y)
    assert torch.equal(converted, output)
    assert all(bool(torch.isfinite(g).all()) for g in ours.values())
    together, lowest = EXAMPLE["cosines"](ours, theirs)
    assert together > 0.9999
    assert lowest > 0.99
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)  # converted it is
