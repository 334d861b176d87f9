"""The estimators for River: every check that River itself makes of an estimator, and what is ours."""

from __future__ import annotations

import math
import random

import pytest
import torch

checks = pytest.importorskip("river.checks")

from river import compose, datasets, evaluate, metrics, preprocessing  # noqa: E402

import dualprop as dp  # noqa: E402
from dualprop.river import DualPropClassifier, DualPropRegressor  # noqa: E402

MODELS = {
    "classifier": DualPropClassifier(hidden=(8,)),
    "deep": DualPropClassifier(hidden=(6, 5), activation="tanh"),
    "regressor": DualPropRegressor(hidden=(8,)),
}
LONG = "check_bounded_memory_growth"


def named(check):
    return f"{check.__name__}-{type(check.keywords['dataset']).__name__ if hasattr(check, 'keywords') else ''}"


CHECKS = [
    pytest.param(
        name, check, id=f"{name}-{named(check)}", marks=[pytest.mark.slow] if LONG in named(check) else []
    )
    for name, model in MODELS.items()
    for check in checks.yield_checks(model)
]


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_every_check_of_rivers(name, check):
    check(MODELS[name].clone())


def test_rivers_checks_are_all_made():
    assert all(not model._unit_test_skips() for model in MODELS.values())
    assert len(CHECKS) > 60


def test_it_learns_what_a_linear_model_cannot():
    draw, model, right = random.Random(0), DualPropClassifier(), []
    for _ in range(800):
        x = {"a": draw.choice([-1.0, 1.0]), "b": draw.choice([-1.0, 1.0])}
        y = "same" if x["a"] == x["b"] else "other"
        right.append(model.predict_one(x) == y)
        model.learn_one(x, y)
    assert sum(right[-200:]) == 200


def test_classes_and_features_that_come_late():
    model = DualPropClassifier()
    for _ in range(30):
        model.learn_one({"a": 1.0}, 0)
        model.learn_one({"a": -1.0}, "one")
    for _ in range(60):
        model.learn_one({"a": 0.0, "colour": "red"}, True)
        model.learn_one({"a": 1.0}, 0)
        model.learn_one({"a": -1.0}, "one")
    assert model.predict_one({"colour": "red"}) is True
    assert model.predict_one({"a": 1.0, "unseen": 5.0}) == 0
    assert model.predict_one({"a": -1.0}) == "one"
    assert sum(model.predict_proba_one({}).values()) == pytest.approx(1)


def test_in_a_pipeline():
    model = compose.Pipeline(preprocessing.StandardScaler(), DualPropClassifier())
    accuracy = evaluate.progressive_val_score(datasets.Phishing().take(600), model, metrics.Accuracy())
    assert accuracy.get() > 0.8
    trump = preprocessing.StandardScaler() | preprocessing.TargetStandardScaler(DualPropRegressor())
    error = evaluate.progressive_val_score(datasets.TrumpApproval().take(300), trump, metrics.MAE())
    assert error.get() < 1.5


def test_one_step_is_dual_propagation():
    """The weights after a sample are those that a sweep and a normalised step make."""
    model = DualPropRegressor(hidden=(3,), lr=0.5)
    model.learn_one({"a": 2.0, "b": -1.0}, 1.0)
    net = dp.nets.mlp([2, 3, 1], generator=torch.Generator().manual_seed(0))
    learner = dp.stream.Learner(net, loss="mse", lr=0.5, schedule=dp.Sweep())
    learner.tick(torch.tensor([2.0, -1.0]), torch.tensor([1.0]))
    assert math.isclose(
        model.predict_one({"a": 2.0, "b": -1.0}), float(learner.predict(torch.tensor([2.0, -1.0])))
    )


@pytest.mark.parametrize("y", [None, math.nan, [1], {}])
def test_a_label_that_is_none_is_refused_and_nothing_is_learnt(y):
    model = DualPropClassifier()
    model.learn_one({"a": 1.0}, "cat")
    before = model.predict_proba_one({"a": 1.0})
    with pytest.raises(dp.DualpropError, match=r"^y="):
        model.learn_one({"a": 1.0}, y)
    assert model.predict_proba_one({"a": 1.0}) == before


@pytest.mark.parametrize("y", [None, math.nan, math.inf, "3", [1.0]])
def test_a_target_that_is_no_number_is_refused(y):
    with pytest.raises(dp.DualpropError, match=r"^y=.*: must be a finite number"):
        DualPropRegressor().learn_one({"a": 1.0}, y)
