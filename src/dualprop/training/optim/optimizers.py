"""Optimizers and learning-rate schedules by name; learning rates by layer.

The optimizers are PyTorch's own, fused where it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from dualprop.arguments import per_layer
from dualprop.nets.net import Net
from dualprop.registry import Registry
from dualprop.runs.settings import Settings
from dualprop.training import devices

Parameters = Iterable[Parameter] | Iterable[dict[str, Any]]
"""Parameters, or groups of them as PyTorch's optimizers take them."""

FACTOR = "lr_factor"
"""Of a group: what its learning rate is multiplied by."""


def _adam(parameters: Parameters, s: Settings) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=s.lr, weight_decay=s.weight_decay, fused=True)


def _adamw(parameters: Parameters, s: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=s.lr, weight_decay=s.weight_decay, fused=True)


def _sgd(parameters: Parameters, s: Settings) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, fused=True)


def _pulsed(parameters: Parameters, s: Settings) -> torch.optim.Optimizer:
    return devices.optimizer(parameters, s)


OPTIMIZERS: Registry[Callable[[Parameters, Settings], torch.optim.Optimizer]] = Registry(
    "optimizer", {"adam": _adam, "adamw": _adamw, "sgd": _sgd, "pulsed-sgd": _pulsed}
)


def layer_factors(net: Net, factors: Sequence[float]) -> dict[Parameter, float]:
    """What the learning rate of each parameter is multiplied by.

    Args:
        net: whose layers 1..L the factors are of.
        factors: L of them.

    Raises:
        DualpropError: for another number of them.
    """
    factors = per_layer("lr_factors", factors, len(net))
    return {p: factor for layer, factor in zip(net.stack, factors, strict=True) for p in layer.parameters()}


def grouped(parameters: Iterable[Parameter], factors: Mapping[Parameter, float]) -> list[dict[str, Any]]:
    """The parameters in groups of one factor each, for an optimizer."""
    groups: dict[float, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(factors[parameter], []).append(parameter)
    return [{"params": own, FACTOR: factor} for factor, own in groups.items()]


def set_lr(groups: Iterable[dict[str, Any]], lr: float) -> None:
    """Set the learning rate of an optimizer's groups, each times its own factor if it has one."""
    for group in groups:
        group["lr"] = lr * group.get(FACTOR, 1.0)


def _constant(s: Settings, epoch: float) -> float:
    """The learning rate itself."""
    return s.lr


def _cosine(s: Settings, epoch: float) -> float:
    """Linear from warmup_lr to lr over the warm-up, then min_lr + (lr - min_lr)·½(1 + cos πt), t from 0 to 1.

    It ends after lr_epochs, or else with the last epoch.
    """
    if epoch < s.warmup_epochs:
        return s.warmup_lr + (s.lr - s.warmup_lr) * epoch / s.warmup_epochs
    end = s.epochs if s.lr_epochs is None else s.lr_epochs
    if epoch >= end:
        return s.min_lr
    angle = math.pi * (epoch - s.warmup_epochs) / (end - s.warmup_epochs)
    return s.min_lr + (s.lr - s.min_lr) * 0.5 * (1 + math.cos(angle))


LR_SCHEDULES: Registry[Callable[[Settings, float], float]] = Registry(
    "lr_schedule", {"constant": _constant, "cosine": _cosine}
)
"""The learning rate at a time in epochs, fractions included: pure functions, so resuming needs no state."""
