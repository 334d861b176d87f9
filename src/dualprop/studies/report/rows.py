"""The rows of a report: each published number of a table beside what records say of it."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualprop.studies.report.verdict import Verdict, judge
from dualprop.studies.tables import Found, Metric, Row, Table

logger = logging.getLogger("dualprop")

SCHEDULE = ("epochs", "warmup_epochs", "lr_epochs")
"""Differences by which a schedule is shortened; by others it is the data."""


@dataclass(frozen=True, eq=False)
class Group:
    """Records of one row that differ in their seeds alone.

    Attributes:
        row: the row.
        differences: from the full setting, as `Found` has them; the same for all.
        found: one for each seed, in their order.
    """

    row: Row
    differences: Mapping[str, tuple[Any, Any]]
    found: Sequence[Found]

    @property
    def label(self) -> str:
        """The row, and how it was shortened."""
        return f"{self.row.label} ({self.shortened})" if self.differences else self.row.label

    @property
    def shortened(self) -> str:
        """In words; empty for the full setting."""
        ours, full = self.differences.get("epochs", (1, 1))
        told = {
            name: pair
            for name, pair in self.differences.items()
            if name == "epochs" or name not in SCHEDULE or not _in_proportion(pair, ours / full)
        }
        return ", ".join(f"{name} {_word(ours)} of {_word(full)}" for name, (ours, full) in told.items())

    @property
    def unlike(self) -> str:
        """Why it is not compared; empty for the full setting."""
        if not self.differences:
            return ""
        what = "schedule shortened" if set(SCHEDULE) & set(self.differences) else "other data"
        return f"{what} ({self.shortened})"


@dataclass(frozen=True, eq=False)
class Line:
    """One number of one group.

    Attributes:
        table: the table.
        row: the row.
        name: of the metric.
        metric: the metric.
        group: what was measured; None if nothing was.
        values: the number of each seed that was finished, in the unit that is shown.
        verdict: beside the published number.
    """

    table: Table
    row: Row
    name: str
    metric: Metric
    group: Group | None
    values: Sequence[float]
    verdict: Verdict

    @property
    def full(self) -> bool:
        """Whether it was measured at the full setting."""
        return self.group is not None and not self.group.differences and bool(self.values)

    @property
    def claim(self) -> str:
        """What the number is."""
        return f"{self.row.label}: {self.metric.title}"

    @property
    def where(self) -> str:
        """Where it was published."""
        published = self.row.published.get(self.name)
        return published.source.removeprefix(f"{self.table.paper}, ") if published else ""

    @property
    def published(self) -> str:
        """Mean ± standard deviation (n)."""
        published = self.row.published.get(self.name)
        if published is None:
            return ""
        spread = "" if published.std is None else f" ± {self._number(published.std)}"
        return f"{self._number(published.mean)}{spread} (n = {published.seeds})"

    @property
    def measured(self) -> str:
        """Mean ± standard deviation (n)."""
        if not self.values:
            return ""
        spread = f" ± {self._number(statistics.stdev(self.values))}" if len(self.values) > 1 else ""
        return f"{self._number(statistics.fmean(self.values))}{spread} (n = {len(self.values)})"

    @property
    def each(self) -> str:
        """The number of every seed."""
        if self.group is None:
            return ""
        done = [each for each in self.group.found if self.name in each.numbers]
        numbers = ", ".join(self._number(self._value(each)) for each in done)
        seeds = ", ".join(str(each.seed) for each in done)
        return f"{numbers} (seed{'s' * (len(done) > 1)} {seeds})" if done else ""

    @property
    def difference(self) -> str:
        """Measured minus published, with the interval."""
        d, half = self.verdict.difference, self.verdict.half
        if d is None:
            return ""
        bounds = "" if half is None else f" [{self._signed(d - half)}, {self._signed(d + half)}]"
        return f"{self._signed(d)}{bounds}"

    @property
    def compared(self) -> tuple[float, float | None] | None:
        """The difference, and half the width of its interval; None where it was not compared."""
        d = self.verdict.difference
        return None if d is None or not math.isfinite(d) else (d, self.verdict.half)

    @property
    def judged(self) -> str:
        """The verdict, and what became of seeds that have no number."""
        if self.group is None:
            return self.verdict.words
        gone = [
            f"seed {each.seed} diverged: {each.record.diverged}"
            for each in self.group.found
            if each.record.diverged
        ]
        left = [
            str(each.seed) for each in self.group.found if not each.record.complete and not each.record.diverged
        ]
        if left:
            gone.append(f"seed{'s' * (len(left) > 1)} {', '.join(left)} not finished")
        known = [] if self.verdict.kind == "not run" and gone else [self.verdict.words]
        return "; ".join([*known, *gone])

    @property
    def command(self) -> str:
        """What makes it, shortened as it was."""
        differences = self.group.differences if self.group else {}
        options = [(name, differences[name][0]) for name in ("epochs", "val_fraction") if name in differences]
        words = (f"--{name.replace('_', '-')} {_word(ours)}" for name, ours in options)
        return " ".join([self.row.command, *words])

    @property
    def hours(self) -> str:
        """Of all seeds together; empty where it is not known."""
        hours = [each.numbers["hours"] for each in self._found if "hours" in each.numbers]
        return f"{sum(hours):.2f}" if hours else ""

    @property
    def paths(self) -> list[Path]:
        """The records' folders."""
        return [each.path for each in self._found]

    @property
    def _found(self) -> Sequence[Found]:
        return self.group.found if self.group else ()

    def _value(self, found: Found) -> float:
        return self.metric.scale * found.numbers[self.name]

    def _number(self, value: float) -> str:
        return f"{value:.{self.metric.digits}f}"

    def _signed(self, value: float) -> str:
        return f"{value:+.{self.metric.digits}f}"


def groups(table: Table, found: Sequence[Found]) -> list[Group]:
    """The records by row and by how they were shortened, in the order of the table, the full setting first.

    Of two records of one seed the first counts, with a warning.
    """
    made = []
    for row in table.rows:
        by: dict[tuple[Any, ...], dict[int, Found]] = {}
        for each in found:
            if each.row is row:
                seeds = by.setdefault(tuple(each.differences.items()), {})
                first = seeds.setdefault(each.seed, each)
                if first is not each:
                    logger.warning("%s: left out, another record of the seed of %s", each.path, first.path)
        for key, seeds in sorted(by.items(), key=lambda item: (item[0] != (), repr(item[0]))):
            made.append(Group(row, dict(key), [seeds[seed] for seed in sorted(seeds)]))
    return made


def lines(table: Table, measured: Sequence[Group]) -> list[Line]:
    """A line for each number, published or measured.

    Args:
        table: the table.
        measured: as `groups` gives them.
    """
    made: list[Line] = []
    for row in table.rows:
        own = [line for group in measured if group.row is row for line in _of_group(table, row, group)]
        shown = {line.name for line in own}
        made += own
        made += [
            Line(table, row, name, metric, None, (), judge(row.published[name], ()))
            for name, metric in table.metrics.items()
            if name in row.published and name not in shown
        ]
    return made


def _of_group(table: Table, row: Row, group: Group) -> Iterator[Line]:
    """Its numbers: those published, and others that it has."""
    for name, metric in table.metrics.items():
        published = row.published.get(name)
        values = [metric.scale * each.numbers[name] for each in group.found if name in each.numbers]
        if published is not None or values:
            unlike = group.unlike or (published.unlike if published else "")
            yield Line(table, row, name, metric, group, values, judge(published, values, metric.margin, unlike))


def _in_proportion(pair: tuple[Any, Any], part: float) -> bool:
    """Whether a time was shortened as the epochs were, which goes without saying."""
    ours, full = pair
    return bool(ours and full and math.isclose(ours / full, part, rel_tol=1e-3))


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)
