"""The products of a convolution are those of the definition; weight gradients of tiny maps go over patches."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from dualprop.nets.kernels import products
from dualprop.nets.kernels.products import Geometry

MAPS = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 3)]
CASES = [
    (size, kernel, padding, stride)
    for size, kernel, padding, stride in itertools.product(MAPS, (1, 2, 3), (0, 1), (1, 2))
    if min(size) + 2 * padding >= kernel
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
ROUNDING = 2.0**-8  # of bf16: half a unit in the last of 8 binary digits
IN, OUT, BATCH = 64, 70, 2


def exact(p, delta, weight, bias, stride, padding):
    """Drive, feedback and weight gradient in double precision, by autograd."""
    p, delta, weight = p.double().requires_grad_(), delta.double(), weight.double().requires_grad_()
    drive = F.conv2d(p, weight, bias.double(), stride, padding)
    return drive.detach(), *torch.autograd.grad(drive, [p, weight], delta)


def error(ours, truth):
    assert ours.shape == truth.shape
    return float((ours.double() - truth).norm() / truth.norm().clamp(min=1))  # a kernel of 1 may see zeros alone


@pytest.fixture
def used(monkeypatch):
    """How many times the patches were unfolded."""
    calls, unfold = [], products._patches
    monkeypatch.setattr(products, "_patches", lambda *args: calls.append(1) or unfold(*args))
    return calls


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("size", "kernel", "padding", "stride"), CASES)
def test_products_over_patches(size, kernel, padding, stride, layout, used):
    weight = torch.randn(OUT, IN, kernel, kernel).bfloat16().to(memory_format=layout)
    bias = torch.randn(OUT).bfloat16()
    p = torch.randn(BATCH, IN, *size).bfloat16().to(memory_format=layout)
    geometry = Geometry(stride, padding)
    with torch.no_grad():
        drive = products.conv_forward(p, weight, bias, geometry)
        assert drive.shape == F.conv2d(p, weight, bias, stride, padding).shape
        delta = torch.randn(drive.shape).bfloat16().to(memory_format=layout)
        feedback = products.conv_adjoint(delta, weight, p.shape, geometry)
        gradient = products.conv_outer(delta, p, weight, geometry)
    assert len(used) == (drive.shape[2] * drive.shape[3] <= 4)
    for ours, truth in zip(
        (drive, feedback, gradient), exact(p, delta, weight, bias, stride, padding), strict=True
    ):
        assert ours.dtype == torch.bfloat16
        assert error(ours, truth) < ROUNDING


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_weights_in_single_precision_are_read_in_that_of_the_states(layout, used):
    """As under autocast; the products then round W, and nothing else."""
    weight, bias = torch.randn(OUT, IN, 3, 3).to(memory_format=layout), torch.randn(OUT)
    p = torch.randn(BATCH, IN, 2, 2).bfloat16().to(memory_format=layout)
    delta = torch.randn(BATCH, OUT, 2, 2).bfloat16().to(memory_format=layout)
    geometry = Geometry(1, 1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        ours = (
            products.conv_forward(p, weight, bias, geometry),
            products.conv_adjoint(delta, weight, p.shape, geometry),
            products.conv_outer(delta, p, weight, geometry),
        )
    assert len(used) == 1
    for a, truth in zip(ours, exact(p, delta, weight.bfloat16(), bias, 1, 1), strict=True):
        assert error(a, truth) < ROUNDING


@pytest.mark.parametrize(
    ("dtype", "channels", "size", "geometry"),
    [
        (torch.float32, 64, 2, Geometry(1, 1)),
        (torch.float64, 64, 2, Geometry(1, 1)),
        (torch.bfloat16, 32, 2, Geometry(1, 1)),
        (torch.bfloat16, 64, 3, Geometry(1, 1)),
        (torch.bfloat16, 64, 2, Geometry(1, 2, dilation=2)),
        (torch.bfloat16, 128, 2, Geometry(1, 1, groups=2)),
        (torch.float32, 6, 7, Geometry(3, 2, dilation=2, groups=3)),
    ],
    ids=str,
)
def test_everything_else_goes_to_torch(dtype, channels, size, geometry, used):
    weight = torch.randn(12, channels // geometry.groups, 3, 3, dtype=dtype)
    p = torch.randn(BATCH, channels, size, size, dtype=dtype)
    full, image = weight.double().requires_grad_(), p.double().requires_grad_()
    drive = F.conv2d(image, full, None, *geometry)
    delta = torch.randn(drive.shape, dtype=dtype)
    truth = drive.detach(), *torch.autograd.grad(drive, [image, full], delta.double())
    with torch.no_grad():
        ours = (
            products.conv_forward(p, weight, None, geometry),
            products.conv_adjoint(delta, weight, p.shape, geometry),
            products.conv_outer(delta, p, weight, geometry),
        )
    assert not used
    for a, b in zip(ours, truth, strict=True):
        assert error(a, b) < {torch.bfloat16: ROUNDING, torch.float32: 1e-6, torch.float64: 1e-14}[dtype]


@pytest.mark.parametrize("geometry", [Geometry(), Geometry(2, 1), Geometry(1, 2, 2)], ids=str)
def test_a_shift_of_weights_is_their_gradient(geometry):
    p = torch.randn(BATCH, 3, 6, 5, dtype=torch.float64)
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    drive = F.conv2d(p, weight.requires_grad_(), None, *geometry)
    delta = torch.randn_like(drive)
    (gradient,) = torch.autograd.grad(drive, weight, delta)
    moved = weight.detach().clone()
    products.conv_shift(moved, delta, p, geometry)
    torch.testing.assert_close(moved - weight.detach(), gradient)


@pytest.mark.parametrize(
    ("batch", "size", "kernel", "geometry", "by_rows"),
    [
        (1, (2, 2), 3, Geometry(1, 1), True),
        (2, (2, 1), 3, Geometry(1, 1), True),
        (1, (3, 4), 3, Geometry(2, 1), True),
        (1, (5, 6), 3, Geometry(1, 1, dilation=2), False),
        (1, (5, 6), 3, Geometry(1, 0, dilation=2), True),
        (2, (2, 2), 3, Geometry(1, 1), False),
        (1, (2, 2), 3, Geometry(1, 1, groups=2), False),
    ],
    ids=str,
)
def test_few_places_in_single_precision(batch, size, kernel, geometry, by_rows, monkeypatch):
    calls, unfold = [], products._rows
    monkeypatch.setattr(products, "_rows", lambda *args: calls.append(1) or unfold(*args))
    p, bias = torch.randn(batch, 6, *size), torch.randn(8)
    weight = torch.randn(8, 6 // geometry.groups, kernel, kernel)
    image = p.double().requires_grad_()
    drive = F.conv2d(image, weight.double(), bias.double(), *geometry)
    delta = torch.randn(drive.shape)
    (feedback,) = torch.autograd.grad(drive, image, delta.double())
    with torch.no_grad():
        assert error(products.conv_forward(p, weight, bias, geometry), drive.detach()) < 1e-6
        assert error(products.conv_adjoint(delta, weight, p.shape, geometry), feedback) < 1e-6
    assert bool(calls) == by_rows
