"""A comparison as a table (terminal, Markdown, CSV) and as plots of what happened on the way."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualprop.runs import Run, environment

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
        return cls(settings.rule, settings.seed, run.read_json("result.json"), epochs)

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
        hidden = "-".join(map(str, s.hidden))
        title = f"{s.data}, {s.net} {hidden}, {s.loss}, {s.optimizer} {s.lr:g}, {s.epochs} epochs"
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
                    f"{seconds[rule]:.2f}",
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
        self._plot(folder / "learning-curves.png", f"{name} accuracy, %", lambda epoch: 100 * epoch[key])
        if all(epoch.get("cosine") for r in self.records for epoch in r.epochs):
            self._plot_alignment(folder / "alignment.png")

    def _plot(self, path: Path, label: str, value: Callable[[dict[str, Any]], float]) -> None:
        """Mean over seeds by epoch, with a band from the lowest to the highest seed."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        for rule, records in self.rules.items():
            curves = [[value(epoch) for epoch in record.epochs] for record in records]
            at = range(1, len(curves[0]) + 1)
            columns = list(zip(*curves, strict=True))
            (line,) = axes.plot(at, [statistics.fmean(c) for c in columns], label=rule, marker=".")
            axes.fill_between(
                at, [min(c) for c in columns], [max(c) for c in columns], color=line.get_color(), alpha=0.15
            )
        axes.set(xlabel="epoch", ylabel=label, title=self.title)
        axes.grid(alpha=0.3)
        axes.legend(ncols=2)
        figure.savefig(path, dpi=120)

    def _plot_alignment(self, path: Path) -> None:
        """The cosine to back-propagation's gradient by epoch, one panel a layer."""
        from matplotlib.figure import Figure

        layers = len(self.records[0].epochs[0]["cosine"])
        figure = Figure(figsize=(3.2 * layers + 1, 3.6), layout="constrained")
        panels = figure.subplots(1, layers, sharey=True, squeeze=False)[0]
        for k, axes in enumerate(panels):
            for rule, records in self.rules.items():
                columns = zip(*([e["cosine"][k] for e in r.epochs] for r in records), strict=True)
                means = [statistics.fmean(c) for c in columns]
                axes.plot(range(1, len(means) + 1), means, label=rule, marker=".")
            axes.set(xlabel="epoch", title=f"layer {k + 1}")
            axes.grid(alpha=0.3)
        panels[0].set_ylabel("cosine to bp's gradient")
        panels[-1].legend(fontsize="small")
        figure.savefig(path, dpi=120)
