"""Cells that are trainings: ordinary run folders."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dualprop.arguments import Count, check_entries
from dualprop.errors import CheckpointError, DivergenceError, DualpropError
from dualprop.runs.documents import read_json, write_json
from dualprop.runs.folder import Run
from dualprop.runs.settings import Settings
from dualprop.studies._epochs import readable_epochs
from dualprop.studies.tables.makers.base import Maker, Record, least
from dualprop.training.experiment import Experiment, build, check_names
from dualprop.training.result import finished
from dualprop.training.start import resume, train
from dualprop.training.threads import computing_in
from dualprop.training.weights import recorded

DIVERGED = "diverged.json"
"""What the folder of a run that diverged has in place of a result."""


class Training(Maker):
    """A net trained by a rule, tested with the weights of the best validation accuracy."""

    epochs = True

    def check(self, settings: Settings) -> None:
        """Names, and those of the rule's own settings."""
        check_names(settings)

    def make(self, settings: Settings, folder: Path, how: Mapping[str, Any]) -> None:
        """Train, or go on with the run that is there, on the device and in the threads that it has."""
        try:
            if folder.exists():
                resume(folder, {"data_root": settings.data_root} if settings.data_root else {}, **how)
            else:
                train(settings, folder, **how)
        except DivergenceError as error:
            write_json(folder / DIVERGED, {"error": str(error)})
            raise

    def seconds(self, settings: Settings) -> float:
        """Of an epoch with its validation: a step is repeated while that takes a second at most."""
        experiment = build(settings)
        trainer = experiment.trainer
        x, y = next(iter(trainer.data.epoch(0)))
        with computing_in(experiment.resolved.threads):
            tested = least(lambda: trainer.evaluate([(x, y)])) if settings.val_fraction else 0.0
            step = self.step_seconds(experiment)
        held_out = settings.val_fraction * len(experiment.dataset.train)
        return step * len(trainer.data) + tested * held_out / len(x)

    def step_seconds(self, experiment: Experiment) -> float:
        """How long one batch of an experiment takes."""
        trainer = experiment.trainer
        x, y = next(iter(trainer.data.epoch(0)))
        return least(lambda: trainer.learn(x, y))

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """A run folder of one process."""
        return cls.record(folder, measured=False)

    @classmethod
    def record(cls, folder: Path, *, measured: bool) -> Record | None:
        """A run folder, if it has, or has not, arguments of a maker's own."""
        if not (folder / "settings.json").is_file() or not (folder / "environment.json").is_file():
            return None
        run = Run.open(folder)
        used, why = _used(run), ""
        if ("measure" in used) != measured:
            return None
        metrics = run.readable_metrics()
        epochs = readable_epochs(run.path, metrics)
        if (folder / DIVERGED).is_file():
            why = str(read_json(folder / DIVERGED).get("error"))
        result = finished(run, metrics)
        if result is None:
            return Record(run.settings, used, diverged=why, epochs=epochs)
        numbers = {name: value for name, value in asdict(result).items() if isinstance(value, int | float)}
        numbers["hours"] = result.seconds_per_epoch * run.settings.epochs / 3600
        return Record(
            run.settings,
            used,
            {**numbers, **_cosines(epochs), **_asynchrony(epochs)},
            complete=True,
            epochs=epochs,
        )


def _used(run: Run) -> dict[str, Any]:
    """What was made of its settings; nothing where that was not recorded."""
    if run.resolved is None or (resolved := recorded(run)) is None:
        return {}
    if not resolved.own:
        try:
            check_entries(resolved.net, {"in_shape": list[Count], "num_classes": Count})
        except DualpropError as error:
            raise CheckpointError(f"{run.path / 'resolved.json'}: damaged ({error})") from None
    used = {name: getattr(resolved, name) for name in ("net", "rule", "own")}
    return {**used, **({"measure": measure_of(resolved.workers)} if resolved.workers else {})}


def _cosines(epochs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean and least of each cosine over layers and epochs."""
    numbers: dict[str, float] = {}
    for name in ("cosine", "own", "feedback_cosine"):
        cosines = [c for epoch in epochs for c in _numbers(epoch.get(name)) if not math.isnan(c)]
        if cosines:
            numbers |= {name: statistics.fmean(cosines), f"least_{name}": min(cosines)}
    return numbers


def _numbers(value: Any) -> Sequence[float]:
    return value if isinstance(value, list) else []


FAULTS = ("loss", "delay", "reorder", "duplicate", "slow")
"""What may become of messages and workers on the virtual clock."""


def measure_of(workers: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the maker of a run by workers; those of a run of real processes are no cell's.

    Args:
        workers: as a run's `resolved.json` says.
    """
    carrier = workers.get("carrier")
    if not isinstance(carrier, Mapping) or carrier.get("kind") != "Simulated":
        return {}
    faults = {"slow": [], **{name: carrier[name] for name in FAULTS if name in carrier}}
    return {"workers": len(workers.get("groups", ())), "way": workers.get("way"), **faults}


def _asynchrony(epochs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What workers counted until the last epoch: staleness, the part of updates skipped, virtual seconds."""
    measures = epochs[-1].get("measures") if epochs else None
    if not isinstance(measures, Mapping) or "skipped" not in measures:
        return {}
    asked = measures["updates"] + measures["skipped"]
    numbers = {"staleness": measures["staleness"], "skipped": measures["skipped"] / max(asked, 1)}
    return {**numbers, **{name: measures[name] for name in ("virtual_seconds",) if name in measures}}
