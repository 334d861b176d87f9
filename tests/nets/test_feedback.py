"""Feedback that is not Wᵀ: random weights that stay, and the signs of W."""

import pytest
import torch

import dualprop as dp
from tests.oracles.builders import double_batch, double_net, gradient_of, image_batch, image_net


def test_random_feedback_goes_through_weights_that_stay():
    net = double_net((6, 7, 4), feedback="random")
    B = net.chain[1].synapse.feedback
    before, delta = B.detach().clone(), torch.randn(3, 4, dtype=torch.float64)
    assert net.feedback == "random"
    assert net.chain[0].synapse.feedback is None  # the first layer sends nothing
    torch.testing.assert_close(net.chain[1].synapse.adjoint(delta, torch.zeros(3, 7).double()), delta @ before)
    rule, opt = dp.DualProp(net), torch.optim.Adam(net.parameters(), lr=0.1, weight_decay=0.1)
    rule.backward(*double_batch(5, 6, 4))
    opt.step()
    assert torch.equal(B, before)


def test_the_signs_of_the_weights_as_they_are_now_carry_feedback():
    net = double_net((6, 7, 4), feedback="sign")
    synapse, delta = net.chain[1].synapse, torch.randn(3, 4, dtype=torch.float64)
    assert net.feedback == "sign"
    assert "feedback=sign" in repr(net)
    for _ in range(2):
        W = synapse.weight.detach()
        expected = delta @ (W.sign() * W.abs().mean())
        torch.testing.assert_close(synapse.adjoint(delta, torch.zeros(3, 7).double()), expected)
        with torch.no_grad():
            synapse.weight.mul_(-2)
    assert {name for name, _ in net.named_parameters()} == {
        f"layers.{k}.synapse.{name}" for k in (0, 1) for name in ("weight", "bias")
    }


@pytest.mark.parametrize("feedback", ["random", "sign"])
def test_images_too_and_rules_that_need_the_transpose_refuse_them(feedback):
    synapses = [dp.Conv2d(2, 3, 3), dp.Conv2d(3, 3, 3, feedback=feedback), dp.Dense(12, 3, feedback=feedback)]
    gradient = gradient_of(dp.DualProp(image_net(synapses)), *image_batch(4))
    assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradient.values())
    net = double_net((6, 7, 4), feedback=feedback)
    for rule in (dp.LiftedProximal, dp.PredictiveCoding):
        with pytest.raises(dp.DualpropError, match=f"its feedback is {feedback}"):
            rule(net)
    with pytest.raises(dp.DualpropError, match="feedback weights of its own"):
        dp.RULES["kp-dp"](net)
    with pytest.raises(dp.DualpropError, match="feedback weights of its own"):
        dp.Transposed(dp.Dense(3, 2, feedback=feedback))


def test_a_stream_learns_through_signs():
    learner = dp.stream.Learner(dp.nets.mlp([4, 8, 3], feedback="sign"), loss="cross_entropy")
    for n in range(6):
        tick = learner.tick(torch.randn(4), n % 3)
    assert tick.output.isfinite().all()
