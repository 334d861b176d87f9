"""What `convert` did to a module, and what its forward passes have met since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dualprop.nets.kernels.arena import Arena
from dualprop.registry import Registry

REDUCTIONS: Registry[Callable[[int], int]] = Registry("reduction", {"mean": lambda n: n, "sum": lambda n: 1})
"""By what the incoming signal is scaled back, given the number of samples."""

_ALWAYS = ("converted", "left alone")


@dataclass
class Conversion:
    """What `convert` did to a module, and what its forward passes have met since.

    Attributes:
        name: the class of the module.
        alpha: α in [0, 1].
        beta: the strength of the nudges.
        reduction: how the loss reduces the batch, "mean" or "sum".
        batch: where the number of samples comes from, as it was given to `convert`.
        named: the activations that the code of each module names or that it holds, by the module's name.
        met: the activations that forward passes to learn from have met and converted, by the module's name.
        without_batch: those of them that act on something without samples, as the tanh of a gate does.
        feedback: the kind of each module that got feedback weights of its own, by its name.
        left_alone: why each other module was not changed, where one might have expected it, by its name; after a
            forward pass also what it computed that kept its ordinary derivative.
        unknown: the modules whose code names a function that `convert` does not know, by the function's name.
        warned: what was warned of, each once.
        samples: B of the batch to learn from that came last.
        arena: memory for the large results of activations.
    """

    name: str
    alpha: float
    beta: float
    reduction: str
    batch: Any = None
    named: dict[str, str] = field(default_factory=dict)
    met: dict[str, str] = field(default_factory=dict)
    without_batch: dict[str, str] = field(default_factory=dict)
    feedback: dict[str, str] = field(default_factory=dict)
    left_alone: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)
    samples: int = 1
    weights: tuple[float | None, float] = field(default=(None, 1.0), repr=False)
    passed: set[str] = field(default_factory=set, repr=False)
    entered: Any = field(default=None, repr=False, compare=False)
    arena: Arena = field(default_factory=Arena, repr=False, compare=False)

    @property
    def converted(self) -> dict[str, str]:
        """The activations of each converted module: those met, or before any forward pass those named."""
        return self.met if self.met or self.passed else self.named

    @property
    def not_met(self) -> dict[str, str]:
        """Activations named in code that no forward pass has met: of other methods, or of branches not taken."""
        if not self.met and not self.passed:
            return {}
        rest = {name: _kinds(kinds) - _kinds(self.met.get(name, "")) for name, kinds in self.named.items()}
        return {name: ", ".join(sorted(kinds)) for name, kinds in rest.items() if kinds}

    def __str__(self) -> str:
        parts = {
            "converted": _counted(self.converted),
            "without a batch": _counted(self.without_batch),
            "not met": _counted(self.not_met),
            "feedback weights": _counted(self.feedback),
            "left alone": _counted(self.left_alone),
        }
        said = [f"{name}: {what or 'nothing'}" for name, what in parts.items() if what or name in _ALWAYS]
        return "; ".join(said)

    def meets(self, name: str, kind: str, has_batch: bool) -> None:
        """Note that the activation of the module of this name was met and converted."""
        for where in (self.met,) if has_batch else (self.met, self.without_batch):
            where[name] = ", ".join(sorted(_kinds(where.get(name, "")) | {kind}))

    def leaves(self, name: str, what: str) -> None:
        """Note that the module of this name computed something that kept its ordinary derivative."""
        known = self.left_alone.get(name, "")
        if what not in known:
            self.left_alone[name] = f"{known}, {what}" if known else what


class Place:
    """Where a module stands in a conversion.

    Attributes:
        conversion: what it is a part of.
        name: of the module, "" for the converted one itself.
        kind: the module's class, by name.
        excluded: whether its activations keep their ordinary derivative.
        feedback: whether its signal goes down through weights of its own.
    """

    def __init__(
        self, conversion: Conversion, name: str, kind: str, *, excluded: bool = False, feedback: bool = False
    ) -> None:
        self.conversion = conversion
        self.name = name
        self.kind = kind
        self.excluded = excluded
        self.feedback = feedback


def _kinds(text: str) -> set[str]:
    return set(text.split(", ")) if text else set()


def _counted(by_name: dict[str, str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(by_name.values()).items()))
