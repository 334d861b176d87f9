"""The estimators for scikit-learn: every check that scikit-learn itself makes, and what is ours."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", minversion="1.6")

from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import dualprop as dp
from dualprop.sklearn import DualPropClassifier, DualPropRegressor

QUICK = {"hidden": (16,), "epochs": 25, "lr": 0.05, "batch_size": 200}
MODELS = {
    "classifier": DualPropClassifier(**QUICK),
    "regressor": DualPropRegressor(**QUICK),
    "classifier as it is": DualPropClassifier(),
    "regressor as it is": DualPropRegressor(),
    "kolen-pollack": DualPropClassifier(rule="kp-dp", **QUICK),
    "back-propagation": DualPropRegressor(rule="bp", **QUICK),
}
SLOW = [name for name in MODELS if name not in ("classifier", "regressor")]


def checks():
    for name, model in MODELS.items():
        for _, check in estimator_checks_generator(model, legacy=True, mark=None):
            what = getattr(check, "func", check).__name__
            marks = [pytest.mark.slow] if name in SLOW else []
            yield pytest.param(name, check, id=f"{name}-{what}", marks=marks)


CHECKS = list(checks())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_every_check_of_scikit_learn(name, check):
    check(clone(MODELS[name]))


def test_the_checks_are_all_made():
    assert len(CHECKS) > 40 * len(MODELS)


def test_a_fit_is_dual_propagation_with_adam():
    """The weights are those of the loop in the README, on the same batches."""
    X, y = load_iris(return_X_y=True)
    model = DualPropClassifier(hidden=(7,), epochs=3, batch_size=40, rule_settings={"beta": 0.3}, random_state=5)
    model.fit(X, y)
    seed = int(np.random.RandomState(5).randint(2**31))
    net = dp.nets.mlp([4, 7, 3], generator=torch.Generator().manual_seed(seed)).double()
    rule, optimizer = dp.DualProp(net, loss="cross_entropy", beta=0.3), torch.optim.Adam(net.parameters(), lr=1e-3)
    batches = dp.data.Batches(dp.data.Split(torch.tensor(X), torch.tensor(y)), 40, seed=seed, dtype=torch.float64)
    for epoch in range(3):
        for some, labels in batches.epoch(epoch):
            optimizer.zero_grad()
            rule.backward(some, labels)
            optimizer.step()
    for name, weight in net.state_dict().items():
        np.testing.assert_array_equal(model.weights_[name], weight.numpy())
    expected = torch.softmax(net(torch.tensor(X)), 1).detach().numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-12)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), expected, rtol=1e-10)
    assert len(model.loss_curve_) == 3


def test_a_rule_whose_prediction_is_not_the_forward_pass():
    X, y = load_iris(return_X_y=True)
    settings = {"beta": 0.5, "T1": 15, "T2": 5}
    model = DualPropClassifier(hidden=(8, 7), rule="ep", rule_settings=settings, epochs=2, random_state=0).fit(
        X, y
    )
    net = dp.nets.mlp([4, 8, 7, 3], "shifted-sigmoid").double()
    net.load_state_dict({name: torch.tensor(weight) for name, weight in model.weights_.items()})
    rule = dp.RULES["ep"](net, loss="cross_entropy", **settings)
    expected = torch.softmax(rule.predict(torch.tensor(X)), 1).numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected)
    assert not np.allclose(expected, torch.softmax(net(torch.tensor(X)), 1).detach().numpy())


def test_search_and_pipeline_with_labels_of_words():
    X, y = load_iris(return_X_y=True)
    words = np.array(["setosa", "versicolor", "virginica"])[y]
    model = make_pipeline(StandardScaler(), DualPropClassifier(random_state=0, **QUICK))
    grid = {"dualpropclassifier__rule": ["bp", "dp"], "dualpropclassifier__rule_settings": [None]}
    search = GridSearchCV(model, grid, cv=3).fit(X, words)
    assert search.best_score_ > 0.9
    assert set(search.predict(X)) == set(words)
    assert cross_val_score(model, X, words, cv=2).min() > 0.8


@pytest.mark.slow
def test_it_reads_digits_as_well_as_back_propagation():
    X, y = load_digits(return_X_y=True)
    scores = {
        rule: DualPropClassifier(rule=rule, epochs=20, lr=0.005, random_state=0).fit(X[:1400] / 16, y[:1400])
        .score(X[1400:] / 16, y[1400:])
        for rule in ("bp", "dp")
    }  # fmt: skip
    assert min(scores.values()) > 0.9
    assert abs(scores["bp"] - scores["dp"]) < 0.02


def test_several_targets_and_one():
    X, y = make_regression(60, 5, n_targets=2, random_state=0)
    y = y / y.std()
    model = DualPropRegressor(hidden=(32,), epochs=100, lr=0.01, random_state=0)
    assert model.fit(X, y).score(X, y) > 0.9
    assert model.predict(X).shape == (60, 2)
    assert model.fit(X, y[:, 0]).predict(X).shape == (60,)


def test_one_class_is_predicted_always():
    model = DualPropClassifier(**QUICK).fit([[0.0], [1.0]], ["only", "only"])
    assert model.predict([[5.0]]).tolist() == ["only"]
    assert model.predict_proba([[5.0]]).tolist() == [[1.0]]


def test_the_precision_is_that_of_the_data():
    X, y = load_iris(return_X_y=True)
    for kind in (np.float32, np.float64):
        model = DualPropClassifier(**QUICK).fit(X.astype(kind), y)
        assert {weight.dtype for weight in model.weights_.values()} == {np.dtype(kind)}
        assert model.predict_proba(X).dtype == kind


def test_seeds():
    X, y = load_iris(return_X_y=True)
    one, same, other = (DualPropClassifier(random_state=s, **QUICK).fit(X, y).predict_proba(X) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    state = np.random.RandomState(0)
    first = DualPropClassifier(random_state=state, **QUICK).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(first, one)
    before = torch.get_rng_state()
    DualPropClassifier(**QUICK).fit(X, y)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_cloned_pickled_and_saved_by_skops(tmp_path):
    skops = pytest.importorskip("skops.io")
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), DualPropClassifier(random_state=0, **QUICK)).fit(X, y)
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    skops.dump(model, tmp_path / "model.skops")
    assert skops.get_untrusted_types(file=tmp_path / "model.skops") == ["dualprop.sklearn.DualPropClassifier"]
    again = skops.load(tmp_path / "model.skops", trusted=["dualprop.sklearn.DualPropClassifier"])
    for other in (again, pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hidden": 10}, "hidden=10: must be"),
        ({"hidden": (0,)}, "hidden="),
        ({"hidden": ("a",)}, "hidden="),
        ({"rule": "dpp"}, "did you mean 'dp'"),
        ({"rule": 5}, "rule=5"),
        ({"rule_settings": {"beta": -1}}, "beta=-1"),
        ({"rule_settings": {"colour": 1}}, "colour"),
        ({"rule_settings": "beta=1"}, "rule_settings="),
        ({"rule_settings": {"loss": "mse"}}, "rule_settings: the loss is cross_entropy here"),
        ({"activation": "rleu"}, "did you mean 'relu'"),
        ({"lr": 0}, "lr=0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"weight_decay": -1}, "weight_decay=-1"),
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"batch_size": None}, "batch_size=None"),
    ],
)
def test_wrong_settings_are_one_line_when_it_is_fitted(settings, named):
    model = DualPropClassifier(**settings)
    with pytest.raises(dp.DualpropError) as error:
        model.fit([[0.0], [1.0]], [0, 1])
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert not hasattr(model, "weights_")


def test_what_is_refused():
    X, y = load_iris(return_X_y=True)
    for model in (DualPropClassifier(**QUICK), DualPropRegressor(**QUICK)):
        with pytest.raises(TypeError, match="sample_weight"):
            model.fit(X, y, sample_weight=np.ones(len(y)))
        with pytest.raises(TypeError, match=r"(?i)sparse"):
            model.fit(sparse.csr_matrix(X), y)
        with pytest.raises(ValueError, match="features"):
            model.fit(X, y).predict(X[:, :2])
    with pytest.raises(ValueError, match=r"(?i)unknown label type|continuous"):
        DualPropClassifier(**QUICK).fit(X, X[:, 0])


def test_what_diverges_says_so():
    X, y = make_regression(50, 5, random_state=0)
    with pytest.raises(dp.DivergenceError):
        DualPropRegressor(hidden=(8,), lr=1e20, epochs=5).fit(X, y)
