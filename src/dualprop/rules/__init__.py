"""Learning rules, by name in `RULES`: a new one is a file here and a line below."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dualprop.arguments import check
from dualprop.engines.dyads.schedules import Parallel, Random
from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.registry import Registry
from dualprop.rules.backprop import Backprop
from dualprop.rules.base import Rule
from dualprop.rules.contrastive_hebbian import ContrastiveHebbian
from dualprop.rules.dual_prop import DualProp
from dualprop.rules.equilibrium_prop import EquilibriumProp
from dualprop.rules.holomorphic_ep import HolomorphicEP
from dualprop.rules.lifted_proximal import LiftedProximal
from dualprop.rules.predictive_coding import PredictiveCoding
from dualprop.rules.recurrent_backprop import RecurrentBackprop
from dualprop.rules.standing import CHANNELS
from dualprop.rules.step import Step
from dualprop.rules.target_prop import DifferenceTargetProp

__all__ = [
    "RULES",
    "Backprop",
    "ContrastiveHebbian",
    "DifferenceTargetProp",
    "DualProp",
    "EquilibriumProp",
    "HolomorphicEP",
    "LiftedProximal",
    "Method",
    "PredictiveCoding",
    "RecurrentBackprop",
    "Rule",
    "Step",
]


@dataclass(frozen=True)
class Method:
    """A named method: a rule with its published settings. Called with a net, it binds the rule to it.

    Args:
        rule: the class.
        summary: one line for tables and help texts.
        settings: its defaults here, which a caller may override.
        feedback: the kind of net that it needs: "symmetric" weights, or "kolen-pollack" for weights of its own.
        activation: the hidden layers' potential in a net that is made for it, where none is chosen.
        pool: the pooling of a convolutional net that is made for it, where none is chosen; a name in `POOLS`.
        init: the initial weights where none are chosen, a name in `INITS`; None for the net's own.

    Example:
        >>> import dualprop as dp
        >>> RULES["p-dp"](dp.nets.mlp([4, 8, 3]), loss="mse").schedule
        Parallel(ticks=None)
    """

    rule: type[Rule]
    summary: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    feedback: str = "symmetric"
    activation: str = "relu"
    pool: str = "max"
    init: str | None = None

    def __call__(self, net: Net, **settings: Any) -> Rule:
        """The rule, bound to `net`.

        Raises:
            DualpropError: for a setting that the rule does not have, a value it refuses, or a net without the
                feedback weights it needs.
        """
        check("net", net, Net)
        if self.feedback == "kolen-pollack" and net.feedback != self.feedback and len(net) > 1:
            raise DualpropError(
                f"net: {self.summary} needs feedback weights of its own; "
                f"build the net with feedback={self.feedback!r}"
            )
        self.check(settings)
        return self.rule(net, **{**self.settings, **settings})

    def used(self, rule: Rule, settings: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of a rule that was made with these, defaults included, as JSON holds them.

        Args:
            rule: what this method made.
            settings: what it was called with, without the loss.

        Example:
            >>> import dualprop as dp
            >>> method = RULES["p-dp"]
            >>> method.used(method(dp.nets.mlp([4, 8, 3]), beta=0.5), {"beta": 0.5})["schedule"]
            'parallel:3'
        """
        parameters = inspect.signature(self.rule).parameters.values()
        own = {
            p.name: p.default for p in parameters if p.default is not p.empty and p.name not in ("loss", *CHANNELS)
        }
        return rule.plain({**own, **self.settings, **settings})

    @property
    def known_settings(self) -> list[str]:
        """The names of the settings that the rule has."""
        return [name for name in inspect.signature(self.rule).parameters if name != "net"]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings that the rule does not have.

        Raises:
            DualpropError: naming the first of them and those that it has.
        """
        for name in settings:
            if name not in self.known_settings:
                known = ", ".join(self.known_settings)
                raise DualpropError(f"{name}: {self.rule.__name__} has no such setting. Known: {known}")


_relaxing = partial(Method, activation="shifted-sigmoid", init="uniform-fan-in")  # Hopfield nets, as published

RULES: Registry[Method] = Registry(
    "rule",
    {
        "bp": Method(Backprop, "back-propagation"),
        "dp": Method(DualProp, "dual propagation"),
        "ms-dp": Method(DualProp, "multi-step dual propagation", {"rounds": 3}),
        "l-dp": Method(DualProp, "lazy dual propagation", {"lazy": True}),
        "p-dp": Method(DualProp, "parallel dual propagation", {"schedule": Parallel()}),
        "r-dp": Method(DualProp, "random-order dual propagation", {"schedule": Random(100)}),
        "kp-dp": Method(DualProp, "Kolen-Pollack dual propagation", feedback="kolen-pollack"),
        "dp-t": Method(DualProp, "DP-transpose", {"transpose": True, "alpha": 1.0}),
        "dtp": Method(DifferenceTargetProp, "difference target propagation"),
        "ep": _relaxing(EquilibriumProp, "equilibrium propagation"),
        "ep-centred": _relaxing(
            EquilibriumProp,
            "centred equilibrium propagation",
            {"variant": "centred", "beta": 0.2, "T1": 40, "T2": 15},
        ),
        "hep": _relaxing(HolomorphicEP, "holomorphic equilibrium propagation", pool="softmax"),
        "chl": _relaxing(ContrastiveHebbian, "contrastive Hebbian learning"),
        "lpom": Method(LiftedProximal, "lifted proximal operator machine", pool="softmax"),
        "pc-ep": Method(PredictiveCoding, "predictive coding by equilibrium propagation"),
        "rbp": Method(RecurrentBackprop, "recurrent back-propagation"),
    },
)
