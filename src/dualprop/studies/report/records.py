"""What a report reads of records besides their numbers: what is damaged is left out with a warning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator

from dualprop.arguments import Number, Portion, check, check_entries
from dualprop.errors import DualpropError
from dualprop.runs.folder import MEASURED, Run, read_json
from dualprop.runs.pictures import Pictures
from dualprop.studies._machine import ENVIRONMENT

logger = logging.getLogger("dualprop")

T = TypeVar("T")

MEASUREMENT = "measurement.json"


def _is_cosine(value: float) -> float:
    if abs(value) > 1.001:
        raise ValueError("not in [-1, 1]")
    return value


Cosine = Annotated[float, AfterValidator(_is_cosine)]
"""From -1 to 1 but for rounding; NaN where a gradient was zero."""

EPOCH: dict[str, Any] = {
    "loss": Number,
    "accuracy": Portion | None,
    "val_loss": Number | None,
    "val_accuracy": Portion | None,
    "cosine": list[Cosine] | None,
    "own": list[Cosine] | None,
    "measures": dict[str, float] | None,
}
"""What a report reads of an epoch's record."""


def _or_warn(read: Callable[[], T], instead: T) -> T:
    try:
        return read()
    except DualpropError as error:
        logger.warning("left out: %s", error)
        return instead


def environment_of(path: Path) -> Mapping[str, Any]:
    """What a record was made on; empty where that is not known."""

    def read() -> Mapping[str, Any]:
        measured = (path / MEASUREMENT).is_file()
        said = read_json(path / MEASUREMENT, MEASURED).get("environment") if measured else None
        environment = read_json(path / "environment.json") if said is None else said
        try:
            check_entries(check("environment", environment, dict[str, Any]), ENVIRONMENT)
        except DualpropError as error:
            raise DualpropError(f"{path}: its environment is damaged ({error})") from None
        kept: Mapping[str, Any] = environment
        return kept

    return _or_warn(read, {})


def epochs_of(path: Path) -> list[dict[str, Any]]:
    """What a training recorded at the end of each epoch; of other records nothing."""
    if not (path / "settings.json").is_file():
        return []
    nothing: list[dict[str, Any]] = []
    records = _or_warn(lambda: Run.open(path).readable_metrics(), nothing)
    epochs = [record for record in records if record["kind"] == "epoch"]
    kept = [epoch for epoch in epochs if _is_epoch(epoch)]
    if len(kept) < len(epochs):
        logger.warning("%s: %d epochs of other numbers left out", path / "metrics.jsonl", len(epochs) - len(kept))
    return kept


def _is_epoch(epoch: Mapping[str, Any]) -> bool:
    try:
        check_entries(epoch, EPOCH)
    except DualpropError:
        return False
    return True


def pictures_of(path: Path) -> Pictures | None:
    """What it keeps to be looked at."""
    if not (path / "settings.json").is_file():
        return None
    return _or_warn(lambda: Pictures.read(Run.open(path)), None)
