"""Dual propagation for any PyTorch module: its activations send finite differences back.

After `convert`, `loss.backward()` is dual propagation. Everything else about the module stays: its parameters, its
outputs, its state_dict, and how it works with autocast, torch.compile, checkpointing and data parallelism.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from inspect import isfunction
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dualprop.activations import CALLS, NAMES, FiniteDifference
from dualprop.errors import DualpropError, check_type
from dualprop.registry import Registry

Forward = Callable[..., Any]

logger = logging.getLogger("dualprop")

REDUCTIONS: Registry[Callable[[int], int]] = Registry("reduction", {"mean": lambda n: n, "sum": lambda n: 1})
"""By what the incoming signal is scaled back, given the number of samples."""

_KEY = "_dualprop"
_FUNCTIONS = {call.__name__: activation.name for call, activation in CALLS.items()}
_ORDINARY = ("Norm", "Pool", "Softmax", "MultiheadAttention", "Dropout")
_UNKNOWN = (
    "PReLU",
    "RReLU",
    "GLU",
    "Mish",
    "SELU",
    "CELU",
    "Softsign",
    "LogSigmoid",
    "Threshold",
    "RNN",
    "LSTM",
    "GRU",
)


@dataclass
class Conversion:
    """What `convert` did to a module, and what its activations need to know.

    Attributes:
        alpha: α in [0, 1].
        beta: the strength of the nudges.
        reduction: how the loss reduces the batch, "mean" or "sum".
        converted: the activation of each converted module, by the module's name.
        left_alone: why each other module with something like an activation was not, by its name.
    """

    alpha: float
    beta: float
    reduction: str
    converted: dict[str, str] = field(default_factory=dict)
    left_alone: dict[str, str] = field(default_factory=dict)
    samples: int = 1
    active: bool = False

    def __str__(self) -> str:
        converted, alone = (
            ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(of.values()).items()))
            for of in (self.converted, self.left_alone)
        )
        return f"converted: {converted or 'nothing'}; left alone: {alone or 'nothing'}"


class _Mode(TorchFunctionMode):
    """While active, every call of a known activation goes through `FiniteDifference`."""

    def __init__(self, conversion: Conversion) -> None:
        super().__init__()
        self.conversion = conversion

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        activation = CALLS.get(func)
        if activation is None or not self.conversion.active:
            return func(*args, **kwargs)
        values = list(args[1:])
        for name, default in activation.settings[len(values) :]:
            values.append(kwargs.get(name, default))
        a = args[0] if args else kwargs["input"]
        in_place = activation.in_place
        settings = []
        for (name, _), value in zip(activation.settings, values, strict=True):
            if name == "inplace":
                in_place = value
            else:
                settings.append(value)
        c = self.conversion
        scale = c.beta * REDUCTIONS[c.reduction](c.samples)
        drive = a.clone() if in_place else a
        z = FiniteDifference.apply(drive, activation.f, c.alpha, scale, tuple(settings))
        return a.copy_(z) if in_place else z


class _Swapped:
    """What the class of a module in a converted tree has besides its own: a way to be copied and pickled."""

    _made_from: tuple[str, type[nn.Module]]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _remade, self._made_from, self.__dict__


def _remade(role: str, base: type[nn.Module]) -> nn.Module:
    kind = _swapped(role, base)
    return kind.__new__(kind)


def _swapped(role: str, base: type[nn.Module]) -> type[nn.Module]:
    """The class that a module of class `base` gets: under the same name, with another forward."""
    if (role, base) not in _CLASSES:
        own = {"forward": _FORWARDS[role](base), "_made_from": (role, base), "__module__": base.__module__}
        _CLASSES[role, base] = type(base.__name__, (_Swapped, base), own)
    return _CLASSES[role, base]


def _inner(base: type[nn.Module]) -> Forward:
    """A module whose calls of activations send finite differences back."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        conversion: Conversion = self.__dict__[_KEY]
        if conversion.active:
            return base.forward(self, *args, **kwargs)
        conversion.active = True
        try:
            with _Mode(conversion):
                return base.forward(self, *args, **kwargs)
        finally:
            conversion.active = False

    return forward


def _root(base: type[nn.Module]) -> Forward:
    """The converted module itself, which also sees how many samples there are."""
    inner = _inner(base)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        x = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if x is not None and x.ndim:
            if x.shape[0] == 0:
                raise DualpropError("x: a batch of 0 samples")
            self.__dict__[_KEY].samples = x.shape[0]
        return inner(self, *args, **kwargs)

    return forward


def _excluded(base: type[nn.Module]) -> Forward:
    """A module whose activations keep their ordinary derivative inside a converted one."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        conversion: Conversion = self.__dict__[_KEY]
        before, conversion.active = conversion.active, False
        try:
            return base.forward(self, *args, **kwargs)
        finally:
            conversion.active = before

    return forward


_FORWARDS: dict[str, Callable[[type[nn.Module]], Forward]] = {
    "inner": _inner,
    "root": _root,
    "excluded": _excluded,
}
_CLASSES: dict[tuple[str, type[nn.Module]], type[nn.Module]] = {}


def convert(
    module: nn.Module,
    *,
    alpha: float = 0.5,
    beta: float = 1.0,
    exclude: Iterable[str] = (),
    reduction: str = "mean",
) -> nn.Module:
    """Make `loss.backward()` through a module dual propagation, in place.

    Every ReLU, LeakyReLU, ReLU6, Hardtanh, Hardsigmoid, Hardswish, Sigmoid, Tanh, SiLU, GELU, ELU and Softplus, be
    it a module, a function or a method, in place or not, sends (f(a + ᾱ s g) - f(a - α s g))/s back in place of
    f'(a) g, with s = βB for B samples. Everything else (batch norm, attention, max-pool, products) keeps its
    ordinary derivative.

    Args:
        module: any module. Its first tensor argument has the samples in dimension 0.
        alpha: α in [0, 1].
        beta: the strength of the nudges, positive and finite; as β → 0 the gradient becomes back-propagation's.
        exclude: names of submodules, as in `named_modules`, whose activations are left alone.
        reduction: how the loss reduces the batch: "mean" (the incoming signal is scaled back by the number of
            samples, so β means the same at every batch size) or "sum".

    Returns:
        The module itself. `conversion(module)` says what was converted and what was not. A loss scaled by
        anything else, as by a `GradScaler`, scales the nudges with it.

    Raises:
        DualpropError: for a value out of range, a name that is no submodule, a module that is converted already,
            or one with nothing to convert.

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
        raise DualpropError(f"alpha={alpha!r}: must be a number in [0, 1]")
    if not isinstance(beta, int | float) or not 0 < beta < math.inf:
        raise DualpropError(f"beta={beta!r}: must be positive and finite")
    REDUCTIONS[reduction]
    modules, excluded = dict(module.named_modules()), {exclude} if isinstance(exclude, str) else set(exclude)
    for name in excluded - {name for name in modules if name}:
        raise DualpropError(f"exclude: {name!r} is not a submodule of {type(module).__name__}")
    for name, m in modules.items():
        if _KEY in m.__dict__:
            raise DualpropError(f"module: {name or type(module).__name__} is converted already")
    made = Conversion(alpha, beta, reduction)
    swaps: dict[nn.Module, type[nn.Module]] = {}
    for name, m in modules.items():
        kind = type(m)
        above = [name.rpartition(".")[0]]
        while above[-1]:
            above.append(above[-1].rpartition(".")[0])
        if excluded.intersection(above):
            continue
        if name in excluded:
            swaps[m] = _swapped("excluded", kind)
            made.left_alone[name] = "excluded"
            continue
        if found := _activations_of(m):
            made.converted[name] = ", ".join(found)
        elif not _has_own_code(kind) and (why := _reason(kind)):
            made.left_alone[name] = why
        if found or _has_own_code(kind):
            swaps[m] = _swapped("inner", kind)
    if not made.converted:
        raise DualpropError(f"module: {type(module).__name__} has no activation to convert; {made}")
    swaps[module] = _swapped("root", type(module))
    for m, kind in swaps.items():
        m.__dict__[_KEY] = made
        m.__class__ = kind
    logger.info("%s: %s", type(module).__name__, made)
    for name, why in made.left_alone.items():
        if "not known" in why:
            warnings.warn(f"{name}: left alone, {why}; it keeps its ordinary derivative", stacklevel=2)
    return module


def conversion(module: nn.Module) -> Conversion:
    """What `convert` did to a module.

    Raises:
        DualpropError: if it is not converted.
    """
    found = module.__dict__.get(_KEY)
    if not isinstance(found, Conversion):
        raise DualpropError(f"module: this {type(module).__name__} is not converted")
    return found


def _has_own_code(kind: type[nn.Module]) -> bool:
    """Whether calls of functions may stand in its methods: all but PyTorch's own leaves."""
    return not kind.__module__.startswith("torch.nn.modules") or kind.__module__.endswith("transformer")


def _activations_of(module: nn.Module) -> list[str]:
    """The activations of a module: itself, those that its attributes hold or the code of its methods names."""
    kind = type(module)
    if not _has_own_code(kind):
        return [kind.__name__] if kind.__name__ in NAMES else []
    held = [CALLS[value].name for value in vars(module).values() if isinstance(value, Hashable) and value in CALLS]
    classes = [base for base in kind.__mro__ if issubclass(base, nn.Module) and _has_own_code(base)]
    code = [f.__code__ for base in classes if base is not nn.Module for f in vars(base).values() if isfunction(f)]
    names = {name for c in code for name in c.co_names} - dict(module.named_children()).keys()
    named = [_FUNCTIONS[name] for name in names if name in _FUNCTIONS]
    return sorted({*held, *named})


def _reason(kind: type[nn.Module]) -> str | None:
    """Why one of PyTorch's own modules is left alone, if anybody might have expected otherwise."""
    if kind.__name__.startswith(_UNKNOWN):
        return f"{kind.__name__} (not known to `convert`)"
    return f"{kind.__name__} (ordinary derivative)" if any(part in kind.__name__ for part in _ORDINARY) else None
