"""A tick of `dp.stream` beside a step of plain PyTorch (autograd, SGD) on one sample; interleaved ratios.

python benchmarks/stream.py [--nets mlp vgg_like] [--repeats 40] [--length 100000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import count

import torch
from torch.nn.functional import cross_entropy

import dualprop as dp

NETS = {
    "mlp": ("784-128-128-10", lambda: dp.nets.mlp([784, 128, 128, 10]), (784,), 50),
    "vgg_like": ("vgg_like", dp.nets.vgg_like, (3, 32, 32), 3),
}
LEARNERS = {
    "Delayed, normalised": {},
    "Delayed, sgd": {"step": "sgd", "lr": 1e-3},
    "Present, normalised": {"pairing": dp.stream.Present()},
}
SAMPLES = 200


def plain(make: Callable[[], dp.Net], xs: torch.Tensor, ys: list[int]) -> Callable[[], object]:
    """A step of the same net of PyTorch's own modules; the loss is computed on the way."""
    model = make().plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rows, labels, number = [x[None] for x in xs], [torch.tensor([y]) for y in ys], count()

    def step() -> object:
        i = next(number) % SAMPLES
        optimizer.zero_grad()
        cross_entropy(model(rows[i]), labels[i]).backward()
        return optimizer.step()

    return step


def ticking(learner: dp.stream.Learner, xs: torch.Tensor, ys: list[int]) -> Callable[[], object]:
    rows, number = list(xs), count()

    def tick() -> object:
        i = next(number) % SAMPLES
        return learner.tick(rows[i], ys[i])

    return tick


def seconds(call: Callable[[], object], calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begun) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--length", type=int, default=0, help="time the first and the last of so many ticks, too")
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| net | learner | tick us | autograd + SGD us | ÷ | quartiles | n |\n" + "| --- " * 7 + "|")
    for name, make, shape, calls in (NETS[net] for net in a.nets):
        xs, ys = torch.rand(SAMPLES, *shape), torch.randint(10, (SAMPLES,)).tolist()
        for words, settings in LEARNERS.items():
            tick = ticking(dp.stream.Learner(make(), **settings), xs, ys)
            step = plain(make, xs, ys)
            times: dict[Callable[[], object], list[float]] = {tick: [], step: []}
            for call in times:
                seconds(call, 2 * calls)
            for number in range(a.repeats):
                for call in (tick, step) if number % 2 else (step, tick):
                    times[call].append(seconds(call, calls))
            ratios = [one / other for one, other in zip(times[tick], times[step], strict=True)]
            low, middle, high = statistics.quantiles(ratios)
            mine, theirs = (1e6 * statistics.median(each) for each in times.values())
            ratio, n = f"{middle:.2f} | {low:.2f}-{high:.2f}", len(ratios)
            print(f"| {name} | {words} | {mine:.0f} | {theirs:.0f} | {ratio} | {n} |")
    if a.length:
        _, make, shape, _ = NETS["mlp"]
        xs, ys = torch.rand(SAMPLES, *shape), torch.randint(10, (SAMPLES,)).tolist()
        tick = ticking(dp.stream.Learner(make(), lr=0.01), xs, ys)
        parts = [1e6 * seconds(tick, a.length // 20) for _ in range(20)]
        print(f"\n{a.length} ticks in 20 parts, us a tick: " + ", ".join(f"{part:.0f}" for part in parts))


if __name__ == "__main__":
    main()
