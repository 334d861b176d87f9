"""The products, by whichever library makes them, are those of the definition."""

import pytest
import torch

from dualprop.nets.kernels import products


@pytest.fixture(params=["oneDNN", "BLAS"])
def kernel(request, monkeypatch):
    """Small products with and without oneDNN, which is otherwise for large ones."""
    monkeypatch.setattr(products, "_LARGE", 0 if request.param == "oneDNN" else 10**30)
    return request.param


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (33, 17, 64)])
def test_products_are_sums(kernel, shape):
    batch, m, n = shape
    z, delta, weight, bias = (torch.randn(*s) for s in ((batch, n), (batch, m), (m, n), (m,)))
    with torch.no_grad():
        assert products._suits_onednn(z, weight) == (kernel == "oneDNN")
        for ours, sums in (
            (products.forward(z, weight, bias), (z[:, None] * weight).double().sum(2) + bias),
            (products.forward(z, weight, None), (z[:, None] * weight).double().sum(2)),
            (products.adjoint(delta, weight), (delta[:, :, None] * weight).double().sum(1)),
            (products.outer(delta, z), (delta[:, :, None] * z[:, None]).double().sum(0)),
        ):
            assert ours.layout == torch.strided
            assert ours.is_contiguous()
            torch.testing.assert_close(ours.double(), sums.double(), rtol=1e-5, atol=1e-5)


def test_only_large_single_precision_products_go_to_onednn():
    z, weight = torch.zeros(100, 1000), torch.zeros(1000, 1000)
    with torch.no_grad():
        assert products._suits_onednn(z, weight)
        assert not products._suits_onednn(z.double(), weight.double())
        assert not products._suits_onednn(z.bfloat16(), weight)
        assert not products._suits_onednn(z[:5], weight[:5])
        assert not products._suits_onednn(z, weight.t())
    assert not products._suits_onednn(z, weight)


def test_a_rule_learns_the_same_by_either_library(monkeypatch):
    import dualprop as dp

    found = []
    for large in (0, 10**30):
        monkeypatch.setattr(products, "_LARGE", large)
        net = dp.nets.mlp([20, 30, 25, 5], generator=torch.Generator().manual_seed(0))
        x = torch.randn(8, 20, generator=torch.Generator().manual_seed(1))
        dp.DualProp(net, beta=0.5).backward(x, torch.arange(8) % 5)
        found.append([p.grad for p in net.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
