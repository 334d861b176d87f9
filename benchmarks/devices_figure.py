"""Two pictures of the records of `dualprop reproduce devices`: what a strong nudge is good for in noise.

python benchmarks/devices_figure.py results/devices    # writes noise.png beside them
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualprop.studies._figure import look
from dualprop.studies.tables.makers import MEASUREMENT

WORDS = ("ideal", "noise-0.2", "4-bit-states", "2-bit-states", "1-bit-weights")
BETAS = (0.1, 1.0, 10.0)


def accuracies(folder: Path) -> dict[str, dict[float, list[float]]]:
    """Test accuracies of dp in %, by what it was on and β."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for word in WORDS:
        for beta in BETAS:
            for path in sorted(folder.glob(f"dp-beta{beta:g}-on{word}-seed*/result.json")):
                found[word][beta].append(100 * json.loads(path.read_text())["test_accuracy"])
    return found


def errors(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """σ/β and the relative error of the gradient, by rule."""
    found = defaultdict(list)
    for path in sorted(folder.glob(f"gradient-*/{MEASUREMENT}")):
        record = json.loads(path.read_text())
        rule, beta = record["settings"]["rule"], record["settings"]["rule_settings"]["beta"]
        for sigma, error in zip(record["series"]["sigma"], record["series"]["error"], strict=True):
            found[rule].append((sigma / beta, error))
    return found


def draw_accuracies(axes: Axes, found: dict[str, dict[float, list[float]]]) -> None:
    """A line for everything that it was on, a bar from the lowest to the highest seed."""
    for number, (word, by_beta) in enumerate(found.items()):
        betas = sorted(by_beta)
        means = [statistics.fmean(by_beta[beta]) for beta in betas]
        spans = [
            [m - min(by_beta[b]) for m, b in zip(means, betas, strict=True)],
            [max(by_beta[b]) - m for m, b in zip(means, betas, strict=True)],
        ]
        axes.errorbar(betas, means, spans, marker="osD^v"[number], label=word.replace("-", " "), capsize=3)
    axes.set(xscale="log", xlabel="β", ylabel="test accuracy, %", title="dp on MNIST, 12,000 images, 2 epochs")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def draw_errors(axes: Axes, found: dict[str, list[tuple[float, float]]]) -> None:
    """All rules over σ/β; a dotted line of slope 1."""
    for marker, (rule, points) in zip("osD^vP", found.items(), strict=False):
        ratios, measured = zip(*sorted(points), strict=True)
        axes.loglog(
            ratios, measured, **{**look(rule), "linestyle": "", "marker": marker, "markersize": 5}, label=rule
        )
    axes.loglog([1e-5, 1], [1e-5, 1], color="0.5", linestyle=":", label="slope 1")
    axes.set(xlabel="σ/β", ylabel="relative error of the gradient", title="untrained, one batch")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def main(folder: Path) -> None:
    """Both, side by side."""
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_accuracies(left, accuracies(folder))
    draw_errors(right, errors(folder))
    figure.savefig(folder / "noise.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
