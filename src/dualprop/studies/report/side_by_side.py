"""A comparison as a table (terminal, Markdown, CSV) and as plots of what happened on the way."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dualprop.arguments import CountOrZero, check_entries
from dualprop.errors import CheckpointError, DualpropError, printable
from dualprop.runs.documents import read_json, write_text
from dualprop.runs.folder import Run
from dualprop.runs.settings import Settings
from dualprop.studies import _costs
from dualprop.studies._epochs import EPOCH
from dualprop.studies._figure import (
    MANY,
    angle,
    by_layer,
    curves,
    errors_axis,
    legend,
    panels,
    reference,
    save,
    styled,
)
from dualprop.studies._machine import ENVIRONMENT, machine
from dualprop.studies._table import Table, show
from dualprop.training.devices import spoken
from dualprop.training.means import Means
from dualprop.training.resolved import net_arguments
from dualprop.training.result import Result, finished
from dualprop.training.weights import recorded

FEW_CLASSES = 10
"""Up to so many, the five largest outputs say little."""

NOTES = (
    "Mean ± standard deviation over seeds; seconds: median over seeds of the training part of an epoch; cosine: "
    "mean over layers, epochs and seeds, to bp's gradient and, where that is another, to the one that the rule "
    "approximates, of the loss at its own prediction; products: of matrices, that a rule counts in its inference "
    "of a batch (those for the gradient left out, and bp counts none)."
)
"""What the columns mean."""

MOST_PANELS = 40
"""Layers that are drawn: of deeper nets every second, third, ..."""

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
        tables = {"net_settings": _named(s.net_settings), "devices": spoken(s.devices)}
        return {**{name: getattr(s, name) for name in chosen}, **own, **tables}


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
            ("net", "hidden", "net_settings"): " ".join(filter(None, (s.net, sizes, _named(s.net_settings)))),
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
                words = (f"{_shown(value)} for {_listed(who)}" for value, who in having.items())
                lines.append(f"{name}: {'; '.join(words)}")
        for rule, records in self.rules.items():
            if own := records[0].settings.rule_settings:
                lines.append(f"{rule} has {_named(own)}")
        for rule, records in self.rules.items():
            shown = {"products", *_costs.COLUMNS}
            measured = {name: value for name, value in _means(records).items() if name not in shown}
            if measured:
                lines.append(f"{rule} measured, in the mean over its batches, {_named(measured)}")
        if self.energy:
            lines += [_costs.NOTE, f"energy, in pJ: {_named(self.energy)}"]
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
        self._draw_errors(folder / "learning-curves.png")
        if all(epoch.get("cosine") for r in self.records for epoch in r.epochs):
            self._draw_angles(folder / "alignment.png", "cosine", "bp's gradient", self.rules)
        own = {rule: records for rule, records in self.rules.items() if all(r.cosine("own") for r in records)}
        if own:
            self._draw_angles(folder / "alignment-own.png", "own", "the rule's own true gradient", own)

    @styled
    def _draw_errors(self, path: Path) -> None:
        """The error of every rule by epoch, or its loss where targets are numbers."""
        epochs = [epoch for record in self.records for epoch in record.epochs]
        what = "accuracy" if all("accuracy" in epoch for epoch in epochs) else "loss"
        validated = all(f"val_{what}" in epoch for epoch in epochs)
        key, name = (f"val_{what}", "validation") if validated else (what, "training")

        def error(epoch: Mapping[str, Any]) -> float:
            return 100 * (1 - epoch[key]) if what == "accuracy" else float(epoch[key])

        errors = {
            rule: [[error(epoch) for epoch in record.epochs] for record in records]
            for rule, records in self.rules.items()
        }
        apart = len(errors) > MANY
        figure, grid = panels(len(errors), (2.6, 2.1), 4) if apart else panels(1, (6.2, 4.4), 1)
        for n, (rule, runs) in enumerate(errors.items()):
            axes = grid[n if apart else 0]
            if apart:
                axes.set_title(printable(rule), parse_math=False)
                if rule != "bp" and "bp" in errors:
                    reference(axes, "bp", errors["bp"])
            curves(axes, rule, runs)
        for axes in grid:
            errors_axis(axes, [error for runs in errors.values() for run in runs for error in run])
        unit = f"{name} error, %" if what == "accuracy" else f"{name} loss"
        if apart:
            dotted = "; dotted: bp" if "bp" in errors else ""
            figure.supylabel(f"{unit}{dotted}", fontsize="medium")
        else:
            grid[0].set_ylabel(unit)
            legend(figure, grid[0])
        figure.suptitle(printable(self.title), parse_math=False)
        save(figure, path)

    @styled
    def _draw_angles(self, path: Path, to: str, name: str, rules: Mapping[str, list[Record]]) -> None:
        """The angle to a true gradient by epoch: a panel for each layer; of many rules, for each rule."""
        layers = max(len(r.epochs[0][to]) for records in rules.values() for r in records)
        shown = range(0, layers, math.ceil(layers / MOST_PANELS))

        def angles(records: Sequence[Record], k: int) -> list[list[float]]:
            having = [r for r in records if k < len(r.epochs[0][to])]  # other nets have fewer layers
            return [[angle(epoch[to][k]) for epoch in r.epochs] for r in having]

        if len(rules) > MANY:
            figure, grid = panels(len(rules), (2.6, 2.1), 4)
            for axes, (rule, records) in zip(grid, rules.items(), strict=True):
                kept = [(f"layer {k + 1}", runs) for k in shown if (runs := angles(records, k))]
                by_layer(axes, [(label, _mean_by_epoch(runs)) for label, runs in kept])
                axes.set_title(printable(rule), parse_math=False)
        else:
            figure, grid = panels(len(shown), (2.6, 2.5), 4)
            for k, axes in zip(shown, grid, strict=True):
                for rule, records in rules.items():
                    if runs := angles(records, k):
                        curves(axes, rule, runs)
                axes.set_title(f"layer {k + 1}")
        figure.supylabel(f"angle to {name}, degrees", fontsize="medium")
        legend(figure, max(grid, key=lambda axes: len(axes.lines)))
        figure.suptitle(printable(self.title), parse_math=False)
        save(figure, path)


def _mean_by_epoch(runs: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(column) for column in zip(*runs, strict=True)]


def _layers(epoch: Mapping[str, Any]) -> list[int]:
    """How many layers were compared with each of the true gradients."""
    return [len(epoch.get(to) or ()) for to in TRUTHS]


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


def _named(values: Mapping[str, Any]) -> str:
    """Names and values as one would type them."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in values.items())


def _shown(value: object) -> str:
    """A value as one would type it, rounded to what a reader wants to know."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(list(value) if isinstance(value, tuple) else value)
