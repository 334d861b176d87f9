"""nets.mlp: initial weights, parameter order, generators."""

from __future__ import annotations

import math

import pytest
import torch

import dualprop as dp


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("feedback", ["symmetric", "kolen-pollack"])
def test_weights_are_glorot_uniform_and_biases_zero(feedback):
    net = dp.nets.mlp([300, 500, 200], feedback=feedback, generator=seeded(0))
    for layer in net.chain:
        for w in (layer.synapse.weight, layer.synapse.feedback):
            if w is None:
                continue
            bound = math.sqrt(6 / sum(w.shape))
            assert float(w.detach().abs().max()) <= bound
            assert float(w.detach().max()) > 0.99 * bound
            assert float(w.min()) < -0.99 * bound
            assert float(w.mean()) == pytest.approx(0, abs=0.01 * bound)
            assert float(w.var()) == pytest.approx(2 / sum(w.shape), rel=0.02)
            share = torch.histc(w, 10, -bound, bound) / w.numel()
            torch.testing.assert_close(share, torch.full((10,), 0.1), rtol=0, atol=0.005)
        assert float(layer.synapse.bias.abs().max()) == 0


def test_parameters_come_as_w0_b0_w1_b1_in_torch_shapes():
    net = dp.nets.mlp([7, 5, 4, 3])
    assert [tuple(p.shape) for p in net.parameters()] == [(5, 7), (5,), (4, 5), (4,), (3, 4), (3,)]
    assert all(isinstance(p, torch.nn.Parameter) and p.requires_grad for p in net.parameters())
    assert isinstance(net, torch.nn.Module)
    assert len(net) == 3


def test_both_kinds_of_feedback_start_from_the_same_weights():
    plain = dp.nets.mlp([7, 5, 4, 3], generator=seeded(3))
    own = dp.nets.mlp([7, 5, 4, 3], feedback="kolen-pollack", generator=seeded(3))
    for a, b in zip(plain.chain, own.chain, strict=True):
        assert torch.equal(a.synapse.weight, b.synapse.weight)
        assert torch.equal(a.synapse.bias, b.synapse.bias)
    assert own.chain[0].synapse.feedback is None
    for layer in own.chain[1:]:
        assert layer.synapse.feedback.shape == layer.synapse.weight.shape
        assert not torch.equal(layer.synapse.feedback, layer.synapse.weight)
    assert (plain.feedback, own.feedback) == ("symmetric", "kolen-pollack")


@pytest.mark.parametrize("feedback", ["symmetric", "kolen-pollack"])
def test_an_explicit_generator_leaves_the_global_one_alone(feedback):
    before = torch.get_rng_state()
    a = dp.nets.mlp([7, 5, 3], feedback=feedback, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    b = dp.nets.mlp([7, 5, 3], feedback=feedback, generator=seeded(1))
    c = dp.nets.mlp([7, 5, 3], feedback=feedback, generator=seeded(2))
    for p, q, r in zip(a.parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.ndim == 1 or not torch.equal(p, r)


def test_without_a_generator_torchs_seed_decides():
    nets = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        nets.append(dp.nets.mlp([7, 5, 3]).chain[0].synapse.weight)
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


def test_forward_is_the_ordinary_network():
    net = dp.nets.mlp([7, 5, 4, 3], "tanh", generator=seeded(0)).double()
    x = torch.randn(6, 7, dtype=torch.float64)
    w = list(net.parameters())
    expected = torch.tanh(torch.tanh(x @ w[0].T + w[1]) @ w[2].T + w[3]) @ w[4].T + w[5]
    torch.testing.assert_close(net(x), expected)
    assert net(x).requires_grad
    assert torch.autograd.gradcheck(net, x.requires_grad_())


@pytest.mark.parametrize("activation", sorted(dp.POTENTIALS))
def test_hidden_layers_have_the_activation_and_the_output_is_linear(activation):
    net = dp.nets.mlp([7, 5, 4, 3], activation)
    assert [layer.potential for layer in net.chain[:-1]] == [dp.POTENTIALS[activation]] * 2
    assert net.chain[-1].potential == dp.POTENTIALS["linear"]
    assert dp.nets.mlp([7, 3], output="sigmoid").chain[0].potential == dp.POTENTIALS["sigmoid"]


def test_inputs_of_any_shape_with_as_many_elements():
    net = dp.nets.mlp([12, 5, 3])
    x = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(net(x), net(x.reshape(4, 12)))
    assert net.shapes((3, 2, 2)) == [(3, 2, 2), (5,), (3,)]


def test_a_net_is_saved_and_copied_like_any_module():
    net = dp.nets.mlp([7, 5, 3], feedback="kolen-pollack")
    other = dp.nets.mlp([7, 5, 3], feedback="kolen-pollack")
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, 7)
    assert torch.equal(net(x), other(x))
    assert "kolen-pollack" in repr(net)
