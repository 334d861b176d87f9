"""Cells that workers train, on the virtual clock, with faults: ordinary run folders as well."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dualprop.arguments import Count, Fraction, NotNegative, Positive, Several, checked
from dualprop.errors import DivergenceError
from dualprop.runs.documents import write_json
from dualprop.runs.settings import Settings
from dualprop.studies.tables.makers.base import Record
from dualprop.studies.tables.makers.training import DIVERGED, FAULTS, Training
from dualprop.training.experiment import Experiment
from dualprop.training.workers.grouping import costs, grouped
from dualprop.training.workers.parts import check_settings
from dualprop.training.workers.simulated import Simulated
from dualprop.training.workers.start import resume, simulated_crew, train
from dualprop.training.workers.ways import parsed, worded

BATCHES = 20
"""That are timed, after as many more."""


@checked
@dataclass(frozen=True)
class Asynchronous(Training):
    """A net trained by workers in one process, with messages lost, late, out of order or doubled.

    Args:
        workers: how many.
        way: a word for how they work.
        loss: the part of the messages that is lost.
        delay: seconds that each takes.
        reorder: the part that others overtake.
        duplicate: the part that comes twice.
        slow: how many times as long each worker takes; none: all take once as long.
    """

    workers: Count = 3
    way: str = "in-flight:4"
    loss: Fraction = 0.0
    delay: NotNegative = 0.0
    reorder: Fraction = 0.0
    duplicate: Fraction = 0.0
    slow: Several[Positive] = ()

    def check(self, settings: Settings) -> None:
        """Names, and what workers cannot do."""
        super().check(settings)
        parsed(self.way)
        Simulated(slow=self.slow).check(self.workers)
        check_settings(settings)

    def make(self, settings: Settings, folder: Path, how: Mapping[str, Any]) -> None:
        """Train, or go on with the run that is there."""
        carrier = self._carrier(settings.seed)
        told = {"progress": how.get("progress", True), "callbacks": how.get("callbacks", ())}
        try:
            if folder.exists():
                changes = {"data_root": settings.data_root} if settings.data_root else {}
                resume(folder, changes, carrier=carrier, **told)
            else:
                train(settings, folder, workers=self.workers, way=self.way, carrier=carrier, **told)
        except DivergenceError as error:
            write_json(folder / DIVERGED, {"error": str(error)})
            raise

    def step_seconds(self, experiment: Experiment) -> float:
        """Of a batch, where so many are on their way as later on."""
        net, way = experiment.trainer.net, parsed(self.way)
        groups = grouped(costs(net, experiment.dataset.in_shape), self.workers)
        crew = simulated_crew(experiment, groups, way, self._carrier(experiment.settings.seed))
        crew.total = 2 * BATCHES + 1  # so that none waits for the last
        deque(crew.run(BATCHES), maxlen=0)
        begun = time.perf_counter()
        deque(crew.run(2 * BATCHES), maxlen=0)
        return (time.perf_counter() - begun) / BATCHES

    def _carrier(self, seed: int) -> Simulated:
        return Simulated(seed, **{name: getattr(self, name) for name in FAULTS})

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """A run folder of workers."""
        return cls.record(folder, measured=True)

    def arguments(self) -> dict[str, Any]:
        """Its own."""
        return {**asdict(self), "way": worded(parsed(self.way)), "slow": list(self.slow)}
