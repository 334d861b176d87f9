"""Blocks change nothing: every bit is that of the float32 computation in one piece."""

import pytest
import torch

import dualprop as dp
from dualprop.nets.kernels import blockwise as module
from dualprop.nets.kernels.blockwise import blockwise


def overwriting(a, g):
    """Sum and product, each written over an argument."""
    product = a * g
    return a.add_(g), product.tanh_()


def direct(a, g):
    a, g = a.float(), g.float()
    return (a + g).bfloat16(), torch.tanh(a * g).bfloat16()


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


LAYOUTS = {
    "contiguous": lambda: random(4, 6, 5, 7),
    "channels_last": lambda: random(4, 6, 5, 7).contiguous(memory_format=torch.channels_last),
    "transposed": lambda: random(4, 7, 5, 6).transpose(1, 3),
    "expanded": lambda: random(4, 1, 5, 7).expand(4, 6, 5, 7),
    "strided": lambda: random(4, 6, 5, 14)[..., ::2],
    "one column": lambda: random(840, 1),
    "empty": lambda: random(0, 6),
    "scalar": lambda: random(1)[0],
}
PAIRS = [(name, name) for name in LAYOUTS] + [
    ("contiguous", "channels_last"),
    ("channels_last", "transposed"),
    ("transposed", "expanded"),
    ("expanded", "contiguous"),
    ("strided", "channels_last"),
]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 64 elements, so that 840 are many blocks and an incomplete one; they are counted."""
    monkeypatch.setattr(module, "BLOCK", 64)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_the_same_bits_as_in_one_piece(first, second):
    a, g = LAYOUTS[first](), -LAYOUTS[second]()
    kept = a.clone(), g.clone()
    sizes = []

    def counted(a, g):
        sizes.append(a.numel())
        assert a.dtype == g.dtype == torch.float32
        return overwriting(a, g)

    with torch.no_grad():
        results = blockwise(counted, a, g, outputs=2)
    assert sizes == ([64] * 13 + [8] if a.numel() == 840 else [a.numel()])
    for ours, expected in zip(results, direct(a, g), strict=True):
        assert ours.dtype == torch.bfloat16
        assert ours.shape == expected.shape
        assert torch.equal(ours, expected)
        assert ours.stride() == torch.empty_like(a).stride()
    assert torch.equal(a, kept[0])
    assert torch.equal(g, kept[1])


def test_blocks_of_the_usual_size():
    a, g = random(600, 1000), random(1000, 600).t()
    assert a.numel() > 2 * module.BLOCK
    with torch.no_grad():
        results = blockwise(overwriting, a, g, outputs=2)
    for ours, expected in zip(results, direct(a, g), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_types_keep_theirs_and_are_not_overwritten(dtype):
    a, g = random(20, 9).to(dtype), random(9, 20).t().to(dtype)
    before = a.clone(), g.clone()
    with torch.no_grad():
        added, product = blockwise(overwriting, a, g, outputs=2)
    assert torch.equal(added, before[0] + before[1])
    assert torch.equal(product, torch.tanh(before[0] * before[1]))
    assert torch.equal(a, before[0])
    assert torch.equal(g, before[1])


@pytest.mark.usefixtures("small_blocks")
def test_mixed_types_round_to_the_first_one():
    a, g = random(10, 10), random(10, 10).float() / 3
    with torch.no_grad():
        (total,) = blockwise(lambda a, g: (a.add_(g),), a, g, outputs=1)
    assert torch.equal(total, (a.float() + g).bfloat16())


@pytest.mark.usefixtures("small_blocks")
def test_compiled_and_with_a_graph():
    a, g = random(10, 20), random(10, 20)
    f = torch.compile(lambda a, g: blockwise(overwriting, a, g, outputs=2), fullgraph=True)
    with torch.no_grad():
        for ours, expected in zip(f(a, g), direct(a, g), strict=True):
            torch.testing.assert_close(ours, expected)
    a.requires_grad_()
    (total,) = blockwise(lambda a, g: (a * g,), a, g, outputs=1)
    total.sum().backward()
    assert torch.equal(a.grad, g)


def test_shapes_must_agree():
    with pytest.raises(dp.DualpropError, match=r"tensors: shapes \[\(2, 3\), \(3,\)\]"):
        blockwise(overwriting, random(2, 3), random(3), outputs=2)
