"""What the trainer costs besides learning: an epoch's time outside the rule's gradients and the optimizer's steps.

    python benchmarks/trainer.py [--rule dp] [--epochs 3] [--data mnist] [--hidden 1000,1000,1000]

Times whole epochs as `dualprop train` runs them: batches, progress, metrics, validation, gradient alignment and
checkpoint included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dualprop as dp
from dualprop.runs.environment import environment
from dualprop.runs.folder import Run
from dualprop.training.experiment import build
from dualprop.training.malloc import keep_memory
from dualprop.training.start import fit
from dualprop.training.threads import computing_in


class Clock:
    """What each epoch's time went into."""

    def __init__(self) -> None:
        self.parts: list[Counter[str]] = []
        self.begin()

    def begin(self) -> None:
        self.spent: Counter[str] = Counter()  # seconds by name, in this epoch
        self.begun = time.perf_counter()

    def close(self) -> None:
        self.parts.append(self.spent)
        self.spent["whole"] = time.perf_counter() - self.begun
        self.begin()

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time counted."""

        def run(*arguments: Any) -> Any:
            begun = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self.spent[name] += time.perf_counter() - begun

        return run

    def timed_items(self, name: str, call: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """An iterator's items, the time that each takes counted."""

        def run(*arguments: Any) -> Iterator[Any]:
            items = iter(call(*arguments))
            following = self.timed(name, lambda: next(items, None))
            while (item := following()) is not None:
                yield item

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", default="dp")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--hidden", default="1000,1000,1000")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    a = parser.parse_args()
    keep_memory()  # as the command line does
    hidden = tuple(map(int, a.hidden.split(",")))
    own: dict[str, Any] = {"rule": a.rule, "data": a.data, "hidden": hidden, "precision": a.precision}
    experiment = build(dp.Settings(lr=3e-5, epochs=a.epochs, batch_size=a.batch_size, checkpoint_every=1e9, **own))
    trainer, validation, clock = experiment.trainer, experiment.validation, Clock()
    trainer.rule.iterate = clock.timed_items("learning", trainer.rule.iterate)
    trainer.optimizer.step = clock.timed("learning", trainer.optimizer.step)
    validation.epoch = clock.timed("validation", validation.epoch)
    with tempfile.TemporaryDirectory() as folder, computing_in(experiment.resolved.threads):
        resolved = experiment.resolved.as_dict()
        run = Run.create(Path(folder) / "run", experiment.settings, resolved, trainer.state_dict())
        save = clock.timed("checkpoint", run.save)

        def save_and_close(checkpoint: dict[str, Any]) -> None:
            """A checkpoint is the last that is done in an epoch."""
            save(checkpoint)
            clock.close()

        run.save = save_and_close
        where = environment()
        clock.begin()
        fit(experiment, run)
    machine = f"{where['processor']}, {where['threads']} threads, torch {where['versions']['torch']}"
    print(f"{machine}, n = {a.epochs} epochs")
    print("epoch s   learning s   validation   checkpoint   everything else   overhead in all")
    for p in clock.parts:
        rest = p["whole"] - p["learning"] - p["validation"] - p["checkpoint"]
        shares = [
            100 * v / p["whole"] for v in (p["validation"], p["checkpoint"], rest, p["whole"] - p["learning"])
        ]
        print(f"{p['whole']:7.2f}   {p['learning']:10.2f}   " + "   ".join(f"{s:10.2f} %" for s in shares))
    overheads = [100 * (1 - p["learning"] / p["whole"]) for p in clock.parts]
    print(f"median overhead {statistics.median(overheads):.2f} %")


if __name__ == "__main__":
    main()
