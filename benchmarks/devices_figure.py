"""Pictures of the records of `dualprop reproduce devices`: noise, bits, mismatch, and a gradient in noise.

python benchmarks/devices_figure.py results/devices    # writes noise.png and bits.png beside them
"""

from __future__ import annotations

import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualprop.runs.documents import read_json
from dualprop.studies import tables
from dualprop.studies._figure import COLOURS, look
from dualprop.studies.tables.makers import MEASUREMENT
from dualprop.studies.tables.records import Found, find, records

Line = Mapping[float, list[float]]
"""Test accuracies in %, a seed each, over what is drawn across."""

MARKERS = "osD^vP*X"


def lines(
    found: Sequence[Found],
    block: str,
    x: Callable[[Mapping[str, str]], float],
    label: Callable[[Mapping[str, str]], str],
) -> dict[str, Line]:
    """What was measured of one block's rows, by label.

    Args:
        found: all records.
        block: what the names of its rows begin with.
        x: from a row's place on its axes to where it is drawn.
        label: from there to its line's name.
    """
    by_label: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in found:
        if each.row.name.startswith(f"{block}-") and not each.differences and "test_accuracy" in each.numbers:
            at = each.row.at
            by_label[label(at)][x(at)].append(100 * each.numbers["test_accuracy"])
    return {name: by_label[name] for name in sorted(by_label, key=_by_numbers)}


def _by_numbers(name: str) -> list[tuple[float, str]]:
    """Words by the alphabet, numbers by their size."""
    parts = re.findall(r"[\d.]+|[^\d.]+", name)
    return [(float(part), "") if part[0].isdigit() else (-1.0, part) for part in parts]


def draw(axes: Axes, by_label: Mapping[str, Line], *, dashed: str = "", **words: str) -> None:
    """A line each, with a bar from the lowest to the highest seed.

    Args:
        axes: where.
        by_label: the lines.
        dashed: what the names of lines begin with that are dashed, in the colours of the others.
        words: titles of the axes.
    """
    whole = [name for name in by_label if not dashed or not name.startswith(dashed)]
    for name, line in by_label.items():
        own = name.removeprefix(dashed).strip() if name not in whole else name
        number = next((n for n, other in enumerate(whole) if other.endswith(own)), len(whole))
        xs = sorted(line)
        means = [statistics.fmean(line[x]) for x in xs]
        spans = [[m - min(line[x]) for m, x in zip(means, xs, strict=True)]]
        spans += [[max(line[x]) - m for m, x in zip(means, xs, strict=True)]]
        style = "-" if name in whole else "--"
        axes.errorbar(
            xs,
            means,
            spans,
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            color=COLOURS[number % len(COLOURS)],
            linestyle=style,
            label=name,
            capsize=2,
            linewidth=1.2,
        )
    axes.set(ylabel="test accuracy, %", **words)
    axes.grid(alpha=0.3)
    if by_label:
        axes.legend(fontsize=7)
    else:
        axes.text(0.5, 0.5, "no records yet", ha="center", transform=axes.transAxes)


def draw_errors(axes: Axes, folder: Path) -> None:
    """The relative error of a gradient over σ/β, for every rule and β; a dotted line of slope 1."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in sorted(folder.glob(f"gradient-*/{MEASUREMENT}")):
        record = read_json(path)
        rule, beta = record["settings"]["rule"], record["settings"]["rule_settings"]["beta"]
        for sigma, error in zip(record["series"]["sigma"], record["series"]["error"], strict=True):
            points[rule].append((sigma / beta, error))
    for marker, (rule, own) in zip(MARKERS, points.items(), strict=False):
        ratios, measured = zip(*sorted(own), strict=True)
        style = {**look(rule), "linestyle": "", "marker": marker, "markersize": 4, "alpha": 0.7}
        axes.loglog(ratios, measured, **style, label=rule)
    axes.loglog([1e-5, 1], [1e-5, 1], color="0.5", linestyle=":", label="slope 1")
    axes.set(xlabel="σ/β", ylabel="relative error", title="gradient in noise, untrained, one batch")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def beta(at: Mapping[str, str]) -> float:
    """Of a row, or of the word for what back-propagation's errors are multiplied by."""
    return float(at["beta"] if "beta" in at else at["on"].rpartition("beta ")[2])


def noise(found: Sequence[Found], folder: Path) -> None:
    """What a strong nudge is good for in noise."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2)

    def sigma(at: Mapping[str, str]) -> str:
        own = at["sigma"] if "sigma" in at else at["on"].removeprefix("sigma ").partition(",")[0]
        return f"{'bp, ' if at['rule'] == 'bp' else ''}σ = {own}"

    both = [each for each in found if each.row.rule == "dp" or "beta" in each.row.at.get("on", "")]
    over_beta = {"xscale": "log", "xlabel": "β"}
    draw(
        first,
        lines(both, "noise", beta, sigma),
        dashed="bp, ",
        title="dp; dashed: bp, its errors times β",
        **over_beta,
    )

    def scale(at: Mapping[str, str]) -> str:
        return at["full-scale"] if at["full-scale"].startswith("not") else f"full scale {at['full-scale']}"

    draw(second, lines(found, "amplitude", beta, scale), title="dp, noise of 5 % of full scale", **over_beta)

    def neurons(at: Mapping[str, str]) -> str:
        return f"{'bp, ' if at['rule'] == 'bp' else ''}{at['activation']}"

    noisy = [each for each in found if each.row.at.get("on", "").startswith("noise 0.05")]
    title = "neurons that saturate, noise of 5 %; dashed: bp"
    draw(third, lines(noisy, "saturating", beta, neurons), dashed="bp, ", title=title, **over_beta)
    draw_errors(fourth, folder)
    figure.savefig(folder / "noise.png", dpi=110)


def bits(found: Sequence[Found], folder: Path) -> None:
    """Few bits, and feedback through a second device."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2)

    def rule(at: Mapping[str, str]) -> str:
        return f"{at['rule']}, β {at['beta']}" if "beta" in at else at["rule"]

    def number(name: str) -> Callable[[Mapping[str, str]], float]:
        return lambda at: 8.0 if at[name] == "float" else float(at[name].split()[0])

    dp = [each for each in found if each.row.rule in ("dp", "bp")]
    words = {"xlabel": "bits; 8 stands for float"}
    draw(first, lines(dp, "bits", number("states"), rule), title="bits of states", **words)
    draw(second, lines(dp, "weight-bits", number("weights"), rule), title="bits of weights", xlabel="bits")

    ranges = lines(found, "range", beta, lambda at: at["states"])
    wide = [each for each in dp if each.row.at.get("states") in ("4 bits", "2 bits") and "beta" in each.row.at]
    ranges |= lines(wide, "bits", beta, lambda at: f"{at['states']}, p99")
    title = "range that holds all values, or some per cent; rounding"
    draw(third, ranges, xscale="log", xlabel="β", title=title)
    gains = [each for each in found if "gain" in each.row.at]
    by_gain = lines(gains, "mismatch", lambda at: float(at["gain"]), lambda at: at["rule"])
    draw(fourth, by_gain, title="feedback through a second device", xlabel="spread of its gains")
    figure.savefig(folder / "bits.png", dpi=110)


def main(folder: Path) -> None:
    """Both pictures."""
    found = find(tables.read("devices"), records([folder]))
    noise(found, folder)
    bits(found, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
