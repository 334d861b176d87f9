"""What becomes of a conversion that is told nothing of a loss which is no mean over samples.

python examples/convert_losses.py         # the table of docs/reference/limitations.md
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dualprop as dp

BETA = 1.0
SCALE, PARTS, TIME = 65536.0, 8, 16


class Sequences(nn.Module):
    """The mean over time of a net's outputs; time comes first."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """From shape (T, B, features) to (B, classes)."""
        outputs: Tensor = self.net(x)
        return outputs.mean(0)


def net() -> nn.Module:
    """The MLP 32-64-64-10 with tanh, in double precision."""
    torch.manual_seed(0)
    layers = [nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)]
    return nn.Sequential(*layers).double()


def scaled(model: nn.Module, told: bool) -> None:
    """A loss that a scaler has multiplied."""
    x, y = torch.randn(64, 32).double(), torch.randint(10, (64,))
    with dp.scaled_loss(times=SCALE) if told else nullcontext():
        (SCALE * cross_entropy(model(x), y)).backward()


def accumulated(model: nn.Module, told: bool) -> None:
    """A loss in parts, each of which is divided by their number."""
    x, y = torch.randn(64, 32).double(), torch.randint(10, (64,))
    for some, labels in zip(x.chunk(PARTS), y.chunk(PARTS), strict=True):
        with dp.scaled_loss(times=1 / PARTS) if told else nullcontext():
            (cross_entropy(model(some), labels) / PARTS).backward()


def dense(model: nn.Module, told: bool) -> None:
    """A mean over the tokens of every sample."""
    x, y = torch.randn(4, TIME, 32).double(), torch.randint(10, (4, TIME))
    with dp.scaled_loss(divided_by=4 * TIME) if told else nullcontext():
        cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()


def time_first(model: nn.Module, told: bool) -> None:
    """Samples in the second dimension."""
    x, y = torch.randn(TIME, 4, 32).double(), torch.randint(10, (4,))
    cross_entropy(model(x), y).backward()


def gradient(model: nn.Module, case: Callable[[nn.Module, bool], None], told: bool) -> Tensor:
    """All of a model's gradients in one."""
    torch.manual_seed(1)
    case(model, told)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def distances(case: Callable[[nn.Module, bool], None]) -> tuple[float, float]:
    """How far the gradient is from backprop's, of its norm: told of the loss, and not."""
    wrapped: Callable[[nn.Module], nn.Module] = Sequences if case is time_first else lambda model: model
    true = gradient(wrapped(net()), case, False)
    found = []
    for told in (True, False):
        options = {"batch": dp.BatchDim(1)} if told and case is time_first else {}
        model = dp.convert(wrapped(net()), beta=BETA, **options)
        found.append(float((gradient(model, case, told) - true).norm() / true.norm()))
    return found[0], found[1]


CASES = {
    "a GradScaler": scaled,
    "accumulated batches": accumulated,
    "dense outputs": dense,
    "time first": time_first,
}


def measured() -> dict[str, str]:
    """By the name of a case both distances, as the table has them."""
    return {name: " | ".join(f"{100 * each:.2g} %" for each in distances(case)) for name, case in CASES.items()}


if __name__ == "__main__":
    for name, both in measured().items():
        print(f"{name:20} {both}")
