"""Dual propagation for any PyTorch module: its activations send finite differences back.

After `convert`, `loss.backward()` is dual propagation. Everything else about the module stays: its parameters, its
outputs, its state_dict, and how it works with autocast, torch.compile, checkpointing and data parallelism.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable
from typing import Annotated, TypeVar

import torch
from pydantic import SkipValidation
from torch import nn

from dualprop.arguments import In, Portion, Positive, checked
from dualprop.convert._hooks import Part, part_of, root_of, unwrapped
from dualprop.convert._survey import activations_of, activations_outside_forward, has_own_code, reason, unknown_to
from dualprop.convert.batch import Batch, BatchDim, check_batch, scaled_loss
from dualprop.convert.feedback import add_feedback, check_feedback, kind_with_feedback, owners_of, symmetric
from dualprop.convert.record import REDUCTIONS, Conversion
from dualprop.errors import DualpropError

__all__ = ["REDUCTIONS", "BatchDim", "Conversion", "conversion", "convert", "scaled_loss", "unconvert"]

logger = logging.getLogger("dualprop")

Module = TypeVar("Module", bound=nn.Module)


@checked
def convert(
    module: Module,
    *,
    alpha: Portion = 0.5,
    beta: Positive = 1.0,
    exclude: SkipValidation[Iterable[str]] = (),
    reduction: Annotated[str, In(REDUCTIONS)] = "mean",
    batch: SkipValidation[Batch | None] = None,
    kolen_pollack: bool = False,
    generator: torch.Generator | None = None,
) -> Module:
    """Make `loss.backward()` through a module dual propagation, in place.

    Every ReLU, LeakyReLU, ReLU6, Hardtanh, Hardsigmoid, Hardswish, Sigmoid, Tanh, SiLU, GELU, ELU and Softplus, be
    it a module, a function or a method, in place or not, and every clamp and maximum that is one of them, sends
    (f(a + ᾱ s g) - f(a - α s g))/s back in place of f'(a) g, with s = βB for B samples. Everything else (batch
    norm, attention, max-pool, products) keeps its ordinary derivative. An activation of something without samples,
    as the tanh of a gate, is nudged as the mean over the samples asks: s = β.

    Each module gets two hooks and is otherwise what it was. They see what a call of the module computes; of other
    methods, what the modules do that these call. torch.jit and torch.export see the ordinary module.

    A batch to learn from must be finite; under torch.compile, whose graphs cannot branch on what a batch holds, it
    is not looked at. Incoming gradients are never looked at: what is NaN stays NaN, as a `GradScaler` relies on;
    an infinite one drives its neuron as far as the activation goes, not far where the activation is bounded.

    Checkpoints: non-reentrant ones, and reentrant ones of whole submodules. A function that a reentrant checkpoint
    computes again runs outside of every module, where its activations send ordinary derivatives back.

    Args:
        module: any module.
        alpha: α in [0, 1].
        beta: the strength of the nudges, positive and finite; as β → 0 the gradient becomes back-propagation's.
            ReLU takes any β; the others subtract two states, whose rounding drowns nudges of β below about 1e-3
            in float32.
        exclude: names of submodules, as in `named_modules`, which are left as they are.
        reduction: how the loss reduces the batch: "mean" (the incoming signal is scaled back by the number of
            samples, so β means the same at every batch size) or "sum". For any other weight of the losses there
            is `scaled_loss`.
        batch: where the number of samples B of a call comes from: a number, a `BatchDim`, or a function of the
            call's arguments that returns it. By default it is dimension 0 of the first tensor, which may be
            inside a list, tuple, mapping or dataclass, or the number of packed sequences. A part that is called
            by itself counts its samples alike.
        kolen_pollack: whether each `torch.nn.Linear` and `Conv2d` sends its signal down through weights B of its
            own in place of W: a parameter `feedback` more in each, in the state_dict too, that gets W's gradient.
            Make the optimizer afterwards, with the same weight decay for both. Those at the input have a B as
            well, which changes nothing. Layers that share W share B. Frozen layers, layers whose W is computed
            (parametrised, pruned) or shared with a module that has no B (a table of words), and all other modules
            with weights keep W, as `left_alone` says.
        generator: where B comes from, drawn as PyTorch draws these modules' W at first; torch's global one by
            default.

    Returns:
        The module itself. `conversion(module)` says what was converted and what was not, `unconvert(module)`
        takes it back. Code that torch.compile has made before is forgotten.

    Raises:
        DualpropError: for a value out of range, a name that is no submodule, a module that is converted already,
            one with nothing to convert, or one that cannot get feedback weights.

    Warns:
        UserWarning: once of each: a module or function that is not known and keeps its ordinary derivative;
            arguments or drives whose shapes contradict B; nudges that rounding swallows.

    Example:
        >>> import torch, dualprop as dp
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> net = dp.convert(net, beta=0.5)
        >>> torch.nn.functional.cross_entropy(net(torch.randn(5, 4)), torch.arange(5) % 3).backward()
        >>> print(dp.conversion(net))
        converted: 1 ReLU; left alone: nothing
    """
    inner = unwrapped(module)
    if not isinstance(exclude, Iterable):
        raise DualpropError(f"exclude={exclude!r}: must be names of submodules")
    if generator is not None and not kolen_pollack:
        raise DualpropError("generator: only kolen_pollack=True draws anything")
    check_batch(batch)
    made = Conversion(type(inner).__name__, alpha, beta, reduction, batch)
    names: dict[nn.Module, list[str]] = {}
    for name, m in inner.named_modules(remove_duplicate=False):
        names.setdefault(m, []).append(name)
    modules = {name: m for m, own in names.items() for name in own}
    excluded = {exclude} if isinstance(exclude, str) else set(exclude)
    for name in excluded - {name for name in modules if name}:
        raise DualpropError(f"exclude: {name!r} is not a submodule of {made.name}")
    excluded |= {f"{name}._orig_mod" for name in excluded if unwrapped(modules[name]) is not modules[name]}
    for m, (name, *_) in names.items():
        if part_of(m) is not None:
            raise DualpropError(f"module: {name or made.name} is converted already")
    roles: dict[nn.Module, str] = {}
    barred_ones = {m for m, own in names.items() if not _free(own, excluded)}
    owners = owners_of(names) if kolen_pollack else {}
    hidden = False
    for m, own in names.items():
        if unwrapped(m) is not m:
            continue
        if barred := excluded.intersection(own):
            made.left_alone.update(dict.fromkeys(barred, "excluded"))
            roles[m] = "excluded"
            continue
        free = _free(own, excluded)
        if not free or isinstance(m, torch.jit.ScriptModule):
            continue
        name = free[0]
        if found := activations_of(m):
            made.named[name] = ", ".join(found)
        elif why := reason(type(m)):
            made.left_alone[name] = why
        for method, kinds in activations_outside_forward(m).items():
            made.leaves(name, f"{', '.join(kinds)} (method {method}, ordinary outside of a forward pass)")
        hidden = hidden or has_own_code(type(m))
        if found or has_own_code(type(m)) or next(m.children(), None) or name in made.left_alone:
            roles[m] = "inner"
        for function in unknown_to(m):
            made.unknown.setdefault(function, []).append(name or made.name)
        if not kolen_pollack:
            continue
        if why := symmetric(m, owners, barred_ones):
            if "not known" not in made.left_alone.get(name, ""):
                made.left_alone[name] = why
        elif kind_with_feedback(m):
            check_feedback(name, m)
            made.feedback[name] = type(m).__name__
            roles[m] = "feedback"
    if not made.named and not hidden:
        raise DualpropError(f"module: {made.name} has no activation to convert; {made}")
    add_feedback([modules[name] for name in made.feedback], generator)
    roles.setdefault(inner, "inner")
    for m, role in roles.items():
        first = (_free(names[m], excluded) or names[m])[0]
        Part(made, first, m, excluded=role == "excluded", feedback=role == "feedback")
    _forget_compiled()
    logger.info("%s: %s", made.name, made)
    unknown: dict[str, list[str]] = {}
    for name, why in made.left_alone.items():
        if "not known" in why:
            made.warned.add(type(modules[name]).__name__)
            unknown.setdefault(why, []).append(name)
    for why, (first, *others) in unknown.items():
        more = f" and {len(others)} more" if others else ""
        warnings.warn(f"{first}{more}: left alone, {why}; it keeps its ordinary derivative", stacklevel=3)
    return module


def unconvert(module: Module) -> Module:
    """Give a converted module back as it was: without hooks and feedback weights; what it has learnt stays.

    Args:
        module: one that `convert` has converted, a copy of it, or what holds it, as torch.compile makes.

    Returns:
        The module itself.

    Raises:
        DualpropError: if it is not converted, or a part of one that is.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.convert(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()), kolen_pollack=True)
        >>> list(dp.unconvert(net).state_dict())
        ['0.weight', '0.bias']
    """
    made, root = conversion(module), root_of(module)
    assert root is not None, "it is converted"
    if (whole := part_of(root)) is None or whole.name:
        raise DualpropError(f"module: this {type(module).__name__} is only a part of a converted {made.name}")
    for m in root.modules():
        part = part_of(m)
        if part is not None and part.conversion is made:
            part.remove(m)
            if part.feedback:
                del m.feedback
    _forget_compiled()
    return module


def conversion(module: nn.Module) -> Conversion:
    """What `convert` did to a module, and what its forward passes have met since.

    Args:
        module: converted, part of one that is, or around one, as what torch.compile makes of it.

    Raises:
        DualpropError: if it is not converted, or holds several that are.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.convert(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()), beta=0.5)
        >>> dp.conversion(net).beta, dp.conversion(net).converted
        (0.5, {'1': 'ReLU'})
    """
    root = root_of(module)
    part = None if root is None else part_of(root)
    if part is None:
        raise DualpropError(f"module: this {type(module).__name__} is not converted")
    return part.conversion


def _forget_compiled() -> None:
    """Let torch.compile look at modules again, for it does not notice that hooks come and go."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _free(names: Iterable[str], excluded: set[str]) -> list[str]:
    """Those names of a module under which it is not excluded, nor part of one that is."""
    return [name for name in names if not excluded.intersection((name, *_above(name)))]


def _above(name: str) -> list[str]:
    """The names of all modules that a submodule is part of."""
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts))]
