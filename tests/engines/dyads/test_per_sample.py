"""A nudge belongs to a sample: no sample's gradient depends on which others share its batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dualprop as dp
from tests.oracles.builders import assert_same, double_batch, double_net, gradient_of, suited
from tests.rules.conformance import without_noise

SIZES = (5, 6, 4, 3)
NAMES = list(dp.RULES)


def built(name: str, loss: str, seed: int, **settings) -> dp.Rule:
    method = without_noise(dp.RULES[name])
    return method(double_net(SIZES, **suited(method, "tanh"), seed=seed), loss=loss, **settings)


def fresh_gradient(name, loss, seed, x, y):
    return gradient_of(built(name, loss, seed), x, y)


losses = st.sampled_from(sorted(dp.LOSSES))
seeds = st.integers(0, 99)


@pytest.mark.parametrize("name", NAMES)
def test_duplicating_every_sample_changes_no_gradient(name):
    @given(loss=losses, seed=seeds, n=st.integers(1, 5), copies=st.integers(2, 4), interleaved=st.booleans())
    def holds(loss, seed, n, copies, interleaved):
        x, y = double_batch(n, SIZES[0], SIZES[-1], seed=seed)
        if interleaved:
            more = x.repeat_interleave(copies, 0), y.repeat_interleave(copies)
        else:
            more = x.repeat(copies, 1), y.repeat(copies)
        once, often = fresh_gradient(name, loss, seed, x, y), fresh_gradient(name, loss, seed, *more)
        assert_same(often, once, rtol=1e-10)

    holds()


@pytest.mark.parametrize("name", NAMES)
def test_parts_average_to_the_whole_by_their_sizes(name):
    @given(loss=losses, seed=seeds, sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4))
    def holds(loss, seed, sizes):
        total = sum(sizes)
        x, y = double_batch(total, SIZES[0], SIZES[-1], seed=seed)
        whole = fresh_gradient(name, loss, seed, x, y)
        mean = {n: torch.zeros_like(g) for n, g in whole.items()}
        for part_x, part_y in zip(x.split(sizes), y.split(sizes), strict=True):
            part = fresh_gradient(name, loss, seed, part_x, part_y)
            for n in mean:
                mean[n] += part[n] * len(part_x) / total
        assert_same(mean, whole, rtol=1e-10)

    holds()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "bp"])
def test_the_states_of_a_sample_do_not_depend_on_its_company(name):
    x, y = double_batch(6, SIZES[0], SIZES[-1])
    together = built(name, "mse", 0).infer(x, y)
    for n in range(6):
        alone = built(name, "mse", 0).infer(x[n : n + 1], y[n : n + 1])
        for k in range(len(SIZES)):
            torch.testing.assert_close(alone.plus[k][0], together.plus[k][n], rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(alone.minus[k][0], together.minus[k][n], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_the_reported_loss_is_a_mean_too(name):
    x, y = double_batch(4, SIZES[0], SIZES[-1])
    once = built(name, "mse", 0).backward(x, y).loss
    often = built(name, "mse", 0).backward(x.repeat(3, 1), y.repeat(3)).loss
    torch.testing.assert_close(once, often)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("schedule", [dp.Sweep(), dp.Sweep(3), dp.Parallel(8), dp.Random(20, seed=1)], ids=str)
def test_for_every_alpha_and_schedule(schedule, alpha, transpose):
    net = double_net(SIZES, "sigmoid")
    settings = {"alpha": alpha, "beta": 0.5, "schedule": schedule, "transpose": transpose}
    x, y = double_batch(4, SIZES[0], SIZES[-1])
    once = gradient_of(dp.DualProp(net, **settings), x, y)
    often = gradient_of(dp.DualProp(net, **settings), x.repeat(2, 1), y.repeat(2))
    halves = [gradient_of(dp.DualProp(net, **settings), x[i : i + 2], y[i : i + 2]) for i in (0, 2)]
    assert_same(often, once, rtol=1e-10)
    assert_same({n: (halves[0][n] + halves[1][n]) / 2 for n in once}, once, rtol=1e-10)
