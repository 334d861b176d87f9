"""What a report reads of records besides their numbers: what is damaged is left out with a warning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dualprop.arguments import check, check_entries
from dualprop.errors import DualpropError
from dualprop.runs.documents import MEASURED, read_json
from dualprop.runs.folder import Run
from dualprop.runs.pictures import Pictures
from dualprop.studies._machine import ENVIRONMENT

logger = logging.getLogger("dualprop")

T = TypeVar("T")

MEASUREMENT = "measurement.json"


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


def pictures_of(path: Path) -> Pictures | None:
    """What it keeps to be looked at."""
    if not (path / "settings.json").is_file():
        return None
    return _or_warn(lambda: Pictures.read(Run.open(path)), None)
