"""What the trainer costs besides learning: an epoch's time outside `rule.backward` and `optimizer.step`.

    python benchmarks/trainer.py [--rule dp] [--epochs 3] [--data mnist] [--hidden 1000,1000,1000]

Times whole epochs as `dualprop train` runs them: batches, progress, metrics, validation, gradient alignment and
checkpoint included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

import dualprop as dp
from dualprop.runs.folder import Run, environment
from dualprop.training.experiment import build
from dualprop.training.malloc import keep_memory
from dualprop.training.trainer import Trainer


class Clocked:
    """An object whose named methods add their time to `seconds`; everything else is the object's own."""

    def __init__(self, inner: Any, name: str) -> None:
        self.inner, self.seconds = inner, 0.0
        self.name = name

    def __getattr__(self, name: str) -> Any:
        return self._timed if name == self.name else getattr(self.inner, name)

    def _timed(self, *arguments: Any) -> Any:
        begun = time.perf_counter()
        result = getattr(self.inner, self.name)(*arguments)
        self.seconds += time.perf_counter() - begun
        return result


class ClockedRule(Clocked):
    def _timed(self, x: Tensor, y: Tensor) -> Iterator[dp.Step]:
        begun = time.perf_counter()
        rounds = self.inner.iterate(x, y)
        self.seconds += time.perf_counter() - begun
        while True:
            begun = time.perf_counter()
            step = next(rounds, None)
            self.seconds += time.perf_counter() - begun
            if step is None:
                return
            yield step


class ClockedTrainer(Trainer):
    """Notes the time of each part of each epoch."""

    def __init__(self, experiment: Any) -> None:
        super().__init__(experiment)
        self.parts: list[dict[str, float]] = []

    def _train_epoch(self, *arguments: Any) -> None:
        self.begun = time.perf_counter()
        e = self.experiment
        e.rule.seconds = e.optimizer.seconds = self.validation = self.saving = 0.0
        super()._train_epoch(*arguments)

    def evaluate(self, batches: Any) -> tuple[float, float]:
        begun = time.perf_counter()
        result = super().evaluate(batches)
        self.validation += time.perf_counter() - begun
        return result

    def _save(self, *arguments: Any) -> None:
        begun = time.perf_counter()
        super()._save(*arguments)
        self.saving += time.perf_counter() - begun

    def _close_epoch(self, *arguments: Any) -> dict[str, Any]:
        e = self.experiment
        learning = e.rule.seconds + e.optimizer.seconds
        numbers = super()._close_epoch(*arguments)
        whole = time.perf_counter() - self.begun
        parts = {"whole": whole, "learning": learning, "validation": self.validation, "checkpoint": self.saving}
        self.parts.append(parts)
        return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", default="dp")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--hidden", default="1000,1000,1000")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    a = parser.parse_args()
    keep_memory()  # as the command line does
    hidden = tuple(map(int, a.hidden.split(",")))
    settings = dp.Settings(
        rule=a.rule, data=a.data, hidden=hidden, lr=3e-5, epochs=a.epochs, precision=a.precision
    )
    experiment = build(settings)
    clocked = {
        "rule": ClockedRule(experiment.rule, "iterate"),
        "optimizer": Clocked(experiment.optimizer, "step"),
    }
    trainer = ClockedTrainer(type(experiment)(**{**vars(experiment), **clocked}))
    with tempfile.TemporaryDirectory() as folder:
        resolved = experiment.resolved.as_dict()
        trainer.fit(Run.create(Path(folder) / "run", settings, resolved, trainer.state_dict()))
    where = environment()
    machine = f"{where['processor']}, {where['threads']} threads, torch {where['versions']['torch']}"
    print(f"{machine}, n = {a.epochs} epochs")
    print("epoch s   learning s   validation   checkpoint   everything else   overhead in all")
    for p in trainer.parts:
        rest = p["whole"] - p["learning"] - p["validation"] - p["checkpoint"]
        shares = [
            100 * v / p["whole"] for v in (p["validation"], p["checkpoint"], rest, p["whole"] - p["learning"])
        ]
        print(f"{p['whole']:7.2f}   {p['learning']:10.2f}   " + "   ".join(f"{s:10.2f} %" for s in shares))
    overheads = [100 * (1 - p["learning"] / p["whole"]) for p in trainer.parts]
    print(f"median overhead {statistics.median(overheads):.2f} %")


if __name__ == "__main__":
    main()
