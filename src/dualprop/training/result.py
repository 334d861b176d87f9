"""How a finished run went, and whether what its folder says of it hangs together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dualprop.arguments import Count, CountOrZero, NotNegative, Number, Portion, check_entries, checked
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs.folder import CHECKPOINT, Run


@checked
@dataclass(frozen=True)
class Result:
    """How a finished run went.

    Attributes:
        run: its folder.
        test_accuracy: of the best-validation weights on the test data, in [0, 1]; None where targets are numbers.
        test_loss: their mean loss there.
        best_epoch: the epoch that they come from, the last one if nothing was held out.
        val_accuracy: their accuracy on the validation data, None without any.
        seconds_per_epoch: mean wall time of the training part of an epoch.
        test_accuracy_top5: how often the class is among the five largest outputs; None below six classes.
        val_accuracy_top5: the same on the validation data.
    """

    run: str
    test_accuracy: Portion | None
    test_loss: Number
    best_epoch: Count
    val_accuracy: Portion | None
    seconds_per_epoch: NotNegative
    test_accuracy_top5: Portion | None = None
    val_accuracy_top5: Portion | None = None


def finished(run: Run, metrics: Sequence[Mapping[str, Any]] | None = None) -> Result | None:
    """The result of a run, or None while it is not finished.

    Args:
        run: the run.
        metrics: what is to be believed of its metrics, as `Run.metrics` gives them, which is the default.

    Raises:
        CheckpointError: if its result.json says what the rest of the folder does not: that another number of
            epochs was trained, or another result was measured. The checkpoint may be missing.
    """
    values = run.result
    if values is None:
        return None
    path = run.path / "result.json"
    try:
        result = Result(**{**values, "run": str(run.path)})  # it may have moved
    except DualpropError as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None
    if contradiction := _by_metrics(run.metrics() if metrics is None else metrics, result) or _by_checkpoint(
        run, result
    ):
        raise CheckpointError(
            f"{path}: {contradiction}; to test the run's weights again, remove {path.name} and resume it"
        )
    return result


def _by_metrics(metrics: Sequence[Mapping[str, Any]], result: Result) -> str | None:
    """What the metrics say against a result."""
    epochs = {record.get("epoch"): record for record in metrics if record["kind"] == "epoch"}
    test = next((record for record in reversed(metrics) if record["kind"] == "test"), None)
    if test is None:
        return "a result, but metrics.jsonl has no test"
    best = epochs.get(result.best_epoch, {})
    seconds = [record["seconds"] for record in epochs.values() if "seconds" in record]
    for what, ours, theirs in (
        ("accuracy {} of the test", result.test_accuracy, test.get("accuracy")),
        ("top-5 accuracy {} of the test", result.test_accuracy_top5, test.get("accuracy_top5")),
        ("loss {} of the test", result.test_loss, test.get("loss")),
        ("epoch {} of the test", result.best_epoch, test.get("epoch")),
        ("validation accuracy {}", result.val_accuracy, best.get("val_accuracy", result.val_accuracy)),
        (
            "top-5 validation accuracy {}",
            result.val_accuracy_top5,
            best.get("val_accuracy_top5", result.val_accuracy_top5),
        ),
    ):
        if theirs != ours:
            return f"{what.format(ours)}, but metrics.jsonl has {theirs}"
    if len(seconds) < max((n for n in epochs if isinstance(n, int)), default=1):
        return None  # a line could not be read, or has no time
    mean = sum(seconds) / len(seconds)
    if not math.isclose(result.seconds_per_epoch, mean, rel_tol=1e-6):
        return f"{result.seconds_per_epoch} seconds per epoch, but metrics.jsonl has {mean} of them"
    return None


def _by_checkpoint(run: Run, result: Result) -> str | None:
    """What the checkpoint, if there is one, says against a result."""
    if not (run.path / CHECKPOINT).exists():
        return None
    state, epochs = run.load(), run.settings.epochs
    try:
        check_entries(state, {"counters": dict[str, Any], "best": dict[str, Any]})
        counters, best = state["counters"], state["best"]
        check_entries(counters, {"epoch": CountOrZero})
        check_entries(best, {"numbers": dict[str, Any] | None})
    except DualpropError as error:
        raise CheckpointError(f"{run.path / CHECKPOINT}: not a checkpoint of this run ({error})") from None
    if counters["epoch"] != epochs:
        return f"a result, but {CHECKPOINT} is of epoch {counters['epoch']} of {epochs}"
    if best and (best.get("epoch"), best["numbers"].get("accuracy")) != (result.best_epoch, result.val_accuracy):
        return f"best_epoch {result.best_epoch}, but {CHECKPOINT} has {best.get('epoch')}"
    return None
