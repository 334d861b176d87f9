"""What `convert` did to a module, kept in the module itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from dualprop.errors import DualpropError
from dualprop.registry import Registry

KEY = "_dualprop"
"""The attribute of every changed module that holds its `Conversion`."""

REDUCTIONS: Registry[Callable[[int], int]] = Registry("reduction", {"mean": lambda n: n, "sum": lambda n: 1})
"""By what the incoming signal is scaled back, given the number of samples."""


@dataclass
class Conversion:
    """What `convert` did to a module, and what its activations need to know.

    Attributes:
        alpha: α in [0, 1].
        beta: the strength of the nudges.
        reduction: how the loss reduces the batch, "mean" or "sum".
        converted: the activation of each converted module, by the module's name.
        feedback: the kind of each module that got feedback weights of its own, by its name.
        left_alone: why each other module was not changed, where one might have expected it, by its name.
        unknown: the modules whose code names a function that `convert` does not know, by the function's name.
        warned: the unknown functions that were called, each of which is warned of once.
        samples: B of the batch that came last.
        active: whether calls of activations send finite differences back just now.
    """

    alpha: float
    beta: float
    reduction: str
    converted: dict[str, str] = field(default_factory=dict)
    feedback: dict[str, str] = field(default_factory=dict)
    left_alone: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)
    samples: int = 1
    active: bool = False

    def __str__(self) -> str:
        own = f"; feedback weights: {_counted(self.feedback)}" if self.feedback else ""
        return f"converted: {_counted(self.converted)}{own}; left alone: {_counted(self.left_alone)}"

    @property
    def scale(self) -> float:
        """The strength s of the nudges against the incoming gradient: βB, or β where the loss is a sum."""
        return self.beta * REDUCTIONS[self.reduction](self.samples)


def conversion(module: nn.Module) -> Conversion:
    """What `convert` did to a module.

    Raises:
        DualpropError: if it is not converted.

    Example:
        >>> import dualprop as dp
        >>> module = dp.convert(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        >>> conversion(module).converted
        {'1': 'ReLU'}
    """
    found = module.__dict__.get(KEY)
    if not isinstance(found, Conversion):
        raise DualpropError(f"module: this {type(module).__name__} is not converted")
    return found


def _counted(by_name: dict[str, str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(by_name.values()).items())) or "nothing"
