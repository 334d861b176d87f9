"""Time and memory of one training step: dual propagation beside back-propagation, interleaved in one process.

    python benchmarks/step.py [--repeats 60] [--batch 100] [--hidden 1000,1000,1000] [--rules dp,l-dp,p-dp,r-dp]

A step is everything between two batches: gradients, Adam (fused), clearing the gradients. "bp" is the plain
PyTorch loop on the same net. Ratios are medians over repeats of (rule's step ÷ bp's step beside it).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import dualprop as dp
from dualprop.malloc import keep_memory

Step = Callable[[], object]


def plain_step(net: dp.Net, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, bf16: bool) -> Step:
    def step() -> None:
        target = torch.nn.functional.one_hot(y, 10).to(x.dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = net(x)
        loss = 0.5 * (output.to(x.dtype) - target).square().sum(1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def rule_step(rule: dp.Rule, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, bf16: bool) -> Step:
    def step() -> dp.Step:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            made = rule.backward(x, y)
        optimizer.step()
        optimizer.zero_grad()
        return made

    return step


def peak_bytes(step: Step) -> int:
    """The most that one step holds in tensors beyond what it found, from the allocator's own records."""
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    held = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def measure(arguments: argparse.Namespace, bf16: bool) -> None:
    sizes = [784, *map(int, arguments.hidden.split(",")), 10]
    x, y = torch.rand(arguments.batch, 784), torch.randint(10, (arguments.batch,))
    steps: dict[str, Step] = {}
    for name in ["bp", *arguments.rules.split(",")]:
        torch.manual_seed(0)
        net = dp.nets.mlp(sizes, feedback=dp.RULES[name].feedback)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-5, fused=True)
        if name == "bp":
            steps[name] = plain_step(net, optimizer, x, y, bf16)
        else:
            steps[name] = rule_step(dp.RULES[name](net, loss="mse"), optimizer, x, y, bf16)

    print(f"\n{'-'.join(map(str, sizes))}, batch {arguments.batch}, {'bf16 autocast' if bf16 else 'float32'}")
    print("rule    ms/step   ÷ bp    quartiles   peak MB   products  naive loop's")
    steps["bp"]()  # the first touch of everything
    for name, step in steps.items():
        # each rule beside bp alone: a slow neighbour in the same loop would cool bp's caches
        seconds: dict[str, list[float]] = {"bp": [], name: []}
        for repeat in range(arguments.repeats + 5):
            for other in dict.fromkeys(["bp", name] if repeat % 2 else [name, "bp"]):
                begun = time.perf_counter()
                made = steps[other]()
                if repeat >= 5:
                    seconds[other].append(time.perf_counter() - begun)
        ratios = [a / b for a, b in zip(seconds[name], seconds["bp"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if name != "bp" else (1.0, 1.0, 1.0)
        made = step()
        counted = f"{made.products:8d}  {made.naive_products:8d}" if isinstance(made, dp.Step) else ""
        print(
            f"{name:6s}  {1e3 * statistics.median(seconds[name]):7.2f}  {middle:5.2f}  {low:5.2f} - {high:4.2f}"
            f"  {peak_bytes(step) / 1e6:8.2f}   {counted}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--hidden", default="1000,1000,1000")
    parser.add_argument("--rules", default="dp,ms-dp,l-dp,p-dp,r-dp,kp-dp,dp-t")
    arguments = parser.parse_args()
    keep_memory()  # as the command line does, for all alike
    cpu = Path("/proc/cpuinfo")
    model = platform.processor()
    if cpu.exists():
        model = next(line.split(":")[1].strip() for line in cpu.read_text().splitlines() if "model name" in line)
    print(f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}, n = {arguments.repeats}")
    for bf16 in (False, True):
        measure(arguments, bf16)


if __name__ == "__main__":
    main()
