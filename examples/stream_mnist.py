"""One tick a frame over MNIST: dual propagation, with delay lines and without, beside back-propagation.

    python examples/stream_mnist.py OUT [--frames 60000]

784-128-128-10, ReLU, cross-entropy, pixels in [0, 1], one pass in a random order, every frame judged when it is at
the output and before its label acts. All methods run in the same learner; they differ in two things:

| method | what the error meets | what it is there |
| --- | --- | --- |
| Delayed | the drive and the state below of its own frame, from a delay line | f(a + e/2) - f(a - e/2) |
| pipelined bp | the same (arXiv 2003.11666) | f'(a) e |
| Present | the drive of now; the nudged mean goes up | f(a + e/2) - f(a - e/2) |
| Sideways bp | the drive of now (arXiv 2001.06232); f(a) goes up | f'(a) e |
| online bp | its own frame: a whole sweep up and down at every tick | f'(a) e |

The step and its rate are chosen for each method by the same grid on a stream of another seed, by the accuracy over
the whole of it. OUT gets `tuning.jsonl`, `records.jsonl`, `table.md` and `curves.png`; what is there is not run
again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dualprop as dp
from dualprop.nets.potentials.relu import ReLU

GRID = {"normalised": (0.03, 0.1, 0.3, 1.0), "sgd": (0.0003, 0.001, 0.003, 0.01, 0.03)}
SEEDS, TUNING_SEED = (0, 1, 2), 100
SIZES, EVERY = [784, 128, 128, 10], 1000


@dataclass(frozen=True)
class TrueSlope(ReLU):
    """A ReLU whose two states differ by f'(a) e, as back-propagation has it."""

    def dyad(
        self, a: Tensor, d: Tensor, up: float, down: float, share: float, out: Any = None
    ) -> tuple[Tensor, Tensor]:
        """f(a), and (up + down) f'(a) d."""
        return torch.relu(a), (up + down) * d * (a > 0)


class NoMemory(dp.stream.Present):
    """An error meets the drive of now, and f(a) goes up."""

    forward = True


class Backward(dp.Schedule):
    """Up through all layers, then down from the one below the output."""

    def updates(self, depth: int, generator: torch.Generator) -> Iterator[dp.schedules.Update]:
        """Layers 1..L, L-1..1."""
        yield from (dp.schedules.Update((k,)) for k in (*range(1, depth + 1), *range(depth - 1, 0, -1)))


METHODS: dict[str, tuple[str | ReLU, dict[str, Any]]] = {
    "Delayed": ("relu", {"pairing": dp.stream.Delayed()}),
    "pipelined bp": (TrueSlope(), {"pairing": dp.stream.Delayed()}),
    "Present": ("relu", {"pairing": dp.stream.Present()}),
    "Sideways bp": (TrueSlope(), {"pairing": NoMemory()}),
    "online bp": (TrueSlope(), {"pairing": NoMemory(), "schedule": Backward()}),
}


def made(method: str, step: str, lr: float, seed: int) -> dp.stream.Learner:
    """A learner of a method; all methods start from the same weights."""
    hidden, settings = METHODS[method]
    generator = torch.Generator().manual_seed(seed)
    synapses = [dp.Dense(i, o, generator=generator) for i, o in pairwise(SIZES)]
    potentials = [hidden] * (len(synapses) - 1) + ["linear"]
    net = dp.Net([dp.Layer(*pair) for pair in zip(synapses, potentials, strict=True)])
    return dp.stream.Learner(net, beta=0.1, step=step, lr=lr, **settings)


def run(
    method: str, step: str, lr: float, seed: int, frames: int, data: tuple[Tensor, list[int]]
) -> dict[str, Any]:
    """One pass over a stream; its record."""
    learner, (xs, ys) = made(method, step, lr, seed), data
    order = torch.randperm(len(xs), generator=torch.Generator().manual_seed(1000 + seed)).tolist()[:frames]
    hits, curve = 0, []
    for number, i in enumerate(order, 1):
        correct = learner.tick(xs[i], ys[i]).correct
        hits += correct or 0
        if number % EVERY == 0:
            curve.append(hits)
    with dp.counting() as counts:
        learner.tick(xs[0], ys[0])
    judged = len(order) - learner.latency
    last = min(10, len(curve) - 1)
    return {
        "method": method,
        "step": step,
        "lr": lr,
        "seed": seed,
        "frames": len(order),
        "accuracy": hits / judged,
        "last 10,000": (curve[-1] - curve[-1 - last]) / (last * EVERY) if last else None,
        "hits every 1000 frames": curve,
        "products a frame": counts.total.products,
        "versions": {"dualprop": dp.__version__, "torch": torch.__version__},
    }


def done(path: Path) -> list[dict[str, Any]]:
    """The records in a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def complete(path: Path, runs: list[tuple[str, str, float, int]], frames: int, data: Any) -> list[dict[str, Any]]:
    """Records of these runs; those that are missing are made."""
    records = done(path)
    for method, step, lr, seed in runs:
        kept = {(r["method"], r["step"], r["lr"], r["seed"]) for r in records}
        if (method, step, lr, seed) in kept:
            continue
        records.append(run(method, step, lr, seed, frames, data))
        with path.open("a") as file:
            file.write(json.dumps(records[-1]) + "\n")
        print(f"{method:13s} {step:10s} lr {lr:<7g} seed {seed}: {records[-1]['accuracy']:.4f}", flush=True)
    return records


def chosen(tuning: list[dict[str, Any]]) -> dict[str, tuple[str, float]]:
    """The best step of each method."""
    best = {m: max((r for r in tuning if r["method"] == m), key=lambda r: r["accuracy"]) for m in METHODS}
    return {method: (record["step"], record["lr"]) for method, record in best.items()}


def table(records: list[dict[str, Any]]) -> str:
    """The records as Markdown."""
    lines = [
        "| method | step | lr | accuracy % | each | last 10,000 % | products a frame |\n" + "| --- " * 7 + "|"
    ]
    for method in METHODS:
        of = [r for r in records if r["method"] == method]
        each, last = (torch.tensor([100 * r[name] for r in of]) for name in ("accuracy", "last 10,000"))
        lines.append(
            f"| {method} | {of[0]['step']} | {of[0]['lr']:g} | {each.mean():.2f} ± {each.std():.2f} | "
            f"{', '.join(f'{a:.2f}' for a in each.tolist())} | {last.mean():.2f} | {of[0]['products a frame']} |"
        )
    return "\n".join(lines) + "\n"


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Accuracy so far, the mean over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for method in METHODS:
        hits = torch.tensor([r["hits every 1000 frames"] for r in records if r["method"] == method]).double()
        frames = EVERY * torch.arange(1, hits.shape[1] + 1)
        axes.plot(frames.numpy(), (100 * hits.mean(0) / frames).numpy(), label=method)
    axes.set(xlabel="frames", ylabel="accuracy so far, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Tune, run, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=60_000)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    split = dp.data.load("mnist").train
    images, labels = split.batch(torch.arange(len(split)))
    data = images.flatten(1).float() / 255, labels.tolist()
    grid = [(m, step, lr, TUNING_SEED) for step, lrs in GRID.items() for lr in lrs for m in METHODS]
    best = chosen(complete(a.out / "tuning.jsonl", grid, a.frames, data))
    runs = [(m, *best[m], seed) for seed in SEEDS for m in METHODS]
    records = complete(a.out / "records.jsonl", runs, a.frames, data)
    (a.out / "table.md").write_text(table(records))
    draw(records, a.out / "curves.png")
    print(table(records))


if __name__ == "__main__":
    main()
