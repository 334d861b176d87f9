"""A finished run as a comparison reads it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dualprop.arguments import CountOrZero, check_entries
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs.documents import read_json
from dualprop.runs.folder import Run
from dualprop.runs.settings import Settings
from dualprop.studies._epochs import EPOCH
from dualprop.studies._machine import ENVIRONMENT
from dualprop.studies.report.naming import assignments
from dualprop.training.devices import spoken
from dualprop.training.resolved import net_arguments
from dualprop.training.result import Result, finished
from dualprop.training.weights import recorded

FEW_CLASSES = 10
"""Up to so many, the five largest outputs say little."""

TRUTHS = {"cosine": "bp", "own": "own gradient"}
"""What gradients are compared with, by the record's name for the cosine."""


@dataclass(frozen=True)
class Record:
    """One finished run: its settings, the net that was made of them, what it ran on, result and epochs."""

    settings: Settings
    net: Mapping[str, Any]
    environment: dict[str, Any]
    result: Result
    epochs: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a finished run folder.

        Raises:
            CheckpointError: if it is not finished, or one of its files is damaged or contradicts another.
        """
        run = Run.open(path)
        result = finished(run)
        if result is None:
            raise CheckpointError(f"{path}: not finished (it has no result.json)")
        settings, used = run.settings, recorded(run)
        net = used.net if used else net_arguments(settings, (), 0)
        epochs = run.metrics("epoch")
        environment = read_json(path / "environment.json")
        for name, values, kinds in (
            ("resolved.json", [net], {"num_classes": CountOrZero | None}),
            ("environment.json", [environment], ENVIRONMENT),
            ("metrics.jsonl", epochs, EPOCH),
        ):
            try:
                for each in values:
                    check_entries(each, kinds)
            except DualpropError as error:
                raise CheckpointError(f"{path / name}: damaged ({error})") from None
        if not epochs or any(_layers(epoch) != _layers(epochs[0]) for epoch in epochs):
            raise CheckpointError(f"{path / 'metrics.jsonl'}: damaged (its epochs are not all of one net)")
        if [epoch.get("epoch", n) for n, epoch in enumerate(epochs, 1)] != list(range(1, settings.epochs + 1)):
            raise CheckpointError(f"{path / 'metrics.jsonl'}: damaged (its epochs are not 1..{settings.epochs})")
        return cls(settings, net, environment, result, epochs)

    def cosine(self, to: str) -> float | None:
        """Mean over layers and epochs of a cosine in the record; see `TRUTHS`."""
        cosines = [c for epoch in self.epochs for c in epoch.get(to, [])]
        return statistics.fmean(cosines) if cosines else None

    def until(self, accuracy: float) -> tuple[float, float] | None:
        """Samples and mJ until the end of the first epoch whose validation reached an accuracy; None for never."""
        samples = millijoules = 0.0
        for epoch in self.epochs:
            seen = (epoch.get("images_per_second") or 0.0) * (epoch.get("seconds") or 0.0)
            samples += seen
            millijoules += 1e-9 * seen * epoch.get("measures", {}).get("picojoules", math.nan)
            if epoch.get("val_accuracy", 0.0) >= accuracy:
                return samples, millijoules
        return None

    @property
    def top5(self) -> float | None:
        """The top-5 accuracy, where there are classes enough for it to say much."""
        return self.result.test_accuracy_top5 if self.net.get("num_classes", 0) > FEW_CLASSES else None

    def choices(self) -> dict[str, Any]:
        """All that was chosen for it besides rule and seed, what was left to the rule included."""
        s, others = self.settings, ("rule", "seed", "rule_settings")
        chosen = [f.name for f in fields(s) if f.metadata["identity"] and f.name not in others]
        own = {name: self.net.get(name) for name in ("activation", "pool", "init")}
        tables = {"net_settings": assignments(s.net_settings), "devices": spoken(s.devices)}
        return {**{name: getattr(s, name) for name in chosen}, **own, **tables}


def _layers(epoch: Mapping[str, Any]) -> list[int]:
    """How many layers were compared with each of the true gradients."""
    return [len(epoch.get(to) or ()) for to in TRUTHS]
