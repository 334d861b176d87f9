"""How fast a rule's gradient approaches the one that it approximates as β goes to 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from dualprop.arguments import Positive, checked
from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.rules import RULES, Rule
from dualprop.runs.settings import Settings
from dualprop.studies.tables.makers.base import least
from dualprop.studies.tables.makers.measurement import Measured, Measurement, experiment, used


@checked
@dataclass(frozen=True)
class Order(Measurement):
    """The order n of an estimate: its relative error is proportional to β^n, in double precision, on one batch.

    Args:
        betas: the strengths of the nudge, at least two.
    """

    name = "order"
    betas: Annotated[Sequence[Positive], Field(min_length=2)] = (0.1, 0.05, 0.025)

    def check(self, settings: Settings) -> None:
        """Names; a rule with a β of its own."""
        super().check(settings)
        if "beta" not in RULES[settings.rule].known_settings:
            raise DualpropError(f"rule={settings.rule!r}: has no beta, whose order is to be measured")

    def measure(self, settings: Settings) -> Measured:
        """Errors, and the slope of their logarithms by least squares.

        Numbers: `order`; `error`, that of the smallest β. Series: `beta`, `error`.
        """
        made, x, y = experiment(settings)
        net = made.trainer.net.double()
        errors = [self._error(settings, net, x.double(), y, beta) for beta in self.betas]
        numbers = {"order": slope(self.betas, errors), "error": errors[self.betas.index(min(self.betas))]}
        return Measured(numbers, {"beta": list(self.betas), "error": errors}, used(made))

    def seconds(self, settings: Settings) -> float:
        """As long as one β takes, as often as there are some."""
        made, x, y = experiment(settings)
        net = made.trainer.net.double()
        return least(lambda: self._error(settings, net, x.double(), y, self.betas[0])) * len(self.betas)

    def _error(self, settings: Settings, net: Net, x: Tensor, y: Tensor, beta: float) -> float:
        rule = RULES[settings.rule](net, loss=settings.loss, **{**settings.rule_settings, "beta": beta})
        return relative(rule.gradients(x, y), _truth(rule).gradients(x, y))


def _truth(rule: Rule) -> Rule:
    """The rule whose gradient it approximates."""
    truth = rule.reference()
    if truth is None:
        raise DualpropError(f"rule: {type(rule).__name__} approximates no gradient that is known")
    return truth


def relative(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The norm of the difference of two gradients by that of the second, all parameters together."""
    apart = math.fsum(float((ours[name] - theirs[name]).norm()) ** 2 for name in theirs)
    return math.sqrt(apart / math.fsum(float(g.norm()) ** 2 for g in theirs.values()))


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of log y against log x by least squares."""
    u, v = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
    covariance = sum((p - mean_u) * (q - mean_v) for p, q in zip(u, v, strict=True))
    return covariance / sum((p - mean_u) ** 2 for p in u)
