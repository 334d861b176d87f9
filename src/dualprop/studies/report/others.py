"""Records that are cells of no table: a line for those that differ in their seeds alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from dualprop.runs.settings import Settings
from dualprop.studies._table import Table
from dualprop.studies.report.naming import commit, listed, together
from dualprop.studies.report.records import environment_of
from dualprop.studies.tables import Record

COLUMNS = ("what", "test accuracy %", "run", "commit", "machine", "hours")

IMMATERIAL = {"seed", *(f.name for f in fields(Settings) if not f.metadata["identity"])}
"""Settings in which the seeds of a line may differ."""


def others(
    records: Sequence[tuple[Path, Record]],
    named: Mapping[Path, str],
    machine: Callable[[Mapping[str, Any]], str],
) -> Table:
    """A row for each setting.

    Args:
        records: folders, and what they say.
        named: what the folders are called.
        machine: what is said of an environment.
    """
    by: dict[str, list[tuple[Path, Record]]] = {}
    for path, record in records:
        chosen = {name: value for name, value in record.settings.as_dict().items() if name not in IMMATERIAL}
        by.setdefault(json.dumps([chosen, sorted(record.used)]), []).append((path, record))
    rows = []
    for same in by.values():
        environments = [environment_of(path) for path, _ in same]
        hours = [record.numbers["hours"] for _, record in same if "hours" in record.numbers]
        rows.append(
            [
                _what(same[0][1].settings),
                _accuracy([record for _, record in same]),
                together([named[path] for path, _ in same]),
                listed(map(commit, environments)),
                listed(map(machine, environments)),
                f"{sum(hours):.2f}" if hours else "",
            ]
        )
    return Table("", COLUMNS, rows, words=COLUMNS)


def _what(s: Settings) -> str:
    own = [f"{name} {value}" for name, value in {**s.rule_settings, **s.net_settings}.items()]
    net = "-".join([s.net, *map(str, s.hidden or ())])
    return ", ".join(
        [f"{s.rule} on {s.data}", net, *own, f"{s.epochs} epoch{'s' * (s.epochs != 1)}", f"lr {s.lr:g}"]
    )


def _accuracy(records: Sequence[Record]) -> str:
    """Mean ± standard deviation (n) of those that are finished, and how many are not."""
    values = [100 * record.numbers["test_accuracy"] for record in records if "test_accuracy" in record.numbers]
    gone = [f"diverged: {record.diverged}" for record in records if record.diverged]
    left = sum(not record.complete and not record.diverged for record in records)
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    words = [f"{statistics.fmean(values):.2f}{spread} (n = {len(values)})"] if values else []
    return "; ".join([*words, *gone, *([f"{left} not finished"] if left else [])])
