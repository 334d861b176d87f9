"""What repeated sweeps do to the states of a batch: whether they settle, and what the gradient is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from dualprop.arguments import Count, checked
from dualprop.engines.dyads.states import DyadicState
from dualprop.errors import DivergenceError, DualpropError
from dualprop.rules import RULES, DualProp, Rule
from dualprop.rules.diagnostics import alignment
from dualprop.runs.settings import Settings
from dualprop.studies.tables.makers.base import least
from dualprop.studies.tables.makers.measurement import Measured, Measurement, experiment, used

SETTLED = 1e-4
"""What the states may still move by in a sweep, relative to their norm, to count as settled."""


@checked
@dataclass(frozen=True)
class Convergence(Measurement):
    """Dyadic inference on one batch by 1, 2, ... sweeps, each from the start.

    Args:
        sweeps: the most of them.
    """

    name = "convergence"
    sweeps: Annotated[Count, Field(ge=2)] = 30

    def check(self, settings: Settings) -> None:
        """Names; a rule of dyads, whose schedule is left to this maker."""
        super().check(settings)
        if not issubclass(RULES[settings.rule].rule, DualProp):
            raise DualpropError(f"rule={settings.rule!r}: must be one of dual propagation, which sweeps")
        if "schedule" in settings.rule_settings:
            raise DualpropError("schedule: not with this maker, which takes 1, 2, ... sweeps")

    def measure(self, settings: Settings) -> Measured:
        """How far the states move from one sweep to the next, and the gradient's cosine to back-propagation's.

        Numbers: `settled`, 1 if they came to rest, else 0; `residual`, how far they moved in the last sweep,
        relative to their norm; `sweeps`, before they were astray or had settled; `cosine_first`, `cosine_last`:
        the least of all layers, after the first and the last sweep that was finite. Series: `residual`, of each
        sweep from the second on; `cosine`, of each, by layer.
        """
        made, x, y = experiment(settings)
        residuals: list[float] = []
        cosines: list[list[float]] = []
        before: list[torch.Tensor] = []
        for n in range(1, self.sweeps + 1):
            rule = _swept(settings, made.trainer.rule, n)
            try:
                states, cosine = _states(rule.infer(x, y)), alignment(rule, x, y).cosine
            except DivergenceError:
                break
            moved = _moved(before, states) if before else math.nan
            if cosine is None or not all(map(math.isfinite, cosine)) or moved == math.inf:
                break
            residuals += [moved] if before else []
            cosines.append(list(cosine))
            before = states
        if not cosines:
            raise DivergenceError("the states of the first sweep are NaN or infinite")
        finite = len(cosines) == self.sweeps
        settled = finite and residuals[-1] < SETTLED
        rest = next((n for n, moved in enumerate(residuals, 2) if moved < SETTLED), len(cosines))
        numbers = {
            "settled": float(settled),
            "sweeps": float(rest if settled else len(cosines)),
            "cosine_first": min(cosines[0]),
            "cosine_last": min(cosines[-1]),
            **({"residual": residuals[-1]} if finite else {}),
        }
        return Measured(numbers, {"residual": residuals, "cosine": cosines}, used(made))

    def seconds(self, settings: Settings) -> float:
        """As long as a sweep takes, as often as all of them are made together."""
        made, x, y = experiment(settings)
        rule = _swept(settings, made.trainer.rule, 1)
        sweep = least(lambda: (rule.infer(x, y), alignment(rule, x, y)))
        return sweep * self.sweeps * (self.sweeps + 1) / 2


def _swept(settings: Settings, rule: Rule, n: int) -> Rule:
    """The rule with n sweeps on the same net."""
    own = {**settings.rule_settings, "schedule": f"sweep:{n}"}
    return RULES[settings.rule](rule.net, loss=settings.loss, **own)


def _states(state: object) -> list[torch.Tensor]:
    """Both states of every layer."""
    assert isinstance(state, DyadicState)
    layers = range(1, len(state.plus))
    return [side[k].detach().double() for side in (state.plus, state.minus) for k in layers]


def _moved(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    """The distance by the norm, all states together; infinite where one is not finite."""
    apart = math.fsum(float((b - a).square().sum()) for b, a in zip(before, after, strict=True))
    norm = math.fsum(float(a.square().sum()) for a in after)
    return math.sqrt(apart / norm) if math.isfinite(apart) and 0 < norm < math.inf else math.inf
