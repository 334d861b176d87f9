"""Records of made-up numbers: run folders of a small table of our own."""

import json
from pathlib import Path

import torch

from dualprop.runs.folder import Run
from dualprop.runs.pictures import Pictures
from dualprop.studies import tables
from tests.studies.bench.test_report import ENVIRONMENT

TABLE = """
title = "Digits"
claim = "Dual propagation is as accurate as back-propagation."
paper = "A paper"
place = "Table 1"

[metrics.test_accuracy]
title = "test accuracy %"
scale = 100
margin = 0.1

[[blocks]]
settings = { data = "digits", net = "mlp", hidden = [8], epochs = 4 }
axes.rule = ["bp", "dp", "l-dp"]
published = [
  { at.rule = "bp", values.test_accuracy = [90.0, 0.5] },
  { at.rule = "dp", values.test_accuracy = [90.0, 0.5] },
  { at.rule = "l-dp", values.test_accuracy = 90.0 },
]
"""


def table_file(folder: Path) -> Path:
    """The table's definition, in a file."""
    path = folder / "small.toml"
    path.write_text(TABLE, encoding="utf-8")
    return path


def record(
    folder: Path, name: str, rule="dp", seed=0, test=0.9, *, settings=None, finished=True, epochs=None
) -> Path:
    """Write a run folder of the table above, with other settings; its path."""
    row = next(row for row in tables.read(table_file(folder.parent)).rows if row.rule == rule)
    path = folder / name
    path.mkdir(parents=True)
    chosen = row.settings(seed, {**(settings or {}), **({"epochs": epochs} if epochs else {})})
    epochs = [
        {
            "kind": "epoch",
            "step": 10 * n,
            "epoch": n,
            "loss": 1 / n,
            "accuracy": 0.8,
            "val_loss": 0.5,
            "val_accuracy": 0.5 + 0.1 * n + 0.01 * seed,
            "cosine": [0.9, 1.0] if rule == "bp" else [0.5 + 0.1 * n, 0.9],
        }
        for n in range(1, chosen.epochs + 1)
    ]
    tested = {"kind": "test", "step": 10 * chosen.epochs, "epoch": 1, "accuracy": test, "loss": 0.2}
    lines = [*epochs, *([tested] if finished else [])]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = {
        "run": "",
        "test_accuracy": test,
        "test_loss": 0.2,
        "best_epoch": 1,
        "val_accuracy": epochs[0]["val_accuracy"],
        "seconds_per_epoch": 1800.0,
    }
    files = {"settings": chosen.as_dict(), "environment": ENVIRONMENT, **({"result": result} if finished else {})}
    for file, values in files.items():
        (path / f"{file}.json").write_text(json.dumps(values), encoding="utf-8")
    return path


def keep_pictures(path: Path) -> None:
    """Filters and states for a run folder."""
    numbers = torch.Generator().manual_seed(0)
    arrays = {f"filters/{i}": torch.randn(1, 8, 8, generator=numbers) for i in range(9)}
    arrays |= {
        f"{kind}/{k}": torch.randn(n, generator=numbers)
        for kind in ("mean", "difference")
        for k, n in ((1, 8), (2, 10))
    }
    Pictures.of(arrays, {"crossed/1": 0.125}).write(Run.open(path))
