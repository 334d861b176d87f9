"""The adjoint identity and the Hebbian gradient of every synapse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dualprop as dp

SHAPES = [(5,), (2, 3), (3, 2, 2)]
KINDS = ["symmetric", "kolen-pollack"]


def dense(shape, out=4, *, feedback="symmetric", bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = torch.Size(shape).numel()
    synapse = dp.Dense(size, out, bias=bias, feedback=feedback, generator=generator).double()
    if bias:
        torch.nn.init.normal_(synapse.bias, generator=generator)
    return synapse


@pytest.mark.parametrize("feedback", KINDS)
@given(
    shape=st.sampled_from(SHAPES),
    out=st.integers(1, 6),
    batch=st.integers(1, 5),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_adjoint_identity(feedback, shape, out, batch, bias, seed):
    """<A(z) - A(0), u> = <z, A^T u>; with feedback weights B of its own <B z, u> = <z, B^T u>."""
    synapse = dense(shape, out, feedback=feedback, bias=bias, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
    u = torch.randn(batch, out, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        back = synapse.adjoint(u, z)
        if feedback == "symmetric":
            forward = synapse(z) - synapse(torch.zeros_like(z))
        else:
            forward = torch.einsum("oi,bi->bo", synapse.feedback, z.reshape(batch, -1))
    assert back.shape == z.shape
    torch.testing.assert_close((forward * u).sum(), (back * z).sum(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("feedback", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_add_grad_is_the_derivative_of_delta_times_drive(shape, bias, feedback):
    synapse = dense(shape, feedback=feedback, bias=bias)
    z = torch.randn(6, *shape, dtype=torch.float64)
    delta = torch.randn(6, 4, dtype=torch.float64)
    expected = torch.autograd.grad((delta * synapse(z)).sum(), [synapse.weight] + ([synapse.bias] if bias else []))
    kept = delta.clone(), z.clone()
    with torch.no_grad():
        synapse.add_grad(delta, z)
        torch.testing.assert_close(synapse.weight.grad, expected[0])
        synapse.add_grad(delta, z)
    torch.testing.assert_close(synapse.weight.grad, 2 * expected[0])
    if bias:
        torch.testing.assert_close(synapse.bias.grad, 2 * expected[1])
    if feedback == "kolen-pollack":
        assert torch.equal(synapse.feedback.grad, synapse.weight.grad)
        assert synapse.feedback.grad.data_ptr() != synapse.weight.grad.data_ptr()
    assert torch.equal(delta, kept[0])
    assert torch.equal(z, kept[1])


@pytest.mark.parametrize("frozen", ["weight", "bias", "feedback"])
def test_frozen_parameters_get_no_gradient(frozen):
    synapse = dense((5,), feedback="kolen-pollack")
    getattr(synapse, frozen).requires_grad_(False)
    with torch.no_grad():
        synapse.add_grad(torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64))
    for name, parameter in synapse.named_parameters():
        assert (parameter.grad is None) is (name == frozen)


def test_feedback_weights_are_drawn_independently_of_the_weights():
    synapse = dense((400,), 300, feedback="kolen-pollack")
    w, b = synapse.weight.detach().flatten(), synapse.feedback.detach().flatten()
    assert abs(float(torch.cosine_similarity(w, b, dim=0))) < 0.02
    assert float(w.std()) == pytest.approx(float(b.std()), rel=0.02)


def test_a_synapse_says_what_it_takes():
    assert dense((2, 3)).out_shape((2, 3)) == (4,)
    assert dense((2, 3)).out_shape((6,)) == (4,)
    with pytest.raises(dp.DualpropError, match="features"):
        dense((2, 3)).out_shape((7,))
