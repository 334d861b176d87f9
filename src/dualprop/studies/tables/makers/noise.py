"""What noise on states does to a rule's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from dualprop.arguments import Positive, checked
from dualprop.errors import DualpropError
from dualprop.nets.devices import Noise
from dualprop.nets.net import Net
from dualprop.rules import RULES
from dualprop.runs.settings import Settings
from dualprop.studies.tables.makers.base import least
from dualprop.studies.tables.makers.measurement import Measured, Measurement, experiment, used
from dualprop.studies.tables.makers.order import relative, slope


@checked
@dataclass(frozen=True)
class InNoise(Measurement):
    """The relative error of a gradient whose states are read in noise, beside the one without, on one batch.

    In double precision, of an untrained net. Where noise dominates it is proportional to σ/β.

    Args:
        sigmas: standard deviations of the noise, at least two.
    """

    name = "noise"
    sigmas: Annotated[Sequence[Positive], Field(min_length=2)] = (1e-4, 1e-3, 1e-2)

    def check(self, settings: Settings) -> None:
        """Names; states that are ideal but for the noise."""
        super().check(settings)
        if "states" in settings.devices:
            raise DualpropError("devices.states: this maker says what noise there is")

    def measure(self, settings: Settings) -> Measured:
        """Errors, and the slope of their logarithms against σ by least squares.

        Numbers: `noise_slope`; `noise_error`, that of the largest σ. Series: `sigma`, `error`.
        """
        made, x, y = experiment(settings)
        net = made.trainer.net.double()
        errors = [self._error(settings, net, x.double(), y, sigma) for sigma in self.sigmas]
        numbers = {
            "noise_slope": slope(self.sigmas, errors),
            "noise_error": errors[self.sigmas.index(max(self.sigmas))],
        }
        return Measured(numbers, {"sigma": list(self.sigmas), "error": errors}, used(made))

    def seconds(self, settings: Settings) -> float:
        """As long as one σ takes, as often as there are some."""
        made, x, y = experiment(settings)
        net = made.trainer.net.double()
        return least(lambda: self._error(settings, net, x.double(), y, self.sigmas[0])) * len(self.sigmas)

    def _error(self, settings: Settings, net: Net, x: Tensor, y: Tensor, sigma: float) -> float:
        method, own = RULES[settings.rule], settings.rule_settings
        ideal = method(net, loss=settings.loss, **own).gradients(x, y)
        return relative(method(net, loss=settings.loss, states=Noise(sigma), **own).gradients(x, y), ideal)
