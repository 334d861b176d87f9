"""The figures of the tables of streams, from their records: `python examples/stream_figures.py [RESULTS]`.

`dualprop reproduce stream-hold --out results/stream-hold` makes the records, and so on for stream-clocks and
stream-permuted. Each table's picture is put beside its records.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualprop.studies import tables
from dualprop.studies.tables import Found
from dualprop.studies.tables.makers import MEASUREMENT

COLOURS = {
    "Delayed": "C0",
    "pipelined bp": "C9",
    "Present": "C1",
    "Sideways bp": "C8",
    "online bp": "C2",
    "online dp": "C6",
}
STEPS = {"centred": "C0", "sgd": "C1", "adam": "C2"}
DASHES = {"Delayed": "-", "online bp": "--", "pipelined bp": ":"}
DASHED = ("pipelined bp", "Sideways bp", "online dp")


def records(results: Path, table: str) -> list[Found]:
    """The records of a table that are complete."""
    found = tables.find(tables.read(table), tables.records([results / table]))
    return [each for each in found if each.record.complete]


def lines(axes: Axes, some: Sequence[Found], axis: str) -> None:
    """Accuracy by the place on an axis, a line for each rule: the mean over seeds, and the least and the most."""
    by: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in some:
        by[each.row.at["rule"]][float(each.row.at[axis])].append(100 * each.numbers["accuracy"])
    for rule, points in by.items():
        places = sorted(points)
        mean = [statistics.fmean(points[place]) for place in places]
        dash = "--" if rule in DASHED else "-"
        axes.plot(
            places,
            mean,
            dash,
            marker="o",
            markersize=3,
            color=COLOURS[rule],
            label=rule,
            zorder=3 + (dash == "--"),
        )
        low, high = ([end(points[place]) for place in places] for end in (min, max))
        axes.fill_between(places, low, high, color=COLOURS[rule], alpha=0.15, linewidth=0)
    axes.grid(alpha=0.3)


def hold(found: Sequence[Found], path: Path) -> None:
    """A row for held and drifting pictures, a column for each depth, as far as there are records."""
    blocks = [block for block in ("held", "drifting") if any(each.row.name.startswith(block) for each in found)]
    depths = sorted({each.row.at["L"] for each in found}, key=int)
    figure = Figure(figsize=(3 * len(depths) + 0.5, 2.7 * len(blocks)), layout="constrained")
    grid = figure.subplots(len(blocks), len(depths), sharex=True, sharey=True, squeeze=False)
    for row, block in zip(grid, blocks, strict=True):
        for axes, depth in zip(row, depths, strict=True):
            some = [each for each in found if each.row.name.startswith(block) and each.row.at["L"] == depth]
            lines(axes, some, "hold")
            axes.axvline(2 * int(depth) - 1, color="grey", linestyle=":", linewidth=1)
            axes.set_title(f"{block}, L = {depth}")
    for axes in grid[-1]:
        axes.set_xlabel("ticks a picture")
    for row in grid:
        row[0].set_ylabel("accuracy, %")
    grid[0][0].legend(fontsize=7, handlelength=4)
    figure.savefig(path, dpi=130)


def clocks(found: Sequence[Found], path: Path) -> None:
    """A panel for each clock."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    lines(left, [each for each in found if each.row.name.startswith("layers")], "ticks")
    lines(right, [each for each in found if each.row.name.startswith("one")], "frames")
    left.set(title="every layer a processor", xlabel="ticks a frame (a sweep: 5)", ylabel="accuracy, %")
    right.set(title="one processor", xlabel="frames a sweep")
    left.legend(fontsize=7, handlelength=4)
    right.legend(fontsize=7, handlelength=4)
    figure.savefig(path, dpi=130)


def permuted(found: Sequence[Found], path: Path) -> None:
    """Accuracy and silent units in each period, mean over seeds: a row for the short stream and one for the whole.

    A colour for each step, a dash for each rule.
    """
    by: dict[str, dict[tuple[str, str], list[dict[str, list[float]]]]] = defaultdict(lambda: defaultdict(list))
    for each in found:
        series = json.loads((each.path / MEASUREMENT).read_text())["series"]
        by[each.row.name.split("-")[0]][each.row.at["rule"], each.row.at["step"]].append(series)
    figure = Figure(figsize=(9, 3 * len(by) + 0.8), layout="constrained")
    grid = figure.subplots(len(by), 2, squeeze=False)
    for pair, length in zip(grid, sorted(by, reverse=True), strict=True):
        for axes, name, words in zip(
            pair, ("by_period", "dead"), ("accuracy in it, %", "silent units, %"), strict=True
        ):
            for (rule, step), runs in by[length].items():
                columns = zip(*(run[name] for run in runs), strict=True)
                mean = [100 * statistics.fmean(column) for column in columns]
                look = {"color": STEPS[step], "linestyle": DASHES[rule], "linewidth": 1.2}
                axes.plot(range(1, len(mean) + 1), mean, label=f"{rule}, {step}", **look)
            axes.set(xlabel="permutation", ylabel=words)
            axes.grid(alpha=0.3)
    figure.legend(
        *grid[0][0].get_legend_handles_labels(), fontsize=7, handlelength=4, ncols=3, loc="outside lower center"
    )
    figure.savefig(path, dpi=130)


def main() -> None:
    """Draw what there is."""
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
    for table, draw in (("stream-hold", hold), ("stream-clocks", clocks), ("stream-permuted", permuted)):
        found = records(results, table)
        if found:
            draw(found, results / table / "curves.png")
            print(results / table / "curves.png")


if __name__ == "__main__":
    main()
