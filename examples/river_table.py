"""Prequential accuracy and time on the data sets in River's wheel, beside two of River's own models.

    python examples/river_table.py [--samples 20000] [--seeds 3]

Every model behind a `StandardScaler`, each sample predicted before it is learnt. Logistic regression knows two
classes; with more it is one against the rest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from river import datasets, evaluate, linear_model, metrics, multiclass, preprocessing, tree

from dualprop.river import DualPropClassifier

MODELS: dict[str, Callable[[int], Any]] = {
    "logistic regression": lambda seed: multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
    "Hoeffding tree": lambda seed: tree.HoeffdingTreeClassifier(),
    "DualPropClassifier": lambda seed: DualPropClassifier(seed=seed),
}
DATA = (datasets.Phishing, datasets.Bananas, datasets.ImageSegments, datasets.Shuttle)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000, help="of each data set, at most")
    parser.add_argument("--seeds", type=int, default=3, help="of the initial weights")
    a = parser.parse_args()
    torch.set_num_threads(1)
    print("| data | samples | model | accuracy % | ms a sample |\n" + "| --- " * 5 + "|")
    for kind in DATA:
        count = min(kind().n_samples, a.samples)
        for name, make in MODELS.items():
            accuracies, seconds = [], []
            for seed in range(a.seeds if "DualProp" in name else 1):
                begun = time.perf_counter()
                model = preprocessing.StandardScaler() | make(seed)
                score = evaluate.progressive_val_score(kind().take(count), model, metrics.Accuracy())
                accuracies.append(100 * score.get())
                seconds.append(time.perf_counter() - begun)
            spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
            each = 1000 * statistics.median(seconds) / count
            accuracy = f"{statistics.mean(accuracies):.2f}{spread}"
            print(f"| {kind.__name__} | {count:,} | {name} | {accuracy} | {each:.3f} |", flush=True)


if __name__ == "__main__":
    main()
