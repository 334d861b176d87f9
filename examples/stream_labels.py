"""Labels that come late, and labels that never come: dual propagation with delay lines on MNIST, one tick a frame.

    python examples/stream_labels.py OUT [--frames 20000]

784-128-128-10, ReLU, cross-entropy, β 0.1, the normalised step. Every label comes d ticks after its frame was at
the output, or a part of the labels, drawn at random, never. Every frame is judged, by what was said of it at the
output.
The rate is chosen for each of the five by the same grid on a stream of another seed. OUT gets `tuning.jsonl`,
`records.jsonl` and `table.md`; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dualprop as dp

STREAMS = {
    "all labels in time": (0, 0.0),
    "10 ticks late": (10, 0.0),
    "100 ticks late": (100, 0.0),
    "50 % missing": (0, 0.5),
    "90 % missing": (0, 0.9),
}
GRID, SEEDS, TUNING_SEED = (0.03, 0.1, 0.3), (0, 1, 2), 100


def run(stream: str, lr: float, seed: int, frames: int, data: tuple[Tensor, list[int]]) -> dict[str, Any]:
    """One pass over a stream; its record."""
    (late, missing), (xs, ys) = STREAMS[stream], data
    net = dp.nets.mlp([784, 128, 128, 10], generator=torch.Generator().manual_seed(seed))
    learner = dp.stream.Learner(net, pairing=dp.stream.Delayed(late), lr=lr)
    generator = torch.Generator().manual_seed(1000 + seed)
    order = torch.randperm(len(xs), generator=generator).tolist()[:frames]
    known = (torch.rand(len(order), generator=generator) >= missing).tolist()
    hits = []
    for number, i in enumerate(order):
        tick = learner.tick(xs[i])
        if tick.frame is not None and tick.output is not None:
            hits.append(int(tick.output.argmax()) == ys[order[tick.frame]])
        told = number + 1 - learner.latency - late  # its turn is at the next tick
        if told >= 0 and known[told]:
            learner.label(told, ys[order[told]])
    return {
        "stream": stream,
        "lr": lr,
        "seed": seed,
        "frames": len(order),
        "accuracy": sum(hits) / len(hits),
        "last 5,000": sum(hits[-5000:]) / len(hits[-5000:]),
        "labels missed": learner.missed,
        "versions": {"dualprop": dp.__version__, "torch": torch.__version__},
    }


def complete(path: Path, runs: list[tuple[str, float, int]], frames: int, data: Any) -> list[dict[str, Any]]:
    """Records of these runs; those that are missing are made."""
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for stream, lr, seed in runs:
        if (stream, lr, seed) in {(r["stream"], r["lr"], r["seed"]) for r in records}:
            continue
        records.append(run(stream, lr, seed, frames, data))
        with path.open("a") as file:
            file.write(json.dumps(records[-1]) + "\n")
        print(f"{stream:20s} lr {lr:<5g} seed {seed}: {records[-1]['accuracy']:.4f}", flush=True)
    return records


def table(records: list[dict[str, Any]]) -> str:
    """The records as Markdown."""
    lines = ["| labels | lr | accuracy % | each | last 5,000 % |\n" + "| --- " * 5 + "|"]
    for stream in STREAMS:
        of = [r for r in records if r["stream"] == stream]
        each, last = (torch.tensor([100 * r[name] for r in of]) for name in ("accuracy", "last 5,000"))
        lines.append(
            f"| {stream} | {of[0]['lr']:g} | {each.mean():.2f} ± {each.std():.2f} | "
            f"{', '.join(f'{a:.2f}' for a in each.tolist())} | {last.mean():.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Tune, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=20_000)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    split = dp.data.load("mnist").train
    images, labels = split.batch(torch.arange(len(split)))
    data = images.flatten(1).float() / 255, labels.tolist()
    grid = [(stream, lr, TUNING_SEED) for stream in STREAMS for lr in GRID]
    tuning = complete(a.out / "tuning.jsonl", grid, a.frames, data)
    best = {s: max((r for r in tuning if r["stream"] == s), key=lambda r: r["accuracy"])["lr"] for s in STREAMS}
    runs = [(stream, best[stream], seed) for seed in SEEDS for stream in STREAMS]
    records = complete(a.out / "records.jsonl", runs, a.frames, data)
    (a.out / "table.md").write_text(table(records))
    print(table(records))


if __name__ == "__main__":
    main()
