"""A comparison as a table (terminal, Markdown, CSV) and as plots of what happened on the way."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import TABLEAU_COLORS
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from dualprop.runs.folder import Run, environment, read_json
from dualprop.runs.settings import Settings
from dualprop.training.means import Means
from dualprop.training.resolved import net_arguments

COLUMNS = ("rule", "seeds", "test accuracy %", "s / epoch", "time ÷ bp", "cosine to bp")
PRODUCTS = "products / batch"
"""A column more, where a rule counts its matrix products."""

NOTES = (
    "Mean ± standard deviation over seeds; seconds: median over seeds of the training part of an epoch; cosine: "
    "mean over layers, epochs and seeds; products: of matrices, that a rule counts in its inference of a batch "
    "(those for the gradient left out, and bp counts none)."
)
"""What the columns mean."""


@dataclass(frozen=True)
class Record:
    """One finished run: its settings, the net that was made of them, result and the numbers of its epochs."""

    settings: Settings
    net: Mapping[str, Any]
    result: dict[str, Any]
    epochs: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a finished run folder."""
        run = Run.open(path)
        epochs = [record for record in run.metrics() if record["kind"] == "epoch"]
        settings, resolved = run.settings, run.resolved
        net = resolved["net"] if resolved else net_arguments(settings, (), 0)
        return cls(settings, net, read_json(path / "result.json"), epochs)

    @property
    def cosine(self) -> float | None:
        """Mean over layers and epochs of the cosine to back-propagation's gradient."""
        cosines = [c for epoch in self.epochs for c in epoch.get("cosine", [])]
        return statistics.fmean(cosines) if cosines else None

    def choices(self) -> dict[str, Any]:
        """All that was chosen for it besides rule and seed, what was left to the rule included."""
        s, others = self.settings, ("rule", "seed", "rule_settings")
        chosen = [f.name for f in fields(s) if f.metadata["identity"] and f.name not in others]
        own = {name: self.net.get(name) for name in ("activation", "pool", "init")}
        return {**{name: getattr(s, name) for name in chosen}, **own}


@dataclass(frozen=True)
class Report:
    """Several runs of several rules.

    Args:
        title: what they share.
        records: the finished runs.
        diverged: for each run that did not come to its end, by its folder's name, why.
    """

    title: str
    records: list[Record]
    diverged: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Sequence[Path], diverged: Mapping[str, str] | None = None) -> Report:
        """Read finished run folders."""
        records = [Record.read(path) for path in paths]
        s = records[0].settings
        shared = {name for name, values in _values(records).items() if len(values) == 1}
        net = s.net if s.hidden is None else f"{s.net} {'-'.join(map(str, s.hidden))}"
        parts = {
            ("data",): s.data,
            ("net", "hidden"): net,
            ("loss",): s.loss,
            ("optimizer", "lr"): f"{s.optimizer} {s.lr:g}",
            ("epochs",): f"{s.epochs} epochs",
        }
        title = ", ".join(text for names, text in parts.items() if shared.issuperset(names))
        return cls(title, records, diverged or {})

    @property
    def rules(self) -> dict[str, list[Record]]:
        """The records by rule, in the order they were run."""
        groups: dict[str, list[Record]] = {}
        for record in self.records:
            groups.setdefault(record.settings.rule, []).append(record)
        return groups

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return (*COLUMNS, PRODUCTS) if "products" in _means(self.records) else COLUMNS

    def rows(self) -> list[tuple[str, ...]]:
        """One row of words per rule, under `columns`."""
        seconds = {
            rule: statistics.median(r.result["seconds_per_epoch"] for r in records)
            for rule, records in self.rules.items()
        }
        rows: list[tuple[str, ...]] = []
        for rule, records in self.rules.items():
            accuracies = [100 * r.result["test_accuracy"] for r in records]
            spread = f" ± {statistics.stdev(accuracies):.2f}" if len(records) > 1 else ""
            cosines = [r.cosine for r in records if r.cosine is not None]
            products = _means(records).get("products")
            row = (
                rule,
                str(len(records)),
                f"{statistics.fmean(accuracies):.2f}{spread}",
                f"{seconds[rule]:.3g}",
                f"{seconds[rule] / seconds['bp']:.2f}" if "bp" in seconds else "",
                f"{statistics.fmean(cosines):.3f}" if cosines else "",
                f"{products:.4g}" if products else "",
            )
            rows.append(row[: len(self.columns)])
        return rows

    def remarks(self) -> list[str]:
        """What is not the same for every rule, what the rules measured, and which runs diverged: a line each."""
        firsts = {rule: records[0] for rule, records in self.rules.items()}
        lines = []
        for name, values in _values(self.records).items():
            if len(values) > 1:
                having: dict[Any, list[str]] = {}
                for rule, record in firsts.items():
                    having.setdefault(record.choices()[name], []).append(rule)
                lines.append(f"{name}: {'; '.join(f'{v} for {_listed(rules)}' for v, rules in having.items())}")
        for rule, record in firsts.items():
            if own := record.settings.rule_settings:
                lines.append(f"{rule} has {_named(own)}")
        for rule, records in self.rules.items():
            measured = {name: value for name, value in _means(records).items() if name != "products"}
            if measured:
                lines.append(f"{rule} measured, in the mean over its batches, {_named(measured)}")
        return lines + [f"{name} diverged: {why}" for name, why in self.diverged.items()]

    def markdown(self) -> str:
        """The table in Markdown, with what it was measured on."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows()]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        e = environment()
        where = f"Measured on {e['processor']}, {e['threads']} threads, torch {e['versions']['torch']}."
        remarks = "\n".join(f"- {line}" for line in (NOTES, *self.remarks(), where))
        return f"# {self.title}\n\n{table}\n\n{remarks}\n"

    def csv(self) -> str:
        """The table as comma-separated values."""
        text = io.StringIO()
        csv.writer(text).writerows([self.columns, *self.rows()])
        return text.getvalue()

    def print(self) -> None:
        """The table in a terminal."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=self.title)
        for name in self.columns:
            table.add_column(name, no_wrap=name == "rule")
        for row in self.rows():
            table.add_row(*row)
        console = Console(markup=False, highlight=False)
        console.print(table)
        for line in self.remarks():
            console.print(f"- {line}")

    def write(self, folder: Path) -> None:
        """Write table.md, table.csv, learning-curves.png and alignment.png."""
        (folder / "table.md").write_text(self.markdown())
        (folder / "table.csv").write_text(self.csv())
        validated = all("val_accuracy" in epoch for r in self.records for epoch in r.epochs)
        key, name = ("val_accuracy", "validation") if validated else ("accuracy", "training")
        figure, (axes,) = _panels(1, (7.5, 4.5))
        for rule, records in self.rules.items():
            curves = [[100 * (1 - epoch[key]) for epoch in record.epochs] for record in records]
            _draw(axes, rule, curves)
        axes.set(ylabel=f"{name} error, %", title=self.title, yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.legend(ncols=2)
        figure.savefig(folder / "learning-curves.png", dpi=120)
        if all(epoch.get("cosine") for r in self.records for epoch in r.epochs):
            self._plot_angles(folder / "alignment.png")

    def _plot_angles(self, path: Path) -> None:
        """The angle to back-propagation's gradient by epoch, one panel a layer."""
        layers = max(len(r.epochs[0]["cosine"]) for r in self.records)
        figure, panels = _panels(layers, (3.4 * layers + 1.2, 3.8))
        for k, axes in enumerate(panels):
            for rule, records in self.rules.items():
                if len(records[0].epochs[0]["cosine"]) <= k:
                    continue  # its net has fewer layers
                curves = [
                    [math.degrees(math.acos(max(-1.0, min(1.0, epoch["cosine"][k])))) for epoch in r.epochs]
                    for r in records
                ]
                _draw(axes, rule, curves)
            axes.set_title(f"layer {k + 1}")
        panels[0].set_ylabel("angle to bp's gradient, degrees")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
        figure.suptitle(self.title, fontsize="medium")
        figure.savefig(path, dpi=120)


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


def _listed(names: Sequence[str]) -> str:
    """Names as one says them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _named(values: Mapping[str, Any]) -> str:
    """Names and values as one would type them."""
    shown = {name: f"{v:.4g}" if isinstance(v, float) else v for name, v in values.items()}
    return ", ".join(f"{name}={list(v) if isinstance(v, tuple) else v}" for name, v in shown.items())


_STYLES = cycler(linestyle=["-", "--"]) * cycler(color=tuple(TABLEAU_COLORS))  # for twenty rules


def _panels(count: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels side by side whose horizontal axis counts epochs."""
    figure = Figure(figsize=size, layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axes in panels:
        axes.set_prop_cycle(_STYLES)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3, which="both")
    return figure, panels


def _draw(axes: Axes, rule: str, curves: Sequence[Sequence[float]]) -> None:
    """The mean of the seeds' curves, with a band from the lowest to the highest."""
    columns = list(zip(*curves, strict=True))
    epochs = range(1, len(columns) + 1)
    (line,) = axes.plot(epochs, [statistics.fmean(c) for c in columns], label=rule, linewidth=1.5)
    axes.fill_between(
        epochs, [min(c) for c in columns], [max(c) for c in columns], color=line.get_color(), alpha=0.12
    )
