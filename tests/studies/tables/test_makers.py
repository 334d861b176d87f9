"""What makes cells that are no trainings: numbers known from theory, and records that are found again."""

import itertools
import json
import statistics

import pytest
import torch

import dualprop as dp
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs.settings import Settings
from dualprop.studies.tables.makers import MAKERS, MEASUREMENT, Bench, Convergence, InNoise, Order, Stream
from dualprop.studies.tables.makers.stream import silent


def settings(**changes):
    return Settings(**{"data": "digits", "hidden": (16, 12), "batch_size": 30, "loss": "cross_entropy", **changes})


RELAXED = {"T1": 300, "T2": 300, "tolerance": 1e-12}


@pytest.mark.parametrize(
    ("rule", "own", "betas", "order"),
    [
        ("dp", {}, [1.0, 0.3, 0.1], 2),  # MATHS, fact 1
        ("dp", {"alpha": 1.0}, [1.0, 0.3, 0.1], 1),
        ("ep", RELAXED, [0.1, 0.05], 1),
        ("ep-centred", RELAXED, [0.1, 0.05], 2),
        ("hep", {"T1": 150, "T2": 150, "N": 4}, [0.5, 0.4], 4),
    ],
)
def test_the_order_of_an_estimate(rule, own, betas, order):
    smooth = {"activation": "tanh"} if rule == "dp" else {}
    found = Order(betas=betas).measure(settings(rule=rule, rule_settings=own, **smooth))
    assert found.numbers["order"] == pytest.approx(order, abs=0.05)
    assert found.series["beta"] == betas
    assert found.numbers["error"] == found.series["error"][-1]


def test_the_error_of_a_gradient_in_noise_grows_with_the_noise_and_falls_with_the_nudge():
    found = [
        InNoise(sigmas=[1e-4, 1e-3]).measure(settings(rule="dp", rule_settings={"beta": beta})).numbers
        for beta in (0.1, 1.0)
    ]
    assert [each["noise_slope"] for each in found] == pytest.approx([1, 1], abs=0.02)
    assert found[0]["noise_error"] / found[1]["noise_error"] == pytest.approx(10, rel=0.2)
    with pytest.raises(DualpropError, match="this maker says what noise"):
        InNoise().check(settings(devices={"states": {"channel": "noise", "sigma": 0.1}}))


def test_inference_that_settles_and_that_does_not():
    """MATHS, fact 3: α = 0 with an exact output step moves away; DP-transpose stays at its one-sweep value."""

    def measured(rule, alpha):
        s = settings(
            rule=rule,
            loss="mse",
            hidden=(32, 32, 32),
            rule_settings={"alpha": alpha, "beta": 0.5},
            standardise=True,
        )
        return Convergence(sweeps=12).measure(s)

    half, zero, transposed = measured("dp", 0.5), measured("dp", 0.0), measured("dp-t", 0.0)
    assert (half.numbers["settled"], zero.numbers["settled"], transposed.numbers["settled"]) == (1, 0, 1)
    assert zero.series["residual"][-1] > 0.01 > half.series["residual"][-1]
    assert transposed.numbers["cosine_first"] == pytest.approx(transposed.numbers["cosine_last"], abs=1e-5)
    assert len(half.series["cosine"]) == 12 == len(half.series["residual"]) + 1
    assert half.numbers["cosine_last"] == min(half.series["cosine"][-1])
    assert 2 <= half.numbers["sweeps"] < 12 == zero.numbers["sweeps"]


def test_a_step_is_timed_beside_bp():
    found = Bench(repeats=3, budget=5.0, samples=600).measure(
        settings(rule="ms-dp", net="mlp", hidden=(8,), batch_size=6)
    )
    ratios = [a / b for a, b in zip(found.series["seconds"], found.series["bp_seconds"], strict=True)]
    assert len(ratios) == 3
    assert found.numbers["ratio"] == pytest.approx(statistics.median(ratios))
    assert found.numbers["seconds_per_epoch"] == pytest.approx(100 * statistics.median(found.series["seconds"]))
    assert found.numbers["operations_ratio"] > 1


QUICK = {
    "order": (Order(betas=[0.2, 0.1]), settings(activation="tanh")),
    "convergence": (Convergence(sweeps=2), settings()),
    "bench": (Bench(repeats=1, budget=1.0), settings(hidden=(8,), batch_size=6)),
    "stream": (Stream(frames=30, tuning=10, rates=(0.1, 0.3)), settings(hidden=(8,))),
}


@pytest.mark.parametrize("name", QUICK)
def test_records_say_whose_they_are(name, tmp_path):
    maker, s = QUICK[name]
    assert MAKERS[name] is type(maker)
    assert maker.seconds(s) > 0
    maker.make(s, tmp_path / "cell", {})
    record = type(maker).read(tmp_path / "cell")
    assert record.complete
    assert record.settings == s
    assert maker.differences(s, record) == {}
    other = {"order": Order(), "convergence": Convergence(), "bench": Bench(), "stream": Stream()}[name]
    assert other.differences(s, record) is None
    assert maker.differences(settings(rule="bp"), record) is None
    assert [each.read(tmp_path / "cell") for each in MAKERS.values() if each is not type(maker)] == [None] * (
        len(MAKERS) - 1
    )
    faster = maker.differences(settings(**{**s.as_dict(), "hidden": s.hidden, "precision": "bf16"}), record)
    assert faster == (None if name == "bench" else {})
    path = tmp_path / "cell" / MEASUREMENT
    path.write_text(json.dumps({**json.loads(path.read_text()), "numbers": {"order": "high"}}))
    with pytest.raises(CheckpointError, match=r"measurement\.json: damaged"):
        type(maker).read(tmp_path / "cell")


@pytest.mark.parametrize("rule", ["dp", "bp"])
@pytest.mark.parametrize("pairing", ["delayed", "present", "sweep"])
def test_a_stream_is_what_a_learner_makes_of_it(rule, pairing):
    """A picture is judged once, the rate is the best on the other stream; frozen weights say the same to all."""
    maker = Stream(pairing=pairing, frames=60, tuning=30, rates=(0.0, 0.3), hold=3, period=30)
    found = maker.measure(settings(rule=rule))
    tuned = dict(found.series["tuning"])
    assert found.numbers["rate"] == max(tuned, key=tuned.get)
    assert len(found.series["dead"]) == 2
    assert 0 < found.numbers["accuracy"] < 1
    frozen = [Stream(pairing=p, frames=60, hold=3, rates=(0.0,)) for p in (pairing, "sweep")]
    hits = [m._learnt(settings(rule=r), 0.0, 0, 60).hits for m, r in zip(frozen, (rule, "bp"), strict=True)]
    assert len(hits[1]) == 20
    assert hits[0] == hits[1][: len(hits[0])]


def test_what_a_stream_is_too_slow_for_is_judged_and_teaches_nothing():
    every = Stream(pairing="sweep", frames=40, every=4)
    course = every._learnt(settings(rule="bp"), 0.3, 0, 40)
    assert len(course.hits) == 40
    learner = every._learner(settings(rule="bp"), 0.3, 0)
    hits = []
    for number, (x, y, _) in enumerate(itertools.islice(every._frames(settings(), 0), 40)):
        hits.append(int(learner.predict(x).argmax()) == y)
        if number % 4 == 0:
            learner.tick(x, y)
    assert course.hits == hits


def test_pixels_change_places_and_nothing_else_does():
    plain, moved = (Stream(period=period)._frames(settings(), 0) for period in (0, 5))
    pairs = [(next(plain), next(moved)) for _ in range(12)]
    assert all(torch.equal(a.sort().values, b.sort().values) for (a, _, _), (b, _, _) in pairs)
    assert all(not torch.equal(a, b) for (a, _, _), (b, _, _) in pairs)
    assert [y for (_, y, _), _ in pairs] == [y for _, (_, y, _) in pairs]


def test_units_that_are_silent():
    net = dp.nets.mlp([3, 4, 2])
    with torch.no_grad():
        net.chain[0].synapse.weight.copy_(torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 0, 0], [0, 1, -9]]))
    assert silent(net, torch.tensor([[1.0, 1, 1], [2, 0, 0]])) == 0.75


def test_what_a_maker_cannot_do_is_said_when_the_table_is_read():
    with pytest.raises(DualpropError, match="rule='bp': has no beta"):
        Order().check(settings(rule="bp"))
    with pytest.raises(DualpropError, match="rule='ep': must be one of dual propagation"):
        Convergence().check(settings(rule="ep"))
    with pytest.raises(DualpropError, match="schedule: not with this maker"):
        Convergence().check(settings(rule_settings={"schedule": "sweep:2"}))
    with pytest.raises(DualpropError, match="rule_settings: not with this maker"):
        Bench().check(settings(rule_settings={"beta": 0.1}))
    with pytest.raises(DualpropError, match="unknown rule 'dq'"):
        Bench().check(settings(rule="dq"))
    with pytest.raises(DualpropError, match="rule='ep': a stream is learnt by dp or bp"):
        Stream().check(settings(rule="ep"))
    with pytest.raises(DualpropError, match="net='mlp': a stream is learnt by an mlp of ReLUs"):
        Stream().check(settings(activation="tanh"))
    with pytest.raises(DualpropError, match="pairing="):
        Stream(pairing="naive")
    for wrong in ({"betas": [0.1]}, {"betas": [0.1, -1]}):
        with pytest.raises(DualpropError, match="betas="):
            Order(**wrong)
