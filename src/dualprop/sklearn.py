"""Dual propagation among scikit-learn's estimators, in pipelines and searches: the extra `sklearn`.

A fitted estimator holds numbers and arrays alone, so that `skops.io.dump` saves it without a pickle.

Example:
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> model = make_pipeline(StandardScaler(), DualPropClassifier((32,), epochs=60, lr=0.01, random_state=0))
    >>> X, y = load_iris(return_X_y=True)
    >>> model.fit(X, y).score(X, y) > 0.9
    True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dualprop.arguments import Count, NotNegative, Positive, check
from dualprop.data import Batches, Split
from dualprop.errors import DualpropError
from dualprop.extras import extra
from dualprop.nets import NETS
from dualprop.nets.net import Net
from dualprop.rules import RULES, Rule
from dualprop.training.callbacks import Callback
from dualprop.training.trainer import Trainer

with extra("sklearn"):
    from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data

Array = npt.NDArray[Any]

TOGETHER = 1000
"""Samples that are predicted at once."""

FLOATS = [np.float64, np.float32]
"""What X may be; anything else becomes the first. The net has the same."""

KINDS: dict[str, Any] = {
    "hidden": Sequence[Count],
    "rule": str,
    "rule_settings": Mapping[str, Any] | None,
    "activation": str | None,
    "lr": Positive,
    "weight_decay": NotNegative,
    "epochs": Count,
    "batch_size": Count,
}
"""What the parameters may be. They are checked when it is fitted, as scikit-learn asks."""


class _DualProp(BaseEstimator):  # type: ignore[misc]
    """A multi-layer perceptron and a rule."""

    loss: str

    def __init__(
        self,
        hidden: Sequence[int] = (100,),
        *,
        rule: str = "dp",
        rule_settings: Mapping[str, Any] | None = None,
        activation: str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        epochs: int = 200,
        batch_size: int = 100,
        random_state: Any = None,
    ) -> None:
        self.hidden, self.activation = hidden, activation
        self.rule, self.rule_settings = rule, rule_settings
        self.lr, self.weight_decay, self.epochs, self.batch_size = lr, weight_decay, epochs, batch_size
        self.random_state = random_state

    def _learn(self, x: Array, y: Array, outputs: int) -> Self:
        """Train a new net, in the precision of x."""
        for name, kind in KINDS.items():
            check(name, getattr(self, name), kind)
        if "loss" in (self.rule_settings or {}):
            raise DualpropError(f"rule_settings: the loss is {self.loss} here")
        seed = int(check_random_state(self.random_state).randint(2**31))
        split = Split(torch.from_numpy(x.copy()), torch.from_numpy(y.copy()))  # those given may be read-only
        dtype = split.images.dtype
        net = self._net(outputs, torch.Generator().manual_seed(seed)).to(dtype)
        optimizer = torch.optim.Adam(net.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        batches, losses = Batches(split, self.batch_size, seed=seed, dtype=dtype), _Losses()
        Trainer(net, self._bound(net), optimizer, batches, [losses]).fit(self.epochs)
        self.weights_ = {name: weight.detach().numpy() for name, weight in net.state_dict().items()}
        self.n_outputs_, self.loss_curve_ = outputs, losses.seen
        return self

    def _net(self, outputs: int, generator: torch.Generator | None = None) -> Net:
        method = RULES[self.rule]
        return NETS["mlp"](
            (self.n_features_in_,),
            outputs,
            hidden=self.hidden,
            activation=self.activation or method.activation,
            feedback=method.feedback,
            init=method.init,
            generator=generator,
        )

    def _bound(self, net: Net) -> Rule:
        return RULES[self.rule](net, loss=self.loss, **(self.rule_settings or {}))

    def _outputs(self, x: Any) -> Tensor:
        """What the rule predicts, shape (N, outputs)."""
        check_is_fitted(self)
        weights = {name: torch.from_numpy(np.array(weight)) for name, weight in self.weights_.items()}
        with torch.device("meta"):  # no weights but those that were learnt
            net = self._net(self.n_outputs_)
        net.load_state_dict(weights, assign=True)
        rule, dtype = self._bound(net), next(net.parameters()).dtype
        x = torch.from_numpy(validate_data(self, x, dtype=FLOATS, reset=False).copy()).to(dtype)
        return torch.cat([rule.predict(some) for some in x.split(TOGETHER)])


class DualPropClassifier(ClassifierMixin, _DualProp):  # type: ignore[misc]
    """A multi-layer perceptron that learns classes by dual propagation, or by another rule, from cross-entropy.

    Parameters
    ----------
    hidden : sequence of int
        Neurons in each hidden layer.
    rule : str
        A name in `dualprop.RULES`.
    rule_settings : dict or None
        The rule's own settings, for example `{"beta": 0.1}`.
    activation : str or None
        The hidden layers' potential, a name in `dualprop.POTENTIALS`; None for the rule's own, most often relu.
    lr : float
        Learning rate of Adam.
    weight_decay : float
        Its weight decay.
    epochs : int
        Passes over the samples.
    batch_size : int
        Samples in a batch.
    random_state : int, RandomState or None
        Of the initial weights and the order of the samples.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        The labels.
    weights_ : dict of arrays
        The net's weights by their names.
    loss_curve_ : list of float
        The mean loss of every epoch.

    Examples
    --------
    >>> model = DualPropClassifier(epochs=50, lr=0.01, random_state=0)
    >>> model.fit([[0.0], [1.0], [2.0]], ["low", "high", "high"]).predict([[2.0]])
    array(['high'], dtype='<U4')

    """

    loss = "cross_entropy"

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from samples X, shape (n_samples, n_features), and their labels y, shape (n_samples,)."""
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        return self._learn(X, labels.astype(np.int64), len(self.classes_))

    def predict(self, X: Any) -> Array:
        """The most likely label of every sample, shape (n_samples,)."""
        likely = self._outputs(X).argmax(1).numpy()
        labels: Array = self.classes_[likely]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """The probability of every class, in the order of `classes_`, shape (n_samples, n_classes)."""
        return torch.softmax(self._outputs(X), 1).numpy()

    def predict_log_proba(self, X: Any) -> Array:
        """Its logarithm."""
        return torch.log_softmax(self._outputs(X), 1).numpy()


class DualPropRegressor(RegressorMixin, MultiOutputMixin, _DualProp):  # type: ignore[misc]
    """A multi-layer perceptron that learns numbers by dual propagation, or by another rule, from squared errors.

    Targets that are large want scaling, by `sklearn.compose.TransformedTargetRegressor`, say.

    Parameters
    ----------
    hidden : sequence of int
        Neurons in each hidden layer.
    rule : str
        A name in `dualprop.RULES`.
    rule_settings : dict or None
        The rule's own settings, for example `{"beta": 0.1}`.
    activation : str or None
        The hidden layers' potential, a name in `dualprop.POTENTIALS`; None for the rule's own, most often relu.
    lr : float
        Learning rate of Adam.
    weight_decay : float
        Its weight decay.
    epochs : int
        Passes over the samples.
    batch_size : int
        Samples in a batch.
    random_state : int, RandomState or None
        Of the initial weights and the order of the samples.

    Attributes
    ----------
    weights_ : dict of arrays
        The net's weights by their names.
    loss_curve_ : list of float
        The mean loss of every epoch.

    Examples
    --------
    >>> model = DualPropRegressor(epochs=300, lr=0.01, random_state=0)
    >>> abs(model.fit([[0.0], [1.0], [2.0]], [0.0, 0.5, 1.0]).predict([[2.0]]) - 1).item() < 0.1
    True

    """

    loss = "mse"

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from samples X, shape (n_samples, n_features), and targets y, (n_samples,) or (n_samples, n)."""
        X, y = validate_data(self, X, y, dtype=FLOATS, multi_output=True, y_numeric=True)
        targets = y.reshape(len(y), -1).astype(X.dtype)
        return self._learn(X, targets, targets.shape[1])

    def predict(self, X: Any) -> Array:
        """The expected targets, shape (n_samples,) if there is one a sample, else (n_samples, n)."""
        outputs = self._outputs(X).numpy()
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs


class _Losses(Callback):
    """Keeps the mean loss of every epoch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def epoch(self, trainer: Trainer) -> None:
        self.seen.append(trainer.numbers["loss"])
