"""What a step costs beside back-propagation in plain PyTorch."""

from __future__ import annotations

import dataclasses
import gc
from dataclasses import dataclass

from dualprop.arguments import Count, Positive, checked
from dualprop.errors import DualpropError
from dualprop.runs.settings import Settings
from dualprop.studies.bench.plan import Plan
from dualprop.studies.bench.run import timed
from dualprop.studies.bench.subjects import Subject, subjects
from dualprop.studies.bench.timing import answered
from dualprop.studies.bench.workload import Workload
from dualprop.studies.tables.makers.measurement import Measured, Measurement
from dualprop.training.experiment import PRECISIONS, device

FEW = 10
"""Samples of the step from which the time of a cell is estimated: some rules take minutes for a whole batch."""


@checked
@dataclass(frozen=True)
class Bench(Measurement):
    """Steps of one subject of `dualprop bench`, in turn with those of bp: random images, labels and weights.

    Args:
        repeats: pairs of steps.
        budget: seconds after which no further pair begins.
        samples: of the epoch that `seconds_per_epoch` is of.
    """

    name = "bench"
    timed = True
    immaterial = tuple(name for name in Measurement.immaterial if name not in ("precision", "compile"))
    repeats: Count = 10
    budget: Positive = 60.0
    samples: Count = 50_000

    def check(self, settings: Settings) -> None:
        """A subject, a net, a precision; settings that nothing here reads are refused."""
        self._plan(settings)
        if settings.rule_settings:
            raise DualpropError("rule_settings: not with this maker, which takes every rule as RULES has it")

    def measure(self, settings: Settings) -> Measured:
        """Time a step in turn with bp's.

        Numbers: `ratio`, the median; `ratio_low`, `ratio_high`, its quartiles; `seconds_per_step`;
        `seconds_per_epoch`; `operations` and `products` of a step; `operations_ratio`, to bp's; `peak_bytes`.
        Series: `seconds`, `bp_seconds`.
        """
        plan, workload = self._plan(settings), self._workload(settings)
        bp = subjects()["bp"].make(workload, False)
        subject = self._subject(settings, workload)
        found = timed(settings.rule, settings.precision, workload, subject, bp, plan)
        del subject, bp
        gc.collect()
        numbers = {
            "ratio": found.ratio.median,
            "ratio_low": found.ratio.low,
            "ratio_high": found.ratio.high,
            "seconds_per_step": found.step.median,
            "seconds_per_epoch": found.step.median * self.samples / settings.batch_size,
            "operations": float(found.operations),
            "operations_ratio": found.operations / found.bp_operations,
            "products": float(found.products),
            **({} if found.peak_bytes is None else {"peak_bytes": float(found.peak_bytes)}),
        }
        return Measured(numbers, {"seconds": list(found.seconds), "bp_seconds": list(found.bp_seconds)})

    def seconds(self, settings: Settings) -> float:
        """As long as one step takes, from what it takes for a few samples, as often as the budget allows."""
        few = min(FEW, settings.batch_size)
        workload = self._workload(dataclasses.replace(settings, batch_size=few))
        seconds, _ = answered(self._subject(settings, workload).step, workload.device)
        step = seconds * settings.batch_size / few
        return max(step, min(self.budget, 2 * self.repeats * step))

    def _plan(self, settings: Settings) -> Plan:
        return Plan(
            rules=(settings.rule,),
            nets=(settings.net,),
            precisions=(settings.precision,),
            batch_size=settings.batch_size,
            repeats=self.repeats,
            budget=self.budget,
            device=settings.device,
            hidden=Plan.hidden if settings.hidden is None else settings.hidden,
        )

    def _workload(self, settings: Settings) -> Workload:
        plan, precision = self._plan(settings), PRECISIONS[settings.precision]
        return Workload(
            settings.net, plan.features, plan.hidden, precision, settings.batch_size, device(settings.device)
        )

    def _subject(self, settings: Settings, workload: Workload) -> Subject:
        return subjects()[settings.rule].make(workload, settings.compile)
