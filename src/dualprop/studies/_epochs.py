"""What a run recorded at the end of its epochs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from dualprop.arguments import Number, Portion, check_entries
from dualprop.errors import DualpropError

logger = logging.getLogger("dualprop")


def _is_cosine(value: float) -> float:
    if abs(value) > 1.001:
        raise ValueError("not in [-1, 1]")
    return value


Cosine = Annotated[float, AfterValidator(_is_cosine)]
"""From -1 to 1 but for rounding; NaN where a gradient was zero."""

EPOCH: dict[str, Any] = {
    "loss": Number,
    "accuracy": Portion | None,
    "val_loss": Number | None,
    "val_accuracy": Portion | None,
    "cosine": list[Cosine] | None,
    "own": list[Cosine] | None,
    "measures": dict[str, float] | None,
    "seconds": Number | None,
    "images_per_second": Number | None,
}
"""What a report reads of an epoch's record."""


def readable_epochs(path: Path, metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that have the numbers of an epoch; how many have not is a warning.

    Args:
        path: the run's folder.
        metrics: all records.
    """
    epochs = [record for record in metrics if record["kind"] == "epoch"]
    kept = [epoch for epoch in epochs if _is_epoch(epoch)]
    if gone := len(epochs) - len(kept):
        what = "1 epoch of other numbers" if gone == 1 else f"{gone} epochs of other numbers"
        logger.warning("%s: %s left out", path / "metrics.jsonl", what)
    return kept


def _is_epoch(epoch: Mapping[str, Any]) -> bool:
    try:
        check_entries(epoch, EPOCH)
    except DualpropError:
        return False
    return True


def errors_of(epochs: Sequence[Mapping[str, Any]]) -> tuple[str, Callable[[Mapping[str, Any]], float]]:
    """What a learning curve shows of epochs: of the validation if all have one, else of the training.

    Args:
        epochs: of all curves that are to be compared.

    Returns:
        What it is, an error in per cent or, where targets are numbers, a loss; and that of one epoch.
    """
    what = "accuracy" if all("accuracy" in epoch for epoch in epochs) else "loss"
    validated = all(f"val_{what}" in epoch for epoch in epochs)
    key, part = (f"val_{what}", "validation") if validated else (what, "training")
    if what == "loss":
        return f"{part} loss", lambda epoch: float(epoch[key])
    return f"{part} error, %", lambda epoch: 100 * (1 - epoch[key])
