"""What is to be made for a table: its cells in a folder, how long they take here, and what fits a budget."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dualprop.arguments import Count, Several, check_entries, checked
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs.documents import read_json, write_json
from dualprop.runs.settings import Settings
from dualprop.studies.tables.definition import Row, Table
from dualprop.studies.tables.makers import Record
from dualprop.studies.tables.records import records

BUDGETS = "budgets.json"
"""How many epochs each row was given for a budget, in the folder of a table."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell: a row from one seed.

    Attributes:
        row: the row.
        settings: what is asked for.
        path: where its record is, or is to be.
        record: what is there; None for nothing.
    """

    row: Row
    settings: Settings
    path: Path
    record: Record | None

    @property
    def done(self) -> bool:
        """Whether it has come to its end, or never will."""
        return self.record is not None and (self.record.complete or bool(self.record.diverged))

    @property
    def state(self) -> str:
        """In a word."""
        if self.record is None:
            return "not run"
        return "finished" if self.record.complete else "diverged" if self.record.diverged else "begun"

    def make(self, how: Mapping[str, Any]) -> None:
        """Make it, or go on with it; see `Maker.make`."""
        self.row.maker.make(self.settings, self.path, how)


@checked
@dataclass(frozen=True)
class Request:
    """Which cells of a table are asked for.

    Args:
        rules: the rows of these alone; None for all.
        cells: the rows of these names alone, or of names like these; None for all.
        seeds: from how many seeds each, 0 and on; None for as many as the table has.
        epochs: for every training; None for the full schedule.
        common: settings by name that override the table's.
    """

    rules: Several[str] | None = None
    cells: Several[str] | None = None
    seeds: Count | None = None
    epochs: Count | None = None
    common: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def cells(table: Table, folder: Path, request: Request, epochs: Mapping[str, int] | None = None) -> list[Cell]:
    """The cells that are asked for, seed by seed, with what the folder has of them.

    Args:
        table: the table.
        folder: of its records.
        request: which of them.
        epochs: for rows by their names how many epochs there are time for, where that is fewer.

    Raises:
        DualpropError: for an unknown rule or setting, or if something else is where a cell is to be.
    """
    there, rows, found = records([folder]), table.chosen(request.rules, request.cells), []
    if not rows:
        raise DualpropError(f"cells={list(request.cells or ())}: none is of the rules {list(request.rules or ())}")
    if any(path == folder for path, _, _ in there):
        raise DualpropError(f"{folder}: is a run folder; choose another by --out, or rename it")
    for seed in range(max(request.seeds or row.seeds for row in rows)):
        for row in rows:
            if seed < (request.seeds or row.seeds):
                shorter = (epochs or {}).get(row.name, request.epochs)
                scaled = row.maker.epochs and shorter not in (None, row.settings().epochs)
                own = {"epochs": shorter} if scaled else {}
                found.append(_cell(row, seed, {**request.common, **own}, folder, there))
    return found


def _cell(
    row: Row, seed: int, common: Mapping[str, Any], folder: Path, there: Sequence[tuple[Path, str, Record]]
) -> Cell:
    settings = row.settings(seed, common)
    row.maker.check(settings)
    material = {f.name for f in fields(Settings) if f.metadata["identity"]}
    chosen = {name: getattr(settings, name) for name in common if name in material}
    words = [f"{name}{_word(value)}" for name, value in chosen.items()]
    path = folder / "-".join([row.name, *words, f"seed{seed}"])
    for other, make, record in sorted(there, key=lambda each: (each[0] != path, not each[2].complete)):
        asked = record.settings
        if (
            make == row.make
            and asked.seed == seed
            and all(getattr(asked, name) == value for name, value in chosen.items() if name != "rule_settings")
            and row.maker.differences(settings, record) == {}
        ):
            return Cell(row, settings, other, record)
    if path.is_symlink() or path.exists():
        raise DualpropError(f"{path}: holds something else than this cell; choose another folder by --out")
    return Cell(row, settings, path, None)


def _word(value: Any) -> str:
    return re.sub(r"[^\w.+]+", "-", json.dumps(value, default=str)).strip("-")


def estimated(todo: Sequence[Cell], say: Callable[[str], None]) -> dict[str, float]:
    """How long an epoch of each cell takes, or all of it where there are none, by the row's name.

    A few steps are made of every kind of cell; those that differ in their seed, or in real numbers alone, take as
    long.

    Args:
        todo: the cells.
        say: is told what is being measured.
    """
    kinds: dict[str, float] = {}
    seconds = {}
    for cell in todo:
        kind = _kind(cell)
        if kind not in kinds:
            say(f"measuring a few steps: {cell.row.label}")
            kinds[kind] = cell.row.maker.seconds(cell.settings)
        seconds[cell.row.name] = kinds[kind]
    return seconds


def _kind(cell: Cell) -> str:
    """What cells that take equally long have in common."""
    values = cell.settings.as_dict()
    numbers = (f.name for f in fields(Settings) if f.metadata["group"] in ("optimizer", "schedule"))
    for name in ("seed", *(name for name in numbers if name != "optimizer")):
        values.pop(name)
    own = {name: each for name, each in values.pop("rule_settings").items() if not isinstance(each, float)}
    return json.dumps([cell.row.make, cell.row.maker.arguments(), values, own], sort_keys=True)


def time_of(words: str) -> float:
    """The seconds that a budget's words stand for.

    Raises:
        DualpropError: for other words.

    Example:
        >>> time_of("30m"), time_of("1.5h")
        (1800.0, 5400.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", words.strip())
    if not match or not float(match[1]):
        raise DualpropError(f"budget={words!r}: must be a time above 0, for example 90s, 30m, 2h or 1d")
    return float(match[1]) * UNITS[match[2]]


def spoken(seconds: float) -> str:
    """A time as one says it.

    Example:
        >>> spoken(20), spoken(5400), spoken(10 * 86400)
        ('20 s', '1.5 h', '10 d')
    """
    unit = next((u for u in ("d", "h", "m") if seconds >= 1.5 * UNITS[u]), "s")
    return f"{seconds / UNITS[unit]:.2g} {'min' if unit == 'm' else unit}"


def total(todo: Sequence[Cell], seconds: Mapping[str, float]) -> float:
    """How long all of them take, one after the other."""
    return sum(seconds[c.row.name] * (c.settings.epochs if c.row.maker.epochs else 1) for c in todo)


def fitting(todo: Sequence[Cell], seconds: Mapping[str, float], available: float) -> dict[str, int]:
    """How many epochs of each row there is time for: the same part of every schedule.

    Args:
        todo: the cells in full.
        seconds: as `estimated` gives them.
        available: seconds of one worker.

    Raises:
        DualpropError: if there is not time for one epoch of each.
    """

    def shortened(part: float) -> dict[str, int]:
        return {c.row.name: max(1, int(part * c.settings.epochs)) for c in todo if c.row.maker.epochs}

    def taken(part: float) -> float:
        epochs = shortened(part)
        return sum(seconds[c.row.name] * epochs.get(c.row.name, 1) for c in todo)

    if taken(0) > available:
        raise DualpropError(
            f"budget: too small, one epoch of each of the {len(todo)} cells takes about {spoken(taken(0))} in one "
            "process; give more, or fewer rules or seeds"
        )
    low, high = 0.0, 1.0
    if taken(high) <= available:
        return shortened(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if taken(middle) <= available else (low, middle)
    return shortened(low)


def budgeted(folder: Path, asked: Mapping[str, Any]) -> dict[str, int] | None:
    """The epochs that the same request was given before: going on takes the cells that were begun.

    Args:
        folder: of the table's records.
        asked: the request, as JSON holds it.

    Raises:
        CheckpointError: if the file is damaged.
    """
    for plan in _plans(folder):
        if plan["asked"] == asked:
            epochs: dict[str, int] = plan["epochs"]
            return epochs
    return None


def keep_budget(folder: Path, asked: Mapping[str, Any], epochs: Mapping[str, int]) -> None:
    """Write down what a request was given."""
    write_json(folder / BUDGETS, {"plans": [*_plans(folder), {"asked": asked, "epochs": dict(epochs)}]})


def _plans(folder: Path) -> list[dict[str, Any]]:
    path = folder / BUDGETS
    if not path.is_file():
        return []
    values = read_json(path)
    try:
        check_entries(values, {"plans": list[dict[str, Any]]})
        for plan in values["plans"]:
            check_entries(plan, {"asked": dict[str, Any], "epochs": dict[str, Count]})
    except DualpropError as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None
    plans: list[dict[str, Any]] = values["plans"]
    return plans
