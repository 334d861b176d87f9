"""Dual propagation for any PyTorch module: its activations send finite differences back.

After `convert`, `loss.backward()` is dual propagation. Everything else about the module stays: its parameters, its
outputs, its state_dict, and how it works with autocast, torch.compile, checkpointing and data parallelism.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable

import torch
from torch import nn

from dualprop.convert.feedback import add_feedback, check_feedback, kind_with_feedback, symmetric
from dualprop.convert.record import KEY, REDUCTIONS, Conversion, conversion
from dualprop.convert.roles import swapped
from dualprop.convert.survey import activations_of, has_own_code, reason, unknown_to
from dualprop.errors import DualpropError, check_type

__all__ = ["REDUCTIONS", "Conversion", "conversion", "convert"]

logger = logging.getLogger("dualprop")


def convert(
    module: nn.Module,
    *,
    alpha: float = 0.5,
    beta: float = 1.0,
    exclude: Iterable[str] = (),
    reduction: str = "mean",
    kolen_pollack: bool = False,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Make `loss.backward()` through a module dual propagation, in place.

    Every ReLU, LeakyReLU, ReLU6, Hardtanh, Hardsigmoid, Hardswish, Sigmoid, Tanh, SiLU, GELU, ELU and Softplus, be
    it a module, a function or a method, in place or not, sends (f(a + ᾱ s g) - f(a - α s g))/s back in place of
    f'(a) g, with s = βB for B samples. Everything else (batch norm, attention, max-pool, products) keeps its
    ordinary derivative.

    A batch to learn from must be finite; under torch.compile, whose graphs cannot branch on what a batch holds, it
    is not looked at. Incoming gradients are never looked at: what is NaN stays NaN, as a `GradScaler` relies on;
    an infinite one drives its neuron as far as the activation goes, not far where the activation is bounded.

    Checkpoints: non-reentrant ones, and reentrant ones of whole submodules. A function that a reentrant checkpoint
    computes again runs outside of every module, where its activations send ordinary derivatives back.

    Args:
        module: any module. Its first tensor argument, which may be inside a list, tuple, mapping or dataclass, has
            the samples in dimension 0; so has that of a part of it that is called by itself.
        alpha: α in [0, 1].
        beta: the strength of the nudges, positive and finite; as β → 0 the gradient becomes back-propagation's.
            ReLU takes any β; the others subtract two states, whose rounding drowns nudges of β below about 1e-3
            in float32.
        exclude: names of submodules, as in `named_modules`, which are left as they are.
        reduction: how the loss reduces the batch: "mean" (the incoming signal is scaled back by the number of
            samples, so β means the same at every batch size) or "sum".
        kolen_pollack: whether each `torch.nn.Linear` and `Conv2d` sends its signal down through weights B of its
            own in place of W: a parameter `feedback` more in each, in the state_dict too, that gets W's gradient.
            Make the optimizer afterwards, with the same weight decay for both. Those at the input have a B as
            well, which changes nothing. Frozen layers and all other products keep W, as `left_alone` says.
        generator: where B comes from, drawn as PyTorch draws these modules' W at first; torch's global one by
            default.

    Returns:
        The module itself. `conversion(module)` says what was converted and what was not. A loss scaled by
        anything else, as by a `GradScaler`, scales the nudges with it.

    Raises:
        DualpropError: for a value out of range, a name that is no submodule, a module that is converted already,
            one with nothing to convert, or one that cannot get feedback weights.

    Example:
        >>> import torch, dualprop as dp
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> net = dp.convert(net, beta=0.5)
        >>> torch.nn.functional.cross_entropy(net(torch.randn(5, 4)), torch.arange(5) % 3).backward()
        >>> print(dp.conversion(net))
        converted: 1 ReLU; left alone: nothing
    """
    check_type("module", module, nn.Module)
    if not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise DualpropError(f"alpha={alpha!r}: must be a float in [0, 1]")
    if not isinstance(beta, int | float) or not 0 < beta < math.inf:
        raise DualpropError(f"beta={beta!r}: must be a float, positive and finite")
    if not isinstance(exclude, Iterable):
        raise DualpropError(f"exclude={exclude!r}: must be names of submodules")
    if generator is not None:
        check_type("generator", generator, torch.Generator)
    check_type("kolen_pollack", kolen_pollack, bool)
    if generator is not None and not kolen_pollack:
        raise DualpropError("generator: only kolen_pollack=True draws anything")
    made = Conversion(float(alpha), float(beta), reduction)
    REDUCTIONS[reduction]
    modules, excluded = dict(module.named_modules()), {exclude} if isinstance(exclude, str) else set(exclude)
    for name in excluded - {name for name in modules if name}:
        raise DualpropError(f"exclude: {name!r} is not a submodule of {type(module).__name__}")
    for name, m in modules.items():
        if KEY in m.__dict__:
            raise DualpropError(f"module: {name or type(module).__name__} is converted already")
    roles: dict[nn.Module, str] = {}
    for name, m in modules.items():
        if excluded.intersection(_above(name)):
            continue
        if name in excluded:
            roles[m] = "excluded"
            made.left_alone[name] = "excluded"
            continue
        if found := activations_of(m):
            made.converted[name] = ", ".join(found)
        elif why := reason(type(m)):
            made.left_alone[name] = why
        if found or has_own_code(type(m)):
            roles[m] = "inner"
        for function in unknown_to(m):
            made.unknown.setdefault(function, []).append(name or type(m).__name__)
        if not kolen_pollack:
            continue
        if why := symmetric(m):
            made.left_alone[name] = why
        elif kind_with_feedback(m):
            check_feedback(name, m)
            made.feedback[name] = type(m).__name__
            roles[m] = "feedback"
    if not made.converted:
        raise DualpropError(f"module: {type(module).__name__} has no activation to convert; {made}")
    for name in made.feedback:
        add_feedback(modules[name], generator)
    roles[module] = "inner"
    for m, role in roles.items():
        m.__dict__[KEY] = made
        m.__class__ = swapped(role, type(m))
    logger.info("%s: %s", type(module).__name__, made)
    for name, why in made.left_alone.items():
        if "not known" in why:
            made.warned.add(type(modules[name]).__name__)
            warnings.warn(f"{name}: left alone, {why}; it keeps its ordinary derivative", stacklevel=2)
    return module


def _above(name: str) -> list[str]:
    """The names of all modules that a submodule is part of."""
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts))]
