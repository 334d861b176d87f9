"""Images/s of whole steps with one thread and with two, alone and beside a busy process; interleaved.

python benchmarks/threads.py [--repeats 5] [--seconds 0.4]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

import dualprop as dp
from dualprop.training.malloc import keep_memory
from dualprop.training.threads import computing_in, largest_product

NETS = {
    "64-128-128-10, batch 50": (lambda: dp.nets.mlp([64, 128, 128, 10], "tanh"), (64,), 50),
    "784-1000-1000-1000-10, batch 100": (lambda: dp.nets.mlp([784, 1000, 1000, 1000, 10], "tanh"), (784,), 100),
    "vgg_like, batch 100": (dp.nets.vgg_like, (3, 32, 32), 100),
}
RULES = ("bp", "dp", "dtp")


def steps(net: dp.Net, rule: str, in_shape: tuple[int, ...], batch_size: int) -> Callable[[], None]:
    learner, optimizer = dp.RULES[rule](net), torch.optim.Adam(net.parameters(), lr=1e-5, fused=True)
    x, y = torch.rand(batch_size, *in_shape), torch.randint(10, (batch_size,))

    def step() -> None:
        for _ in learner.iterate(x, y):
            optimizer.step()
            optimizer.zero_grad()

    return step


def steps_per_second(step: Callable[[], None], seconds: float) -> float:
    step()
    begun, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - begun) < seconds or not count:
        step()
        count += 1
    return count / taken


@contextmanager
def beside(busy: bool) -> Iterator[None]:
    """A context with a process beside this one that never rests, or without."""
    if not busy:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4)
    a = parser.parse_args()
    keep_memory()  # as the command line does
    print("| net | multiply-adds | rule | alone, 1 | alone, 2 | busy, 1 | busy, 2 |\n" + "| --- " * 7 + "|")
    for name, (make, in_shape, batch_size) in NETS.items():
        largest = batch_size * largest_product(make(), in_shape)
        for rule in RULES:
            step = steps(make(), rule, in_shape, batch_size)
            rates: dict[tuple[bool, int], list[float]] = defaultdict(list)
            for number in range(a.repeats):
                for busy in (False, True):
                    with beside(busy):
                        for threads in (1, 2) if number % 2 else (2, 1):
                            with computing_in(threads):
                                rates[busy, threads].append(batch_size * steps_per_second(step, a.seconds))
            medians = [statistics.median(rates[b, t]) for b, t in ((False, 1), (False, 2), (True, 1), (True, 2))]
            cells = " | ".join(f"{median:,.0f}" for median in medians)
            print(f"| {name} | {largest:.1e} | {rule} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
