"""A comparison as a table (terminal, Markdown, CSV) and as plots of what happened on the way."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualprop.errors import printable
from dualprop.runs.documents import write_text
from dualprop.studies import _costs
from dualprop.studies._machine import machine
from dualprop.studies._table import Table, show
from dualprop.studies.report.drawing import draw_angles, draw_errors
from dualprop.studies.report.finished import TRUTHS, Record
from dualprop.studies.report.naming import assignments, shown
from dualprop.training.devices import spoken
from dualprop.training.means import Means

NOTES = (
    "Mean ± standard deviation over seeds; seconds: median over seeds of the training part of an epoch; cosine: "
    "mean over layers, epochs and seeds, to bp's gradient and, where that is another, to the one that the rule "
    "approximates, of the loss at its own prediction; products: of matrices, that a rule counts in its inference "
    "of a batch (those for the gradient left out, and bp counts none)."
)
"""What the columns mean."""


@dataclass(frozen=True)
class Report:
    """Several runs of several rules.

    Args:
        title: what they share.
        records: the finished runs.
        diverged: for each run that did not come to its end, by its folder's name, why.
        left_out: for each rule that was not run, why.
        energy: the constants by which its cost was measured, if it was.
        to_accuracy: of the validation, until which costs are added up.
    """

    title: str
    records: list[Record]
    diverged: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    energy: Mapping[str, float] = field(default_factory=dict)
    to_accuracy: float | None = None

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        diverged: Mapping[str, str] | None = None,
        left_out: Mapping[str, str] | None = None,
        **paid: Any,
    ) -> Report:
        """Read finished run folders.

        Args:
            paths: where they are.
            diverged: for each run that did not come to its end, by its folder's name, why.
            left_out: for each rule that was not run, why.
            paid: see `energy` and `to_accuracy`.
        """
        records = [Record.read(path) for path in paths]
        s = records[0].settings
        shared = {name for name, values in _values(records).items() if len(values) == 1}
        sizes = "-".join(map(str, s.hidden or ()))
        parts = {
            ("data",): s.data,
            ("net", "hidden", "net_settings"): " ".join(filter(None, (s.net, sizes, assignments(s.net_settings)))),
            ("loss",): s.loss,
            ("devices",): f"on devices ({spoken(s.devices)}) in training and test" if s.devices else "",
            ("optimizer", "lr"): f"{s.optimizer} {s.lr:g}",
            ("epochs",): f"{s.epochs} epoch{'s' * (s.epochs > 1)}",
        }
        title = ", ".join(text for names, text in parts.items() if text and shared.issuperset(names))
        return cls(title, records, diverged or {}, left_out or {}, **paid)

    @property
    def rules(self) -> dict[str, list[Record]]:
        """The records by rule, in the order they were run."""
        groups: dict[str, list[Record]] = {}
        for record in self.records:
            groups.setdefault(record.settings.rule, []).append(record)
        return groups

    def table(self) -> Table:
        """A row for each rule; columns for what the runs have."""
        seconds = {
            rule: statistics.median(r.result.seconds_per_epoch for r in records)
            for rule, records in self.rules.items()
        }
        rows = []
        for rule, records in self.rules.items():
            measured = _means(records)
            products = measured.get("products")
            cells = {
                "rule": rule,
                "seeds": str(len(records)),
                "test accuracy %": _percent(accuracies := _known(r.result.test_accuracy for r in records)),
                "test loss": "" if accuracies else _spread([r.result.test_loss for r in records], ".4g"),
                "top-5 %": _percent(_known(r.top5 for r in records)),
                "s / epoch": f"{seconds[rule]:.3g}",
                "time ÷ bp": f"{seconds[rule] / seconds['bp']:.2f}" if "bp" in seconds else "",
                **{f"cosine to {name}": _cosine([r.cosine(to) for r in records]) for to, name in TRUTHS.items()},
                "products / batch": f"{products:.4g}" if products else "",
                **_costs.cells(measured),
                **self._until(records),
            }
            rows.append(cells)
        columns = [name for name in rows[0] if any(row[name] for row in rows)]
        return Table(self.title, columns, [[row[name] for name in columns] for row in rows])

    def _until(self, records: Sequence[Record]) -> dict[str, str]:
        """What was paid, and for how many samples, until the accuracy was reached; by column."""
        if self.to_accuracy is None:
            return {}
        titles = [f"{what} to {100 * self.to_accuracy:g} %" for what in ("samples", "mJ")]
        paid = [record.until(self.to_accuracy) for record in records]
        if any(each is None for each in paid):
            return dict.fromkeys(titles, "not reached")
        samples, joules = zip(*(each for each in paid if each is not None), strict=True)
        return dict(zip(titles, (_spread(samples, ".4g"), _spread(joules, ".3g")), strict=True))

    def remarks(self) -> list[str]:
        """What differs between the rules, what they measured and what is missing: a line each."""
        lines = []
        for name, values in _values(self.records).items():
            if len(values) > 1:
                having = self._who([record.choices()[name] for record in self.records])
                words = (f"{shown(value)} for {_listed(who)}" for value, who in having.items())
                lines.append(f"{name}: {'; '.join(words)}")
        for rule, records in self.rules.items():
            if own := records[0].settings.rule_settings:
                lines.append(f"{rule} has {assignments(own)}")
        for rule, records in self.rules.items():
            columns = {"products", *_costs.COLUMNS}
            measured = {name: value for name, value in _means(records).items() if name not in columns}
            if measured:
                lines.append(f"{rule} measured, in the mean over its batches, {assignments(measured)}")
        if self.energy:
            lines += [_costs.NOTE, f"energy, in pJ: {assignments(self.energy)}"]
        lines += [f"{name} diverged: {why}" for name, why in self.diverged.items()]
        return lines + [f"{rule} left out: {why}" for rule, why in self.left_out.items()]

    def measured(self) -> list[str]:
        """On what the runs ran, by their own records: a line, or one for each machine with its runs."""
        where = self._who([machine(record.environment) for record in self.records])
        if len(where) == 1:
            return [f"Measured on {machine(self.records[0].environment)}."]
        lines = [f"Measured on {computer}: {_listed(who)}." for computer, who in where.items()]
        return [*lines, "Seconds of different machines do not compare."]

    def _who(self, values: Sequence[Hashable]) -> dict[Hashable, list[str]]:
        """For each of the runs' values those that have it: rules, or some of their seeds."""
        seeds: dict[Hashable, dict[str, list[str]]] = {}
        for record, value in zip(self.records, values, strict=True):
            seeds.setdefault(value, {}).setdefault(record.settings.rule, []).append(str(record.settings.seed))
        who: dict[Hashable, list[str]] = {}
        for value, rules in seeds.items():
            who[value] = [
                rule
                if len(some) == len(self.rules[rule])
                else f"{rule} (seed{'s' * (len(some) > 1)} {_listed(some)})"
                for rule, some in rules.items()
            ]
            same = {name.removeprefix(rule) for rule, name in zip(rules, who[value], strict=True)}
            if len(rules) == len(self.rules) > 1 and len(same) == 1:
                who[value] = [f"every rule{same.pop()}"]
        return who

    def markdown(self) -> str:
        """The table in Markdown, with what it was measured on."""
        remarks = "\n".join(f"- {line}" for line in map(printable, (NOTES, *self.remarks(), *self.measured())))
        return f"# {printable(self.title)}\n\n{self.table().markdown()}\n\n{remarks}\n"

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the same without its heading."""
        return self.markdown().partition("\n")[2]

    def print(self) -> None:
        """The table in a terminal."""
        show(self.table(), remarks=(*self.remarks(), *self.measured()))

    def write(self, folder: Path) -> None:
        """Write table.md, table.csv, learning-curves.png and, as far as measured, alignment.png and its like.

        alignment.png has the angles to bp's gradient, alignment-own.png those to the rules' own, where that is
        another.
        """
        write_text(folder / "table.md", self.markdown())
        write_text(folder / "table.csv", self.table().csv())
        draw_errors(folder / "learning-curves.png", self.title, self.rules)
        if all(epoch.get("cosine") for r in self.records for epoch in r.epochs):
            draw_angles(folder / "alignment.png", self.title, self.rules, "cosine", "bp's gradient")
        own = {rule: records for rule, records in self.rules.items() if all(r.cosine("own") for r in records)}
        if own:
            draw_angles(folder / "alignment-own.png", self.title, own, "own", "its own true gradient")


def _values(records: Sequence[Record]) -> dict[str, set[Any]]:
    """The values of every choice that the runs were free in."""
    choices = [record.choices() for record in records]
    return {name: {own[name] for own in choices} for name in choices[0]}


def _means(records: Sequence[Record]) -> dict[str, float]:
    """What the rules measured: the mean over the epochs and runs that have it."""
    means = Means()
    for record in records:
        for epoch in record.epochs:
            means.add(epoch.get("measures", {}))
    return means()


def _known(numbers: Iterable[float | None]) -> list[float]:
    """Those that are not None."""
    return [number for number in numbers if number is not None]


def _percent(shares: Sequence[float]) -> str:
    """Mean ± standard deviation, in per cent; empty for none."""
    return _spread([100 * share for share in shares], ".2f")


def _spread(numbers: Sequence[float], digits: str) -> str:
    """Mean ± standard deviation; empty for none."""
    spread = f" ± {statistics.stdev(numbers):{digits}}" if len(numbers) > 1 else ""
    return f"{statistics.fmean(numbers):{digits}}{spread}" if numbers else ""


def _cosine(cosines: Sequence[float | None]) -> str:
    """The mean of those that were measured; empty for none."""
    measured = [cosine for cosine in cosines if cosine is not None]
    return f"{statistics.fmean(measured):.3f}" if measured else ""


def _listed(names: Sequence[str]) -> str:
    """Names as one says them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
