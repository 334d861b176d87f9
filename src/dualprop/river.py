"""Dual propagation among River's estimators, in its pipelines and evaluations: the extra `river`.

Example:
    >>> from river import datasets, evaluate, metrics, preprocessing
    >>> model = preprocessing.StandardScaler() | DualPropClassifier()
    >>> evaluate.progressive_val_score(datasets.Phishing(), model, metrics.Accuracy()).get() > 0.85
    True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import torch
from torch import Tensor

from dualprop.engines.dyads.schedules import Sweep
from dualprop.errors import DualpropError
from dualprop.extras import extra
from dualprop.nets.zoo import mlp
from dualprop.training.stream import Delayed, Learner
from dualprop.training.stream.sources.names import Classes, Features, shortened

with extra("river"):
    from river import base

if TYPE_CHECKING:
    import pandas as pd


class _DualProp:
    """A net that grows to the features that it is shown, by a sweep up and down and a step for every sample."""

    loss: str
    hidden: Sequence[int]
    activation: str
    beta: float
    lr: float
    seed: int

    def _begin(self) -> None:
        self._features = Features(standardise=False)
        self._learner: Learner | None = None

    def _learn(self, x: Mapping[Any, Any], y: Any) -> None:
        row = self._features.of(_in_order(x))
        if self._learner is None:
            self._learner = self._new(max(1, len(row)), 1)
        self._learner.tick(row, y)

    def _new(self, features: int, outputs: int) -> Learner:
        generator = torch.Generator().manual_seed(self.seed)
        net = mlp([features, *self.hidden, outputs], self.activation, generator=generator)
        return Learner(
            net, loss=self.loss, beta=self.beta, lr=self.lr, pairing=Delayed(), schedule=Sweep(), grow=True
        )

    def _predict(self, x: Mapping[Any, Any]) -> Tensor | None:
        """What the net says; None before it has learnt anything."""
        if self._learner is None:
            return None
        return self._learner.predict(self._features.of(_in_order(x), learn=False))

    def __getstate__(self) -> dict[str, Any]:
        """With arrays in place of tensors, whose pickles would tell where in memory they are."""
        state, learner = dict(vars(self)), self._learner
        if learner is not None:
            sizes = learner.net.shapes(learner.memory.means[0].shape[2:])
            state["_learner"] = sizes[0][0], sizes[-1][0], _mapped(Tensor.numpy, learner.state_dict())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if state["_learner"] is not None:
            features, outputs, kept = state["_learner"]
            self._learner = self._new(features, outputs)
            self._learner.load_state_dict(_mapped(torch.from_numpy, kept))


class DualPropClassifier(_DualProp, base.MiniBatchClassifier):  # type: ignore[misc]
    """A multi-layer perceptron that learns each sample by dual propagation.

    A feature that is new adds a column of weights, a class that is new an output neuron; features that are missing
    read as zero. Words are features of their own, "name=word". The step of each layer is normalised by what comes
    into it, yet scaled features learn best: put a `StandardScaler` in front.

    Parameters
    ----------
    hidden
        Neurons in each hidden layer.
    activation
        Their potential, a name in `dualprop.POTENTIALS`.
    beta
        The strength of the nudges.
    lr
        The rate of the normalised step.
    seed
        Of the initial weights.

    Examples
    --------
    >>> model = DualPropClassifier()
    >>> for _ in range(20):
    ...     model.learn_one({"a": 1.0}, "up")
    ...     model.learn_one({"a": -1.0}, "down")
    >>> model.predict_one({"a": 1.0}), model.predict_one({"a": -1.0, "new": 3.0})
    ('up', 'down')

    """

    loss = "cross_entropy"

    def __init__(
        self,
        hidden: Sequence[int] = (32,),
        activation: str = "relu",
        beta: float = 0.1,
        lr: float = 0.3,
        seed: int = 0,
    ) -> None:
        self.hidden, self.activation, self.beta, self.lr, self.seed = hidden, activation, beta, lr, seed
        self._begin()
        self._classes = Classes()

    @property
    def _multiclass(self) -> bool:
        return True

    def learn_one(self, x: dict[Any, Any], y: Hashable) -> None:
        """Learn from a sample.

        Raises
        ------
        DualpropError
            For a label that is none: None, NaN or something that has no hash.

        """
        if y is None or not isinstance(y, Hashable) or (isinstance(y, float) and math.isnan(y)):
            raise DualpropError(f"y={shortened(y)}: must be a label, as a word or a number is")
        self._learn(x, self._classes.of(y))

    def predict_proba_one(self, x: dict[Any, Any], **_: Any) -> dict[Hashable, float]:
        """The probability of each label that has been seen."""
        output = self._predict(x)
        if output is None:
            return {}
        return dict(zip(self._classes.names, torch.softmax(output.double(), 0).tolist(), strict=True))

    def learn_many(self, X: pd.DataFrame, y: pd.Series) -> None:
        """Learn from samples, one after the other."""
        for x, label in zip(X.to_dict("records"), y, strict=True):
            self.learn_one(x, label)

    def predict_proba_many(self, X: pd.DataFrame) -> pd.DataFrame:
        """The probability of each label that has been seen, for each sample."""
        import pandas as pd

        return pd.DataFrame([self.predict_proba_one(x) for x in X.to_dict("records")], index=X.index)


class DualPropRegressor(_DualProp, base.MiniBatchRegressor):  # type: ignore[misc]
    """A multi-layer perceptron that learns each sample by dual propagation, from the squared error.

    As `DualPropClassifier`; a target that is large wants scaling, as `river.preprocessing.TargetStandardScaler`
    does.

    Parameters
    ----------
    hidden
        Neurons in each hidden layer.
    activation
        Their potential, a name in `dualprop.POTENTIALS`.
    beta
        The strength of the nudges, below 2.
    lr
        The rate of the normalised step.
    seed
        Of the initial weights.

    Examples
    --------
    >>> model = DualPropRegressor()
    >>> for number in range(200):
    ...     model.learn_one({"a": number % 5 - 2.0}, 2 * (number % 5 - 2.0))
    >>> abs(model.predict_one({"a": 2.0}) - 4) < 0.5
    True

    """

    loss = "mse"

    def __init__(
        self,
        hidden: Sequence[int] = (32,),
        activation: str = "relu",
        beta: float = 0.1,
        lr: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.hidden, self.activation, self.beta, self.lr, self.seed = hidden, activation, beta, lr, seed
        self._begin()

    def learn_one(self, x: dict[Any, Any], y: float) -> None:
        """Learn from a sample.

        Raises
        ------
        DualpropError
            For a target that is no finite number.

        """
        number = float(y) if isinstance(y, SupportsFloat) else math.nan
        if not math.isfinite(number):
            raise DualpropError(f"y={shortened(y)}: must be a finite number")
        self._learn(x, torch.tensor([number]))

    def predict_one(self, x: dict[Any, Any], **_: Any) -> float:
        """The expected target; 0 before anything has been learnt."""
        output = self._predict(x)
        return 0.0 if output is None else float(output[0])

    def learn_many(self, X: pd.DataFrame, y: pd.Series) -> None:
        """Learn from samples, one after the other."""
        for x, target in zip(X.to_dict("records"), y, strict=True):
            self.learn_one(x, target)

    def predict_many(self, X: pd.DataFrame) -> pd.Series:
        """The expected target of each sample."""
        import pandas as pd

        return pd.Series([self.predict_one(x) for x in X.to_dict("records")], index=X.index, dtype="float64")


def _mapped(f: Callable[[Any], Any], state: Any) -> Any:
    """A state with f of every tensor or array in it."""
    if isinstance(state, dict):
        return {name: _mapped(f, each) for name, each in state.items()}
    if isinstance(state, list):
        return [_mapped(f, each) for each in state]
    return f(state) if isinstance(state, Tensor | np.ndarray) else state


def _in_order(x: Mapping[Any, Any]) -> dict[Any, Any]:
    """Features in the order of their names: the order of a sample's shall not matter."""
    return {name: x[name] for name in sorted(x, key=str)}
