"""Conv2d, and Dense behind a pool: adjoint identities, Hebbian gradients, shapes, errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import dualprop as dp
from tests.oracles.refused import refused

KINDS = ["symmetric", "kolen-pollack"]
POOLS = [None, dp.MaxPool2d(2), dp.MaxPool2d(3, stride=1), dp.AvgPool2d(2), dp.AvgPool2d(2, stride=1)]


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def convolutions(draw, feedback: str) -> tuple[dp.Conv2d, torch.Tensor, torch.Tensor]:
    """A synapse, a state below it and a difference above it."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    ins, outs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    seed = draw(st.integers(0, 99))
    synapse = dp.Conv2d(
        ins,
        outs,
        draw(st.integers(1, 3)),
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
        feedback=feedback,
        pool=draw(st.sampled_from(POOLS)),
        generator=torch.Generator().manual_seed(seed),
    ).double()
    if synapse.bias is not None:
        torch.nn.init.normal_(synapse.bias, generator=torch.Generator().manual_seed(seed))
    z = normal(draw(st.integers(1, 3)), ins, draw(st.integers(3, 9)), draw(st.integers(3, 9)), seed=seed)
    try:
        shape = synapse.out_shape(tuple(z.shape[1:]))
    except dp.DualpropError:
        assume(False)
    return synapse, z, normal(len(z), *shape, seed=seed + 1)


def pooled_by(synapse: dp.Synapse, z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The linear part of A at z, applied to v: autograd's Jacobian-vector product."""
    return torch.autograd.functional.jvp(synapse, z, v)[1].detach()


@given(st.data())
def test_the_adjoint_identity(data):
    """<delta, A'(z) v> = <A^T delta, v>, and without a pool A'(z) v = A(v) - A(0)."""
    synapse, z, delta = data.draw(convolutions("symmetric"))
    v = normal(*z.shape, seed=7)
    with torch.no_grad():
        back, drive = synapse.adjoint(delta, z), synapse(z)
        assert drive.shape == delta.shape
        assert back.shape == z.shape
        forward = pooled_by(synapse, z, v)
        if synapse.pool is None or synapse.pool.linear:
            torch.testing.assert_close(forward, synapse(v) - synapse(torch.zeros_like(v)))
        torch.testing.assert_close((delta * forward).sum(), (back * v).sum(), rtol=1e-9, atol=1e-9)
        at_zero = drive - synapse(torch.zeros_like(z))  # a pool maps zero to zero and is homogeneous
        torch.testing.assert_close((delta * at_zero).sum(), (back * z).sum(), rtol=1e-9, atol=1e-9)


@given(st.data())
def test_own_feedback_weights_carry_the_adjoint(data):
    """With weights B it is the adjoint of the synapse that has B in the place of W."""
    synapse, z, delta = data.draw(convolutions("kolen-pollack"))
    with torch.no_grad():
        back = synapse.adjoint(delta, z)
        synapse.weight.copy_(synapse.feedback)
        synapse.register_parameter("feedback", None)
        torch.testing.assert_close(back, synapse.adjoint(delta, z))
        v = normal(*z.shape, seed=7)
        torch.testing.assert_close((delta * pooled_by(synapse, z, v)).sum(), (back * v).sum())


@pytest.mark.parametrize("feedback", KINDS)
@given(data=st.data())
def test_add_grad_and_adjoint_are_derivatives_of_delta_times_drive(feedback, data):
    synapse, z, delta = data.draw(convolutions(feedback))
    w = z.clone().requires_grad_()
    names = [name for name, _ in synapse.named_parameters() if name != "feedback"]
    truth = torch.autograd.grad((delta * synapse(w)).sum(), [w, *(getattr(synapse, n) for n in names)])
    with torch.no_grad():
        if feedback == "symmetric":
            torch.testing.assert_close(synapse.adjoint(delta, z), truth[0])
        for times in (1, 2):
            synapse.add_grad(delta, z)
            for name, expected in zip(names, truth[1:], strict=True):
                torch.testing.assert_close(getattr(synapse, name).grad, times * expected)
    if feedback == "kolen-pollack":
        assert torch.equal(synapse.feedback.grad, synapse.weight.grad)
        assert synapse.feedback.grad.data_ptr() != synapse.weight.grad.data_ptr()


@pytest.mark.parametrize("feedback", KINDS)
@pytest.mark.parametrize("pool", POOLS[1:], ids=str)
def test_a_dense_synapse_behind_a_pool(pool, feedback):
    z = normal(3, 2, 5, 4, seed=0)
    size = torch.Size(pool.out_shape(z.shape[1:])).numel()
    synapse = dp.Dense(size, 4, feedback=feedback, pool=pool).double()
    torch.nn.init.normal_(synapse.bias)
    delta, w = normal(3, 4, seed=1), z.clone().requires_grad_()
    expected = pool(w).flatten(1) @ synapse.weight.T + synapse.bias
    down = synapse.weight if feedback == "symmetric" else synapse.feedback
    (back,) = torch.autograd.grad((delta * (pool(w).flatten(1) @ down.T)).sum(), w)
    truth = torch.autograd.grad((delta * expected).sum(), [synapse.weight, synapse.bias])
    with torch.no_grad():
        assert synapse.out_shape((2, 5, 4)) == (4,)
        torch.testing.assert_close(synapse(z), expected)
        torch.testing.assert_close(synapse.adjoint(delta, z), back)
        synapse.add_grad(delta, z)
    torch.testing.assert_close(synapse.weight.grad, truth[0])
    torch.testing.assert_close(synapse.bias.grad, truth[1])
    if feedback == "kolen-pollack":
        torch.testing.assert_close(synapse.feedback.grad, truth[0])


@pytest.mark.parametrize("frozen", ["weight", "bias", "feedback"])
def test_frozen_parameters_get_no_gradient(frozen):
    synapse = dp.Conv2d(2, 3, 3, feedback="kolen-pollack")
    getattr(synapse, frozen).requires_grad_(False)
    with torch.no_grad():
        synapse.add_grad(torch.randn(2, 3, 4, 4), torch.randn(2, 2, 6, 6))
    for name, parameter in synapse.named_parameters():
        assert (parameter.grad is None) is (name == frozen)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_lie_in_memory_as_their_parameters_do(layout):
    """Fused optimizers read both by their strides."""
    synapse = dp.Conv2d(2, 3, 3, feedback="kolen-pollack").to(memory_format=layout)
    for data in (torch.contiguous_format, torch.channels_last):
        synapse.zero_grad()
        z = torch.randn(2, 2, 6, 6).to(memory_format=data)
        with torch.no_grad():
            synapse.add_grad(torch.randn(2, 3, 4, 4).to(memory_format=data), z)
        for parameter in synapse.parameters():
            assert parameter.grad.stride() == parameter.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("pool", [None, dp.MaxPool2d(2), dp.AvgPool2d(2)], ids=str)
def test_feedback_lies_in_memory_as_the_state_does(pool, layout):
    z = torch.randn(2, 3, 4, 4).to(memory_format=layout)
    side = 4 if pool is None else 2
    for synapse in (dp.Dense(3 * side * side, 5, pool=pool), dp.Conv2d(3, 5, 3, padding=1, pool=pool)):
        delta = torch.randn(2, *synapse.out_shape((3, 4, 4)))
        with torch.no_grad():
            assert synapse.adjoint(delta, z).stride() == z.stride()


def test_a_net_with_a_graph_is_the_ordinary_network():
    """net(x) with a graph, for backprop, and without one, for the rules."""
    synapse = dp.Conv2d(2, 3, 3, stride=2, padding=1, pool=dp.MaxPool2d(2)).double()
    net = dp.Net([dp.Layer(synapse, "tanh"), dp.Layer(dp.Dense(12, 3).double(), "linear")])
    x = normal(2, 2, 8, 8, seed=0).requires_grad_()
    with torch.no_grad():
        without = net(x)
    torch.testing.assert_close(net(x), without)
    assert torch.autograd.gradcheck(net, x)


BAD = [
    ({"in_channels": 0}, "in_channels"),
    ({"out_channels": -1}, "out_channels"),
    ({"kernel_size": 0}, "kernel_size"),
    ({"kernel_size": 2.0}, "kernel_size"),
    ({"stride": 0}, "stride"),
    ({"dilation": 0}, "dilation"),
    ({"padding": -1}, "padding"),
    ({"padding": 0.5}, "padding"),
    ({"groups": 0}, "groups"),
    ({"groups": 4}, "groups"),
    ({"groups": 3, "in_channels": 6}, "groups"),
    ({"feedback": "none"}, "unknown feedback"),
    ({"init": "zeros"}, "unknown init"),
    ({"pool": torch.nn.MaxPool2d(2)}, "pool"),
]


@pytest.mark.parametrize(("settings", "name"), BAD, ids=str)
def test_bad_settings_are_named_in_one_line(settings, name):
    with refused(f"^{name}"):
        dp.Conv2d(**{"in_channels": 2, "out_channels": 4, "kernel_size": 3, **settings})


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 2, 6), (2, 6, 2), (72,), (2, 36), (1, 2, 6, 6)], ids=str)
def test_images_that_do_not_fit(shape):
    synapse = dp.Conv2d(2, 3, 3)
    with refused(r"^x: shape"):
        synapse.out_shape(shape)
    rule = dp.DualProp(dp.Net([dp.Layer(synapse), dp.Layer(dp.Dense(48, 3), "linear")]))
    with pytest.raises(dp.DualpropError, match=r"^x: shape"):
        rule.backward(torch.randn(2, *shape), torch.tensor([0, 1]))
    assert all(p.grad is None for p in rule.net.parameters())
