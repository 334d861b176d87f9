"""Optimizers and learning-rate schedules by name. The optimizers are PyTorch's own, fused where it can."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch.nn import Parameter

from dualprop.registry import Registry
from dualprop.settings import Settings

Parameters = Iterable[Parameter]


def _adam(parameters: Parameters, s: Settings) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=s.lr, weight_decay=s.weight_decay, fused=True)


def _adamw(parameters: Parameters, s: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=s.lr, weight_decay=s.weight_decay, fused=True)


def _sgd(parameters: Parameters, s: Settings) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, fused=True)


OPTIMIZERS: Registry[Callable[[Parameters, Settings], torch.optim.Optimizer]] = Registry(
    "optimizer", {"adam": _adam, "adamw": _adamw, "sgd": _sgd}
)


def _constant(s: Settings, epoch: float) -> float:
    """The learning rate itself."""
    return s.lr


def _cosine(s: Settings, epoch: float) -> float:
    """Linear from warmup_lr to lr over the warm-up, then lr·½(1 + cos πt), t from 0 to 1 over the rest."""
    if epoch < s.warmup_epochs:
        return s.warmup_lr + (s.lr - s.warmup_lr) * epoch / s.warmup_epochs
    rest = s.epochs - s.warmup_epochs
    return s.lr * 0.5 * (1 + math.cos(math.pi * (epoch - s.warmup_epochs) / rest)) if rest else s.lr


LR_SCHEDULES: Registry[Callable[[Settings, float], float]] = Registry(
    "lr_schedule", {"constant": _constant, "cosine": _cosine}
)
"""The learning rate at a time in epochs, fractions included: pure functions, so resuming needs no state."""
