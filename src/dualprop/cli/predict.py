"""`dualprop predict`: what a run's net says of samples of one's own."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, TextIO

import torch
from cyclopts import Parameter

from dualprop.data import read_inputs
from dualprop.errors import DualpropError, printable
from dualprop.training.predictor import Predictor


def predict(
    run: Path,
    file: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"), show_default="standard output")] = None,
    device: str = "auto",
) -> None:
    """Predict, a line of CSV for each sample.

    Args:
        run: The run folder.
        file: An image, a folder of images, an array (.npy) or a table of numbers (.csv).
        out: The file to make.
        device: auto, cpu, cuda or mps.
    """
    if out is not None and out.exists():
        raise DualpropError(f"out={out}: exists; choose another file")
    rows = _rows(Predictor.open(run, device), file)
    begun = itertools.chain([next(rows), next(rows)], rows)  # what is wrong is an error before anything is written
    if out is None:
        _write(begun, sys.stdout)
        return
    with out.open("x", encoding="utf-8", newline="") as opened:
        _write(begun, opened)
    print(printable(f"predictions: {out}"))


def _write(rows: Iterable[list[str]], opened: TextIO) -> None:
    csv.writer(opened, lineterminator="\n").writerows([printable(cell) for cell in row] for row in rows)


def _rows(predictor: Predictor, file: Path) -> Iterator[list[str]]:
    """A row of names, and one for each sample."""
    classes = predictor.form.classes
    likely = "probability" if predictor.settings.loss == "cross_entropy" else "output"
    inputs = read_inputs(file, predictor.form, predictor.settings.background)
    scored = ((names, predictor.scores(x).flatten(1).cpu()) for names, x in inputs)
    first = next(scored)
    outputs = [f"y{k}" for k in range(1, first[1].shape[1] + 1)]
    yield ["sample", "class", likely] if classes else ["sample", *outputs]
    for names, scores in itertools.chain([first], scored):
        best, label = torch.max(scores, 1)
        for name, row, score, k in zip(names, scores.tolist(), best.tolist(), label.tolist(), strict=True):
            yield [name, classes[k], f"{score:.4f}"] if classes else [name, *(f"{y:.6g}" for y in row)]
