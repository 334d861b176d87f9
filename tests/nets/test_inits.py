"""Initial weights: their spread, their bounds, and where they are drawn from."""

from __future__ import annotations

import math

import pytest
import torch

import dualprop as dp
from dualprop.nets.synapses import INITS

CUT_STD = 0.87962566103423978  # of a standard normal cut off at two standard deviations


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SYNAPSES = {
    "convolution": (lambda **kind: dp.Conv2d(40, 500, 3, **kind), 40 * 9, 500 * 9),
    "in groups": (lambda **kind: dp.Conv2d(40, 1000, 3, groups=2, **kind), 20 * 9, 1000 * 9),
    "dense": (lambda **kind: dp.Dense(300, 500, **kind), 300, 500),
}


@pytest.mark.parametrize("name", SYNAPSES)
def test_lecun_normal(name):
    """Standard deviation 1/√fan_in after the cut, which is at two standard deviations of the uncut normal."""
    make, fan_in, _ = SYNAPSES[name]
    synapse = make(init="lecun-normal", feedback="kolen-pollack", generator=seeded(0))
    for w in (synapse.weight.detach().double(), synapse.feedback.detach().double()):
        std, uncut = 1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in) / CUT_STD
        assert float(w.std()) == pytest.approx(std, rel=0.01)
        assert float(w.mean()) == pytest.approx(0, abs=0.01 * std)
        assert float(w.abs().max()) <= 2 * uncut * (1 + 1e-6)
        assert float(w.abs().max()) > 1.99 * uncut
        inside = math.erf(1 / math.sqrt(2)) / math.erf(2 / math.sqrt(2))  # of the cut normal within one uncut σ
        assert float((w.abs() < uncut).double().mean()) == pytest.approx(inside, abs=0.005)
    assert not synapse.bias.any()


@pytest.mark.parametrize("name", SYNAPSES)
def test_glorot_uniform(name):
    make, fan_in, fan_out = SYNAPSES[name]
    w = make(init="glorot-uniform", generator=seeded(0)).weight.detach()
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert 0.999 * bound < float(w.abs().max()) <= bound * (1 + 1e-6)
    assert float(w.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)


@pytest.mark.parametrize("name", SYNAPSES)
def test_he_normal(name):
    make, fan_in, _ = SYNAPSES[name]
    w = make(init="he-normal", generator=seeded(0)).weight.detach()
    assert float(w.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.01)
    assert float(w.mean()) == pytest.approx(0, abs=0.01 * math.sqrt(2 / fan_in))


@pytest.mark.parametrize("name", SYNAPSES)
def test_uniform_by_fan_in(name):
    make, fan_in, _ = SYNAPSES[name]
    w = make(init="uniform-fan-in", generator=seeded(0)).weight.detach()
    bound = 1 / math.sqrt(fan_in)
    assert 0.999 * bound < float(w.abs().max()) <= bound * (1 + 1e-6)
    assert float(w.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("name", SYNAPSES)
def test_weights_come_from_the_generator_that_is_given(name, init):
    make = SYNAPSES[name][0]
    before = torch.get_rng_state()
    first, same, other = (make(init=init, generator=seeded(seed)).weight for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    drawn = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        drawn.append(make(init=init).weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("init", INITS)
def test_feedback_weights_are_drawn_independently_of_the_weights(init):
    for make, *_ in SYNAPSES.values():
        synapse = make(init=init, feedback="kolen-pollack", generator=seeded(0))
        w, b = synapse.weight.detach().flatten(), synapse.feedback.detach().flatten()
        assert abs(float(torch.cosine_similarity(w, b, dim=0))) < 0.01
        assert float(w.std()) == pytest.approx(float(b.std()), rel=0.01)
