"""Cells that are measurements: a folder with one file, written when all of it is there."""

from __future__ import annotations

import dataclasses
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from dualprop.arguments import Number, check_entries
from dualprop.errors import CheckpointError, DivergenceError, DualpropError
from dualprop.runs.documents import read_json, write_json
from dualprop.runs.environment import environment
from dualprop.runs.settings import Settings
from dualprop.studies.tables.makers.base import Maker, Record
from dualprop.training.experiment import Experiment, build, check_names

MEASUREMENT = "measurement.json"
"""The record."""

LARGEST = 2**22
"""Bytes of it."""

KINDS: dict[str, Any] = {
    "make": str,
    "settings": dict[str, Any],
    "used": dict[str, Any],
    "environment": dict[str, Any],
    "numbers": dict[str, Number],
    "series": dict[str, list[Any]],
    "diverged": str,
}
"""What is in it."""


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        numbers: by name; finite.
        series: lists of numbers, or of lists of them, by name; for pictures.
        used: what settings left to net and rule; see `Record`.
    """

    numbers: Mapping[str, float]
    series: Mapping[str, list[Any]] = field(default_factory=dict)
    used: Mapping[str, Any] = field(default_factory=dict)


class Measurement(Maker):
    """A maker whose cells are computed in one go. Its arguments are the fields of a dataclass.

    Attributes:
        name: that in `MAKERS`.
    """

    name: ClassVar[str]

    @abstractmethod
    def measure(self, settings: Settings) -> Measured:
        """Measure.

        Raises:
            DivergenceError: if what is measured diverges, so that there is nothing to say but that.
        """

    def check(self, settings: Settings) -> None:
        """Names, and those of the rule's own settings."""
        check_names(settings)

    def make(self, settings: Settings, folder: Path, how: Mapping[str, Any]) -> None:
        """Measure, then write the record."""
        try:
            found, diverged = self.measure(settings), None
        except DivergenceError as error:
            found, diverged = Measured({}), error
        record = {
            "make": self.name,
            "settings": settings.as_dict(),
            "used": {**found.used, "measure": self.arguments()},
            "environment": environment(),
            "numbers": dict(found.numbers),
            "series": dict(found.series),
            "diverged": str(diverged or ""),
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / MEASUREMENT, record)
        if diverged is not None:
            raise diverged

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """A folder with such a file."""
        path = folder / MEASUREMENT
        if not path.is_file():
            return None
        values = read_json(path, LARGEST)
        try:
            check_entries(values, KINDS)
            if values["make"] != cls.name:
                return None
            settings = Settings.from_dict(values["settings"])
        except DualpropError as error:
            raise CheckpointError(f"{path}: damaged ({error})") from None
        why = values["diverged"]
        return Record(settings, values["used"], values["numbers"], complete=not why, diverged=why)

    def arguments(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        values: dict[str, Any] = json.loads(json.dumps(own))
        return values


def experiment(settings: Settings) -> tuple[Experiment, Any, Tensor]:
    """What settings are made into, and its first batch."""
    made = build(settings)
    x, y = next(iter(made.trainer.data.epoch(0)))
    return made, x, y


def used(made: Experiment) -> dict[str, Any]:
    """What settings left to net and rule."""
    resolved = made.resolved.as_dict()
    return {name: resolved[name] for name in ("net", "rule", "own")}
