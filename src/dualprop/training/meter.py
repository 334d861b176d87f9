"""Loss, accuracy and top-5 accuracy over the samples seen, by torchmetrics; means of what the rule measured."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from dualprop.arguments import Count, CountOrZero, check
from dualprop.errors import DualpropError
from dualprop.rules.state import astray, restored
from dualprop.training.means import Means

if TYPE_CHECKING:
    from torchmetrics import Metric

ROWS = 1000  # judged together: for fewer, torchmetrics takes longer to be called than to count
TOP = {"accuracy": 1, "accuracy_top5": 5}
SUM = "mean_value"
"""torchmetrics' name for the sum of losses, which alone may be negative."""
Sums = dict[str, Annotated[tuple[float, Count], Field(strict=False)]]
"""Of measures, with how many each is of."""


class Tally:
    """What has been seen in some batches.

    Accuracies are of class indices: those in the largest output, or in the largest five of at least six.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.measures = Means()
        self._classes = 0
        self._metrics: dict[str, Metric] = {}
        self._pending: list[tuple[Tensor, Tensor]] = []

    def add(self, loss: float, output: Tensor, y: Tensor, measures: Mapping[str, float] | None = None) -> None:
        """Count one batch: its mean loss, outputs (B, ...), targets as a rule takes them, and measures."""
        if not self._metrics:
            self._make(0 if y.is_floating_point() else output.shape[1])
        self.samples += len(y)
        self._metrics["loss"].update(loss, len(y))
        self.measures.add(measures or {})
        if self._classes:
            self._pending.append((output, y))
            if sum(len(y) for _, y in self._pending) >= ROWS:
                self._judge()

    def clear(self) -> None:
        """Begin anew; metrics take longer to make than to clear."""
        self.samples, self.measures = 0, Means()
        self._pending.clear()
        for metric in self._metrics.values():
            metric.reset()

    def _make(self, classes: int) -> None:
        """Metrics for so many classes, none for targets that are no classes."""
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy

        alone: dict[str, Any] = {"sync_on_compute": False}  # every process sees the whole batch
        self._classes = classes
        # a NaN stays one; with "disable", torchmetrics 1.9 leaves the weights out as well
        self._metrics = {"loss": MeanMetric(nan_strategy=math.nan, **alone).set_dtype(torch.float64)}
        for name, k in TOP.items():
            if classes > k:
                judge = MulticlassAccuracy(classes, top_k=k, average="micro", validate_args=False, **alone)
                self._metrics[name] = judge

    def _judge(self) -> None:
        if self._pending:
            output, y = (torch.cat(side) for side in zip(*self._pending, strict=True))
            self._pending.clear()
            for name in TOP.keys() & self._metrics.keys():
                self._metrics[name].to(output.device).update(output, y)

    def means(self) -> dict[str, float]:
        """Loss and accuracies per sample."""
        self._judge()
        with warnings.catch_warnings():  # a metric whose state was merged takes itself for an empty one
            warnings.filterwarnings("ignore", "The ``compute`` method")
            computed = {name: metric.compute().cpu().numpy()[()] for name, metric in self._metrics.items()}
        return {name: float(str(number)) for name, number in computed.items()}  # 0.1, not 0.10000000149

    def numbers(self) -> dict[str, Any]:
        """Those, and what the rule measured as "measures", if anything."""
        own = self.measures()
        return {**self.means(), **({"measures": own} if own else {})}

    def merge(self, other: Tally) -> None:
        """Count all that the other has counted."""
        self._merge(**other.state_dict())

    def _merge(self, samples: int, classes: int, measures: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        self._judge()
        if metrics and not self._metrics:
            self._make(int(classes))
        for name, state in metrics.items():
            metric = self._metrics[name]
            metric.merge_state({key: value.to(metric.device) for key, value in state.items()})
        self.samples += int(samples)
        self.measures.merge(Means(measures))

    def state_dict(self) -> dict[str, Any]:
        """The counts, in plain containers."""
        self._judge()
        metrics = {name: dict(metric.metric_state) for name, metric in self._metrics.items()}
        return {
            "samples": self.samples,
            "classes": self._classes,
            "measures": dict(self.measures.sums),
            "metrics": metrics,
        }

    @classmethod
    def of(cls, state: Any, at: str) -> Tally:
        """What `state_dict` gave.

        Args:
            state: that.
            at: where it was kept, for errors.

        Raises:
            DualpropError: if it is not what any tally gives.
        """
        tally, kinds = cls(), {"samples": CountOrZero, "classes": CountOrZero, "measures": Sums, "metrics": Any}
        if set(check(at, state, dict[str, Any])) != set(kinds):
            raise DualpropError(f"{at}: holds {sorted(state)}, but it must hold {sorted(kinds)}")
        for name, kind in kinds.items():
            check(f"{at}.{name}", state[name], kind)
        if state["metrics"]:
            tally._make(state["classes"])
        metrics = restored(tally.state_dict()["metrics"], state["metrics"], f"{at}.metrics")
        if bad := next(astray(metrics, f"{at}.metrics"), None):
            raise DualpropError(f"{bad}: NaN or infinite")
        counts = [number for metric in metrics.values() for name, number in metric.items() if name != SUM]
        if any(bool((number < 0).any()) for number in counts):
            raise DualpropError(f"{at}.metrics: a count below 0")
        tally._merge(**state)
        return tally


class Meter:
    """What has been seen in an epoch, and that part of it which no record has told yet."""

    def __init__(self) -> None:
        self.told, self.untold, self._whole = Tally(), Tally(), Tally()

    def add(self, loss: float, output: Tensor, y: Tensor, measures: Mapping[str, float]) -> None:
        """Count one batch; see `Tally.add`."""
        self.untold.add(loss, output, y, measures)

    def also(self, measures: Mapping[str, float]) -> None:
        """What else was measured of the batch that was counted last."""
        self.untold.measures.add(measures)

    def tell(self) -> dict[str, Any]:
        """The numbers of the batches since this was last asked."""
        numbers = self.untold.numbers()
        self.told.merge(self.untold)
        self.untold.clear()
        return numbers

    def clear(self) -> None:
        """Begin anew."""
        self.told.clear()
        self.untold.clear()

    def whole(self) -> Tally:
        """All batches of the epoch."""
        self._whole.clear()
        self._whole.merge(self.told)
        self._whole.merge(self.untold)
        return self._whole

    def state_dict(self) -> dict[str, Any]:
        """Both parts."""
        return {"told": self.told.state_dict(), "untold": self.untold.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: if it is not what any meter gives.
        """
        if set(check("meter", state, dict[str, Any])) != {"told", "untold"}:
            raise DualpropError(f"meter: holds {sorted(state)}, but it must hold told and untold")
        self.told, self.untold = (Tally.of(state[name], f"meter.{name}") for name in ("told", "untold"))
