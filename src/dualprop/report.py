"""A comparison as a table (terminal, Markdown, CSV) and as plots of what happened on the way."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from dualprop.runs import Run, environment, read_json

COLUMNS = ("rule", "seeds", "test accuracy %", "s / epoch", "time ÷ bp", "cosine to bp")


@dataclass(frozen=True)
class Record:
    """One finished run: its rule, seed, result and the numbers of its epochs."""

    rule: str
    seed: int
    result: dict[str, Any]
    epochs: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a finished run folder."""
        run = Run.open(path)
        settings = run.settings
        epochs = [record for record in run.metrics() if record["kind"] == "epoch"]
        return cls(settings.rule, settings.seed, read_json(path / "result.json"), epochs)

    @property
    def cosine(self) -> float | None:
        """Mean over layers and epochs of the cosine to back-propagation's gradient."""
        cosines = [c for epoch in self.epochs for c in epoch.get("cosine", [])]
        return statistics.fmean(cosines) if cosines else None


@dataclass(frozen=True)
class Report:
    """Several runs of several rules on one setting."""

    title: str
    records: list[Record]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Report:
        """Read finished run folders, which share all settings but rule and seed."""
        s = Run.open(paths[0]).settings
        net = s.net if s.hidden is None else f"{s.net} {'-'.join(map(str, s.hidden))}"
        title = f"{s.data}, {net}, {s.loss}, {s.optimizer} {s.lr:g}, {s.epochs} epochs"
        return cls(title, [Record.read(path) for path in paths])

    @property
    def rules(self) -> dict[str, list[Record]]:
        """The records by rule, in the order they were run."""
        groups: dict[str, list[Record]] = {}
        for record in self.records:
            groups.setdefault(record.rule, []).append(record)
        return groups

    def rows(self) -> list[tuple[str, ...]]:
        """One row of words per rule, under `COLUMNS`."""
        seconds = {
            rule: statistics.median(r.result["seconds_per_epoch"] for r in records)
            for rule, records in self.rules.items()
        }
        rows: list[tuple[str, ...]] = []
        for rule, records in self.rules.items():
            accuracies = [100 * r.result["test_accuracy"] for r in records]
            spread = f" ± {statistics.stdev(accuracies):.2f}" if len(records) > 1 else ""
            cosines = [r.cosine for r in records if r.cosine is not None]
            rows.append(
                (
                    rule,
                    str(len(records)),
                    f"{statistics.fmean(accuracies):.2f}{spread}",
                    f"{seconds[rule]:.3g}",
                    f"{seconds[rule] / seconds['bp']:.2f}" if "bp" in seconds else "",
                    f"{statistics.fmean(cosines):.3f}" if cosines else "",
                )
            )
        return rows

    def markdown(self) -> str:
        """The table in Markdown, with what it was measured on."""
        lines = [COLUMNS, ("---",) * len(COLUMNS), *self.rows()]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        e = environment()
        where = f"{e['processor']}, {e['threads']} threads, torch {e['versions']['torch']}"
        notes = (
            "Mean ± standard deviation over seeds; seconds: median over seeds of the training part of an epoch; "
            "cosine: mean over layers, epochs and seeds."
        )
        return f"# {self.title}\n\n{table}\n\n{notes} Measured on {where}.\n"

    def csv(self) -> str:
        """The table as comma-separated values."""
        text = io.StringIO()
        csv.writer(text).writerows([COLUMNS, *self.rows()])
        return text.getvalue()

    def print(self) -> None:
        """The table in a terminal."""
        from rich.console import Console
        from rich.table import Table

        table = Table(*COLUMNS, title=self.title)
        for row in self.rows():
            table.add_row(*row)
        Console().print(table)

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
        layers = len(self.records[0].epochs[0]["cosine"])
        figure, panels = _panels(layers, (3.4 * layers + 1.2, 3.8))
        for k, axes in enumerate(panels):
            for rule, records in self.rules.items():
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


def _panels(count: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels side by side whose horizontal axis counts epochs."""
    figure = Figure(figsize=size, layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axes in panels:
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
