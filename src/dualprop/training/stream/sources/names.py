"""Features and classes by name, numbered as they are seen first: what a line or a sample of River's is made of."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from dualprop.errors import DualpropError


class Features:
    """Numbers by name, in columns. A name that is new gets the next column; one that is missing reads as zero.

    A word is a feature of its own, "name=word", that is 1. Numbers are scaled, if that is wanted, by the mean and
    the deviation of all that have been seen under the name (Welford's recurrence), this one included.

    Args:
        standardise: whether to scale numbers.

    Example:
        >>> features = Features(standardise=False)
        >>> features.of({"size": 2, "colour": "red"}), features.of({"weight": 0.5})
        (tensor([2., 1.]), tensor([0.0000, 0.0000, 0.5000]))
    """

    def __init__(self, *, standardise: bool = True) -> None:
        self.standardise = standardise
        self.columns: dict[str, int] = {}
        self._moments: dict[str, tuple[int, float, float]] = {}  # how many, their mean, their squared deviations

    def of(self, named: Mapping[Any, Any], *, learn: bool = True) -> Tensor:
        """A sample as a row of numbers.

        Args:
            named: numbers, words, and true or false, by name; None for one that is missing.
            learn: whether new names get columns and numbers count in mean and deviation; a new name is left out
                otherwise.

        Raises:
            DualpropError: for anything else, or a number that is not finite; nothing has been learnt then.
        """
        found = dict(_read(name, value) for name, value in named.items() if value is not None)
        if learn:
            for name in found:
                self.columns.setdefault(name, len(self.columns))
        row = [0.0] * len(self.columns)
        for name, value in found.items():
            if name in self.columns:
                row[self.columns[name]] = self._scaled(name, value, learn) if self.standardise else value
        return torch.tensor(row)

    def _scaled(self, name: str, value: float, learn: bool) -> float:
        count, mean, square = self._moments.get(name, (0, 0.0, 0.0))
        if learn:
            count, before = count + 1, mean
            mean += (value - mean) / count
            square += (value - before) * (value - mean)
            self._moments[name] = count, mean, square
        deviation = math.sqrt(square / count) if count else 0.0
        return (value - mean) / deviation if deviation > 0 else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Names in the order of their columns, and what is known of each."""
        return {
            "names": list(self.columns),
            "moments": [list(self._moments.get(name, (0, 0.0, 0.0))) for name in self.columns],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.columns = {name: number for number, name in enumerate(state["names"])}
        moments = zip(state["names"], state["moments"], strict=True)
        self._moments = {name: (int(n), float(m), float(s)) for name, (n, m, s) in moments if n}


class Classes:
    """Labels as numbers from 0, in the order in which they are seen first.

    Example:
        >>> classes = Classes()
        >>> classes.of("cat"), classes.of("dog"), classes.of("cat"), classes.names
        (0, 1, 0, ['cat', 'dog'])
    """

    def __init__(self) -> None:
        self.names: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def of(self, label: Hashable) -> int:
        """The number of a label."""
        if label not in self._numbers:
            self._numbers[label] = len(self.names)
            self.names.append(label)
        return self._numbers[label]

    def state_dict(self) -> list[Any]:
        """The labels in their order."""
        return list(self.names)

    def load_state_dict(self, names: list[Any]) -> None:
        """Take back what `state_dict` gave."""
        self.names = list(names)
        self._numbers = {name: number for number, name in enumerate(names)}


def _read(name: Hashable, value: Any) -> tuple[str, float]:
    """A feature's name and number."""
    if isinstance(value, str):
        return f"{name}={value}", 1.0
    if not isinstance(value, int | float | numbers.Real) and not hasattr(value, "__float__"):
        raise DualpropError(f"{name}={shortened(value)}: must be a number or a word")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DualpropError(f"{name}={number}: NaN or infinite")
    return str(name), number


def shortened(value: Any) -> str:
    """A value in a message, whatever a line has in it."""
    return reprlib.repr(value)
