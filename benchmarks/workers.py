"""Workers in processes of their own: how fast, what a kill costs, and how long pipelines of many would stand idle.

python benchmarks/workers.py speed [--nets mlp vgg_like] [--epochs 1]    images/s beside one process
python benchmarks/workers.py kills [--every 0 60 10] [--seeds 3]           a worker killed every so many seconds
python benchmarks/workers.py pipeline [--net vgg16]                      in flight beside GPipe and 1F1B, simulated

Each appends lines of JSON to --out (benchmarks/records/workers.jsonl).
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import dualprop as dp
from dualprop.runs.environment import environment
from dualprop.runs.folder import Run
from dualprop.training.workers.grouping import grouped

NETS: dict[str, dict[str, Any]] = {
    "mlp": {"data": "mnist", "hidden": (512, 512)},
    "mlp-1000": {"data": "mnist", "hidden": (1000, 1000, 1000)},
    "vgg_like": {"data": "cifar10", "net": "vgg_like"},
}


def settings_of(net: str, **given: Any) -> dp.Settings:
    return dp.Settings(
        **{"loss": "cross_entropy", "lr": 5e-4, "alignment": False, "checkpoint_every": 1e9, **NETS[net], **given}
    )


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    return Run.open(folder).metrics("epoch")


def _alone(net: str, epochs: int, rule: str, threads: int, folder: Path) -> None:
    dp.train(settings_of(net, rule=rule, threads=threads, epochs=epochs), folder, progress=False)


def _crew(net: str, epochs: int, rule: str, folder: Path) -> None:
    settings = settings_of(net, rule=rule, threads=1, epochs=epochs)
    dp.distributed.train(settings, folder, workers=2, progress=False)


def speed(nets: Sequence[str], epochs: int, say: Callable[[dict[str, Any]], None]) -> None:
    """Images per second of the training part of an epoch, the first epoch of two left out if there are two."""
    for net in nets:
        alone, crew = partial(_alone, net, epochs), partial(_crew, net, epochs)
        cells: dict[str, Callable[[Path], object]] = {}
        for rule in ("bp", "dp"):
            cells |= {f"{rule}, one process, threads {n}": partial(alone, rule, n) for n in (1, 2)}
            cells[f"{rule}, 2 workers of 1 thread"] = partial(crew, rule)
        for name, run in cells.items():
            with tempfile.TemporaryDirectory() as folder:
                run(Path(folder) / "run")
                epoch = epochs_of(Path(folder) / "run")[-1]
            busy = epoch.get("measures", {}).get("busy")
            say({
                "what": "speed", "net": net, "cell": name, "images_per_second": epoch["images_per_second"],
                "idle": None if busy is None else 1 - busy,
            })  # fmt: skip


class Killer(dp.Callback):
    """Kills a worker that is drawn, every so many seconds."""

    def __init__(self, every: float, seed: int) -> None:
        self._every, self._random, self._last = every, random.Random(seed), None
        self.kills = 0

    def step(self, trainer: Any) -> None:
        now = time.monotonic()
        self._last = now if self._last is None else self._last
        if now - self._last >= self._every:
            self._last = now
            number = self._random.randrange(len(trainer.crew.groups))
            os.kill(trainer.crew.pid(number), signal.SIGKILL)
            self.kills += 1
        self.recoveries = list(trainer.crew.recoveries)


def kills(
    rules: Sequence[str], every: Sequence[float], seeds: int, epochs: int, say: Callable[[dict[str, Any]], None]
) -> None:
    for rule in rules:
        for seconds in (each or float("inf") for each in every):
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as folder:
                    killer = Killer(seconds, seed)
                    begun = time.monotonic()
                    result = dp.distributed.train(
                        settings_of("mlp", rule=rule, seed=seed, epochs=epochs, threads=1),
                        Path(folder) / "run",
                        workers=3,
                        callbacks=[killer],
                        progress=False,
                    )
                    epoch = epochs_of(Path(folder) / "run")[-1]
                back = [seconds for _, seconds, _ in killer.recoveries]
                say({
                    "what": "kills", "rule": rule, "every": None if seconds == float("inf") else seconds,
                    "seed": seed, "epochs": epochs, "test_accuracy": result.test_accuracy,
                    "seconds": time.monotonic() - begun, "kills": killer.kills,
                    "recovery_median": statistics.median(back) if back else None,
                    "recovery_max": max(back, default=None),
                    "updates_lost": sum(lost for *_, lost in killer.recoveries),
                    "measures": epoch["measures"],
                })  # fmt: skip


# Pipelines of stages: every stage does one thing at a time, a batch goes up through all and down again.


@dataclasses.dataclass(frozen=True)
class Stage:
    """Seconds that a stage takes for a batch on its way up and on its way down, and for what it sends."""

    up: float
    down: float
    sends_up: float
    sends_down: float


def simulated(
    stages: Sequence[Stage], batches: int, order: Callable[[int, set[int], set[int], int], tuple[str, int] | None]
) -> float:
    """Seconds until all batches have gone up and come down.

    Args:
        stages: from the input up.
        batches: how many.
        order: of a stage, the batches that wait to go up there, those that wait to come down, and how many have
            come down: what it does next.
    """
    last = len(stages) - 1
    up, down = [set[int]() for _ in stages], [set[int]() for _ in stages]
    up[0] = set(range(batches))
    done, free, events = [0] * len(stages), [True] * len(stages), [(0.0, 0, "free", 0)]
    now = 0.0
    while events:
        now, at, what, batch = heapq.heappop(events)
        if what == "free":
            free[at] = True
        elif what == "up":
            up[at].add(batch)
        else:
            down[at].add(batch)
        for stage in range(len(stages)):
            if not free[stage] or (choice := order(stage, up[stage], down[stage], done[stage])) is None:
                continue
            way, batch = choice
            free[stage], s = False, stages[stage]
            if way == "up":
                up[stage].discard(batch)
                end = now + s.up
                if stage == last:
                    heapq.heappush(events, (end, stage, "down", batch))
                else:
                    heapq.heappush(events, (end + s.sends_up, stage + 1, "up", batch))
            else:
                down[stage].discard(batch)
                done[stage] += 1
                end = now + s.down
                if stage:
                    heapq.heappush(events, (end + s.sends_down, stage - 1, "down", batch))
            heapq.heappush(events, (end, stage, "free", 0))
    return now


def in_flight(window: int) -> Any:
    """No flush: what comes down first; the first stage begins whenever fewer than `window` are on their way."""
    begun = [0]

    def order(stage: int, up: set[int], down: set[int], done: int) -> tuple[str, int] | None:
        if down:
            return "down", min(down)
        if stage == 0 and begun[0] - done >= window:
            return None
        if up:
            begun[0] += stage == 0
            return "up", min(up)
        return None

    return order


def gpipe(batches: int) -> Any:
    """All up, then all down."""
    gone = dict[int, int]()

    def order(stage: int, up: set[int], down: set[int], done: int) -> tuple[str, int] | None:
        if up:
            gone[stage] = gone.get(stage, 0) + 1
            return "up", min(up)
        return ("down", min(down)) if down and gone.get(stage) == batches else None

    return order


def one_f_one_b(stages: int, batches: int) -> Any:
    """As many up as there are stages above, then one down, one up in turn."""
    gone = dict[int, int]()

    def order(stage: int, up: set[int], down: set[int], done: int) -> tuple[str, int] | None:
        ahead = min(stages - stage, batches)
        if down:
            return "down", min(down)
        if up and gone.get(stage, 0) - done < ahead:
            gone[stage] = gone.get(stage, 0) + 1
            return "up", min(up)
        return None

    return order


def pipeline(net_name: str, batch: int, say: Callable[[dict[str, Any]], None]) -> None:
    """Throughput of N workers at measured costs of every layer, beside synchronous pipelines at the same costs."""
    torch.set_num_threads(1)
    net = getattr(dp.nets, net_name)()
    shape = (3, 32, 32)
    ups, downs, sizes = measured(net, shape, batch)
    latency, bandwidth = 1.2e-4, 1e9  # a message's on this machine: half a round trip of 100 KB; bytes a second
    total = sum(ups) + sum(downs)
    for workers in (2, 4, 8, 16, 32, 64):
        depth = len(ups)
        if workers > depth:
            say({"what": "pipeline", "net": net_name, "workers": workers, "note": f"only {depth} layers"})
            continue
        groups = grouped([u + d for u, d in zip(ups, downs, strict=True)], workers)
        stages = [
            Stage(
                sum(ups[a - 1 : b]),
                sum(downs[a - 1 : b]),
                latency + 4 * batch * sizes[b] / bandwidth,
                latency + 4 * batch * sizes[a - 1] / bandwidth,
            )
            for a, b in groups
        ]
        for name, micro, make in (
            ("in flight, N", 200, partial(in_flight, workers)),
            ("in flight, 2N", 200, partial(in_flight, 2 * workers)),
            ("GPipe, 8 micro-batches", 8, partial(gpipe, 8)),
            ("GPipe, 4N micro-batches", 4 * workers, partial(gpipe, 4 * workers)),
            ("1F1B, 8 micro-batches", 8, partial(one_f_one_b, workers, 8)),
            ("1F1B, 4N micro-batches", 4 * workers, partial(one_f_one_b, workers, 4 * workers)),
        ):
            seconds = simulated(stages, micro, make())
            say({
                "what": "pipeline", "net": net_name, "workers": workers, "schedule": name, "batch": batch,
                "images_per_second": micro * batch / seconds, "idle": 1 - micro * total / (workers * seconds),
                "one": batch / total, "best_by_largest_stage": batch / max(s.up + s.down for s in stages),
            })  # fmt: skip


def measured(net: dp.Net, shape: tuple[int, ...], batch: int) -> tuple[list[float], list[float], list[int]]:
    """Seconds of every layer up and down (with its step), and the numbers in the states z_0 .. z_L of a sample."""
    from dualprop.training.workers.segment import Segment

    shapes = net.shapes(shape)
    segment = Segment(net.stack, 1)
    ups, downs = [], []
    mean = torch.randn(batch, *shape)
    with torch.no_grad():
        for link, n in zip(segment.links, segment.neurons, strict=True):
            link.below.mean = mean
            n.difference = n.delta = torch.randn(batch, *shapes[n.number])
            optimizer = torch.optim.SGD(link.synapse.parameters(), lr=1e-9, momentum=0.9, fused=True)

            def up(link: Any = link, n: Any = n) -> None:
                link.see()
                link.drive()
                n.gather()
                n.mean = n.potential(n.total)

            def down(link: Any = link, n: Any = n, optimizer: Any = optimizer) -> None:
                n.potential.dyad(n.total, n.difference, 0.5, 0.5, 0.5)
                if n.number > 1:
                    link.send()
                link.learn()
                optimizer.step()
                optimizer.zero_grad()

            for call, times in ((up, ups), (down, downs)):
                call()
                tries = []
                for _ in range(3):
                    begun = time.perf_counter()
                    call()
                    tries.append(time.perf_counter() - begun)
                times.append(min(tries))
            mean = n.mean
    return ups, downs, [int(torch.Size(s).numel()) for s in shapes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "kills", "pipeline"])
    parser.add_argument("--nets", nargs="*", default=["mlp", "vgg_like"], choices=list(NETS))
    parser.add_argument("--net", default="vgg16")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--every", nargs="*", type=float, default=[0, 60, 10], help="0: never")
    parser.add_argument("--rules", nargs="*", default=["dp", "bp"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "workers.jsonl")
    given = parser.parse_args()
    where = {k: v for k, v in environment().items() if k not in ("command", "cwd", "path")}
    given.out.parent.mkdir(parents=True, exist_ok=True)

    def say(record: dict[str, Any]) -> None:
        print(json.dumps(record), flush=True)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**record, "environment": where}) + "\n")

    if given.what == "speed":
        speed(given.nets, given.epochs, say)
    elif given.what == "kills":
        kills(given.rules, given.every, given.seeds, given.epochs, say)
    else:
        pipeline(given.net, given.batch, say)


if __name__ == "__main__":
    main()
