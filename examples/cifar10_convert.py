"""A small ResNet and a small ViT on CIFAR-10, by back-propagation and by dual propagation from the same start.

Both methods see the same initial weights and batches, in bfloat16 autocast; the one difference is the line
`dp.convert(model)`. Each finished run is a line of the results file, and is not run again.

    python examples/cifar10_convert.py --epochs 5
    python examples/cifar10_convert.py --models vit --methods backprop,kolen-pollack --seeds 0,1,2
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dualprop as dp
from dualprop.training.malloc import keep_memory

BATCH = 100


class Block(nn.Module):
    """Two 3x3 convolutions around which the input goes unchanged, or through a 1x1 convolution."""

    def __init__(self, below: int, above: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(below, above, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(above, above, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(above) for _ in range(2))
        same = below == above and stride == 1
        self.around = nn.Identity() if same else nn.Conv2d(below, above, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes (B, below, H, W) -> (B, above, H/stride, W/stride)."""
        z = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(z)) + self.around(x))


class ResNet(nn.Sequential):
    """A ResNet-8 for 32x32 images: one block for each of three sizes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            Block(width, width, 1),
            Block(width, 2 * width, 2),
            Block(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, 10),
        )


class Attending(nn.Module):
    """A transformer's block: self-attention and two dense layers with a GELU, each added to what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.queries_keys_values, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes (B, tokens, width) -> the same."""
        split = self.queries_keys_values(self.norms[0](x)).unflatten(2, (3, self.heads, -1))
        attended = F.scaled_dot_product_attention(*split.permute(2, 0, 3, 1, 4))
        x = x + self.mixed(attended.transpose(1, 2).flatten(2))
        return x + self.dense(self.norms[1](x))


class ViT(nn.Module):
    """A vision transformer for 32x32 images in patches of 4x4, averaged over its tokens at the end."""

    def __init__(self, width: int = 128, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*(Attending(width, heads) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes (B, 3, 32, 32) -> (B, 10)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.blocks(tokens).mean(1))


MODELS = {
    "resnet": (ResNet, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=5e-4, fused=True)),
    "vit": (ViT, lambda p: torch.optim.AdamW(p, 2e-3, weight_decay=0.05, fused=True)),
}
"""How to make each model, and its optimizer with the highest learning rate."""

METHODS = {
    "backprop": lambda model: model,
    "dual propagation": lambda model: dp.convert(model, beta=1.0),
    "kolen-pollack": lambda model: dp.convert(model, beta=1.0, kolen_pollack=True),
}


def run(name: str, method: str, data: dp.data.Dataset, epochs: int, seed: int, steps: int | None) -> dict:
    """Train one model by one method, and what came of it."""
    make, optimize = MODELS[name]
    torch.manual_seed(seed)
    model = METHODS[method](make().to(memory_format=torch.channels_last))
    optimizer = optimize(model.parameters())
    highest = optimizer.param_groups[0]["lr"]
    train = dp.data.Batches(data.train, BATCH, mean=data.mean, std=data.std, augment=True, seed=seed)
    per_epoch = min(steps or len(train), len(train))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, highest, total_steps=epochs * per_epoch + 1, pct_start=0.2, cycle_momentum=False
    )
    began = time.perf_counter()
    for epoch in range(epochs):
        total = torch.zeros(())
        for x, y in islice(train.epoch(epoch), per_epoch):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                output = model(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(output.float(), y)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        print(f"{name}, {method}, epoch {epoch + 1}: training loss {total / per_epoch:.4f}", flush=True)
    seconds = time.perf_counter() - began
    accuracy = tested(model, dp.data.Batches(data.test, 500, mean=data.mean, std=data.std))
    return {
        "model": name,
        "method": method,
        "epochs": epochs,
        "seed": seed,
        "steps": per_epoch,
        "test accuracy %": round(accuracy, 2),
        "s / epoch": round(seconds / epochs, 1),
    }


@torch.no_grad()
def tested(model: nn.Module, batches: dp.data.Batches) -> float:
    """The test accuracy in per cent."""
    model.eval()
    right = 0
    with torch.autocast("cpu", torch.bfloat16):
        for x, y in batches:
            right += int((model(x.contiguous(memory_format=torch.channels_last)).argmax(1) == y).sum())
    return 100 * right / len(batches.split)


def main() -> None:
    """Run what the results file does not hold yet, then print it all as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="resnet,vit", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--methods", default="backprop,dual propagation", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, help="batches of an epoch, fewer than all of them for a trial")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10_convert.jsonl"))
    given = parser.parse_args()
    keep_memory()
    data = dp.data.load("cifar10")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    steps = min(given.steps or len(data.train) // BATCH, len(data.train) // BATCH)
    for seed in map(int, given.seeds.split(",")):
        for name in given.models.split(","):
            for method in given.methods.split(","):
                asked = {"model": name, "method": method, "epochs": given.epochs, "seed": seed, "steps": steps}
                if any(asked.items() <= result.items() for result in results):
                    continue
                results.append(run(name, method, data, given.epochs, seed, steps))
                with given.out.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    print("| " + " | ".join(results[0]) + " |\n|" + " --- |" * len(results[0]))
    for result in results:
        print("| " + " | ".join(map(str, result.values())) + " |")


if __name__ == "__main__":
    main()
