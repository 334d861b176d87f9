"""What is timed: back-propagation in plain PyTorch, every rule, `convert`, and updates fused with the gradients.

A step is everything between two batches: inference, gradients, optimizer, clearing the gradients; for a rule with
several weight updates a batch, all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from dualprop.convert import convert
from dualprop.registry import Registry
from dualprop.rules import RULES, Rule
from dualprop.studies.bench import arithmetic
from dualprop.studies.bench.arithmetic import Arithmetic
from dualprop.studies.bench.timing import Work
from dualprop.studies.bench.workload import Workload
from dualprop.training.optim.fused import FusedUpdate, acting


@dataclass(frozen=True)
class Subject:
    """One row of a table, ready to be timed.

    Args:
        step: does one batch.
        count: its arithmetic; where that is only known by watching, it takes a step.
        parameters: what it learns.
        afresh: makes another step, of the same weights and optimizer, that has kept nothing from a batch yet.
    """

    step: Work
    count: Callable[[], Arithmetic]
    parameters: list[nn.Parameter]
    afresh: Callable[[], Work]

    @property
    def gradient_bytes(self) -> int:
        """The size of all gradients together."""
        return sum(p.numel() * p.element_size() for p in self.parameters)


@dataclass(frozen=True)
class Kind:
    """How a subject is made.

    Args:
        summary: one line for the table's notes.
        make: the subject on a workload, compiled or not.
        compiles: whether there is a compiled one.
    """

    summary: str
    make: Callable[[Workload, bool], Subject]
    compiles: bool = True


def subjects() -> Registry[Kind]:
    """Every subject by name: `bp` in plain PyTorch, every rule of `RULES`, `convert` and the fused updates."""
    kinds: Registry[Kind] = Registry("rule")
    kinds["bp"] = Kind("the loop in plain PyTorch: Sequential, autograd, autocast, fused SGD", _bp)
    for name, method in RULES.items():
        own = f"{name}-rule" if name in kinds else name
        kinds[own] = Kind(f"{method.summary}, by dualprop.RULES[{name!r}]", partial(_rule, name))
    kinds["convert"] = Kind("the loop of bp on dualprop.convert of its module", _convert)
    at_once = "each weight updated and its gradient freed as soon as it is there"
    kinds["bp-fused"] = Kind(f"bp, {at_once}", _bp_fused, False)
    kinds["dp-fused"] = Kind(f"dp, {at_once}", _dp_fused, False)
    return kinds


def _bp(workload: Workload, compiled: bool) -> Subject:
    model = workload.plain()
    return _loop(workload, model, compiled, workload.optimizer(model.parameters()))


def _convert(workload: Workload, compiled: bool) -> Subject:
    model = convert(workload.plain())
    return _loop(workload, model, compiled, workload.optimizer(model.parameters()))


def _bp_fused(workload: Workload, compiled: bool) -> Subject:
    model = workload.plain()
    return _loop(workload, model, compiled, FusedUpdate(model.parameters(), workload.optimizer))


def _loop(
    workload: Workload, model: nn.Module, compiled: bool, optimizer: torch.optim.Optimizer | FusedUpdate
) -> Subject:
    """The ordinary training loop on a module."""
    if compiled:
        model.compile()

    def step() -> None:
        with workload.autocast():
            loss = F.cross_entropy(model(workload.x).float(), workload.y)
        with acting(optimizer):
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    work = arithmetic.needed(workload.net(RULES["bp"]), workload.in_shape, workload.batch_size)
    return Subject(step, lambda: work, list(model.parameters()), lambda: step)


def _rule(name: str, workload: Workload, compiled: bool, fused: bool = False) -> Subject:
    method = RULES[name]
    net = workload.net(method)
    make = workload.optimizer
    optimizer = FusedUpdate(net.parameters(), make) if fused else make(net.parameters())

    def fresh() -> tuple[Rule, Work]:
        rule = method(net, loss="cross_entropy")

        def step() -> None:
            with workload.autocast(), acting(optimizer):
                for _ in rule.iterate(workload.x, workload.y):
                    optimizer.step()
                    optimizer.zero_grad()

        return rule, step

    def afresh() -> Work:
        rule, step = fresh()
        if compiled:
            rule.compile()
        return step

    rule, step = fresh()

    def count() -> Arithmetic:
        return arithmetic.made(step, workload.batch_size, net, workload.energy)

    if compiled:
        counted = [count() for _ in range(2)][-1]  # a lazy rule's first inference starts from nothing
        rule.compile()
        return Subject(step, lambda: counted, list(net.parameters()), afresh)
    return Subject(step, count, list(net.parameters()), afresh)


def _dp_fused(workload: Workload, compiled: bool) -> Subject:
    return _rule("dp", workload, compiled, fused=True)
