"""What cannot be learnt from is one line, and nothing has happened then."""

from __future__ import annotations

import math

import pytest
import torch

import dualprop as dp
from dualprop.training.stream.steps import STEPS
from tests.oracles.builders import double_net, small_conv_net
from tests.training.stream.builders import SIZES, frames, pair
from tests.training.stream.test_learner import same

X = torch.zeros(SIZES[0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.full((5,), math.nan, dtype=torch.float64), 0, "x: NaN or infinite"),
        (torch.full((5,), math.inf, dtype=torch.float64), 0, "x: NaN or infinite"),
        (torch.zeros(4, dtype=torch.float64), 0, "x: .*4"),
        (torch.zeros(2, 5, dtype=torch.float64), 0, "x: "),
        (torch.zeros(5), 0, "x: torch.float32"),
        (torch.zeros((), dtype=torch.float64), 0, "x: "),
        ([0.0] * 5, 0, "x"),
        (X.to_sparse(), 0, "x: of layout torch.sparse_coo, but it must be dense"),
        (X, 4, "y: class index 4, but it must be in 0..3"),
        (X, -1, "y: class index -1"),
        (X, 10**30, "y: class index 1000000000000000000000000000000, "),
        (X, True, "y=True"),
        (X, "cat", "y='cat'"),
        (X, 1.0, "y=1.0"),
        (X, torch.tensor([1, 2]), "y="),
        (X, torch.tensor(True), "y="),
        (X, torch.tensor([0.5, 0.5]), "y: shape"),
        (X, torch.tensor([0.5, 0.6, 0.5, 0.5]), "y: .*probabilities"),
        (X, torch.tensor([math.nan] * 4), "y: NaN"),
    ],
)
@pytest.mark.parametrize("started", [True, False])
def test_a_frame_or_label_that_does_not_fit(x, y, words, started):
    learner, _ = pair()
    if started:
        for each, label in zip(*frames(7), strict=True):
            learner.tick(each, label)
    before = learner.state_dict()
    with pytest.raises(dp.DualpropError, match=f"^{words}") as error:
        learner.tick(x, y)
    assert "\n" not in str(error.value)
    after = learner.state_dict()
    if started:
        same(before, after)
    learner.tick(X, 0)


def test_finite_numbers_whose_sum_is_not_are_taken():
    learner, _ = pair(f="tanh", lr=0.0)
    learner.tick(torch.full((5,), 1e308, dtype=torch.float64), 1)


def test_the_first_frame_cannot_be_dropped():
    with pytest.raises(dp.DualpropError, match=r"^x=None"):
        pair()[0].tick(None)


@pytest.mark.parametrize("frame", [-1, 7, 1.5, "0"])
def test_a_label_for_a_frame_that_never_came(frame):
    learner, _ = pair()
    for x, y in zip(*frames(7), strict=True):
        learner.tick(x, y)
    with pytest.raises(dp.DualpropError, match=r"^frame=") as error:
        learner.label(frame, 0)
    assert str(error.value).count("whole number") < 2
    with pytest.raises(dp.DualpropError, match=r"^frame=0: none has come in"):
        pair()[0].label(0, 0)


@pytest.mark.parametrize("y", [[0], [0, 1, 2], 0, torch.tensor(1), ["a", None]])
def test_labels_of_several_samples(y):
    learner, _ = pair(samples=2)
    with pytest.raises(dp.DualpropError, match=r"^y.*(2 |class)"):
        learner.tick(torch.stack([X, X]), y)


def test_samples_none_of_which_has_a_label():
    learner, _ = pair(samples=2, step="centred")
    ticks = [learner.tick(torch.stack([X, X]), [None, None]) for _ in range(9)]
    assert learner.label(8, [None, None]) is None
    assert {(tick.loss, tick.correct) for tick in ticks} == {(None, None)}
    assert not any(learner.state_dict()["step"]["seen"].values())  # no edge has had anything to learn from


def test_a_stream_that_begins_in_inference_mode_goes_on_outside():
    learner, outside = pair()[0], pair()[0]
    with torch.inference_mode():
        for x, y in zip(*frames(5), strict=True):
            learner.tick(x, y)
    for x, y in zip(*frames(5), strict=True):
        outside.tick(x, y)
    learner.tick(X, 0)
    outside.tick(X, 0)
    same(learner.state_dict(), outside.state_dict())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"beta": -1.0}, "beta"),
        ({"beta": [0.1, 0.1]}, "beta"),
        ({"loss": "msee"}, "unknown loss"),
        ({"step": "adam"}, "unknown step"),
        ({"step": 3}, "step"),
        ({"step": torch.optim.SGD(double_net(SIZES).parameters())}, "step: .*none of the net's parameters"),
        ({"lr": -0.1}, "lr"),
        ({"samples": 0}, "samples"),
        ({"pairing": "delayed"}, "pairing"),
        ({"schedule": "sweep:2"}, "schedule: .*Present"),
        ({"schedule": dp.Random(20), "pairing": dp.stream.Present()}, "schedule=.*draws"),
        ({"schedule": dp.Random([1, 2]), "pairing": dp.stream.Present()}, "schedule=.*output"),
        ({"schedule": dp.Sweep(5, tolerance=0.1), "pairing": dp.stream.Present()}, "schedule=.*tolerance"),
    ],
)
def test_settings_that_do_not_fit(settings, words):
    with pytest.raises(dp.DualpropError, match=f"^{words}"):
        dp.stream.Learner(double_net(SIZES), **settings)


@pytest.mark.parametrize("spoil", ["pool", "no bias", "frozen bias"])
def test_the_centred_step_says_what_it_cannot_move(spoil):
    net = small_conv_net("relu") if spoil == "pool" else double_net(SIZES)
    if spoil == "no bias":
        net.chain[1].synapse.bias = None
    if spoil == "frozen bias":
        net.chain[1].synapse.bias.requires_grad_(False)
    with pytest.raises(
        dp.DualpropError, match=r"^step='centred': takes dense synapses with a bias that learns"
    ) as error:
        dp.stream.Learner(net, step="centred")
    assert "\n" not in str(error.value)


def test_an_optimizer_has_a_rate_of_its_own():
    net = double_net(SIZES)
    with pytest.raises(dp.DualpropError, match=r"^lr=0\.1: "):
        dp.stream.Learner(net, step=torch.optim.SGD(net.parameters(), lr=0.1), lr=0.1)
    with pytest.raises(dp.DualpropError, match=r"^late=-1"):
        dp.stream.Delayed(-1)


@pytest.mark.parametrize("lr", [-1.0, float("nan"), "a"])
def test_a_rate_is_checked_whenever_it_is_given(lr):
    step = STEPS["normalised"](0.1)
    with pytest.raises(dp.DualpropError, match=r"^lr="):
        step.lr = lr
    assert step.lr == 0.1
