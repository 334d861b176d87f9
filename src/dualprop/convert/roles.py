"""How the modules of a converted tree differ from what they were: in their class, by another forward.

A class of the same name takes the place of a module's own, so that its parameters, its submodules and its
state_dict stay as they are, and copies, pickles and compiled versions do the same.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dualprop.convert.activations import CALLS, UNKNOWN, FiniteDifference
from dualprop.convert.feedback import forward_with_feedback
from dualprop.convert.record import KEY, Conversion
from dualprop.errors import DualpropError

Forward = Callable[..., Any]


class _Mode(TorchFunctionMode):
    """While active, every call of a known activation goes through `FiniteDifference`."""

    def __init__(self, conversion: Conversion) -> None:
        super().__init__()
        self.conversion = conversion

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, c = kwargs or {}, self.conversion
        activation = CALLS.get(func)
        if activation is None or not c.active:
            if c.active and func in UNKNOWN and UNKNOWN[func] not in c.warned:
                c.warned.add(UNKNOWN[func])
                _warn(func.__name__, ", ".join(c.unknown.get(func.__name__, [])))
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
        drive = a.clone() if in_place else a
        z = FiniteDifference.apply(drive, activation.f, c.alpha, c.scale, tuple(settings))
        return a.copy_(z) if in_place else z


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _warn(function: str, modules: str) -> bool:
    """Warn of an unknown function; torch.compile does so too, when it sees the call."""
    where = f"{modules}: " if modules else ""
    warnings.warn(f"{where}`{function}` is not known to `convert`; it keeps its ordinary derivative", stacklevel=2)
    return True


class _Swapped:
    """What the class of a module in a converted tree has besides its own: a way to be copied and pickled."""

    _made_from: tuple[str, type[nn.Module]]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _remade, self._made_from, self.__dict__


def _remade(role: str, base: type[nn.Module]) -> nn.Module:
    kind = swapped(role, base)
    return kind.__new__(kind)


def swapped(role: str, base: type[nn.Module]) -> type[nn.Module]:
    """The class that a module of class `base` gets: under the same name, with another forward."""
    if (role, base) not in _CLASSES:
        own = {"forward": _FORWARDS[role](base), "_made_from": (role, base), "__module__": base.__module__}
        _CLASSES[role, base] = type(base.__name__, (_Swapped, base), own)
    return _CLASSES[role, base]


def _inner(base: type[nn.Module]) -> Forward:
    """A module whose calls of activations send finite differences back.

    The outermost of a tree also sees how many samples there are: the converted module itself as a rule, or a part
    of it that is called by itself. What is computed again for a backward pass keeps those of the forward pass.
    """

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        conversion: Conversion | None = self.__dict__.get(KEY)
        if conversion is None or conversion.active:  # None: made by a method of a converted module, as a slice is
            return base.forward(self, *args, **kwargs)
        if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
            conversion.samples = _samples(base.__name__, (args, kwargs))
        conversion.active = True
        try:
            with _Mode(conversion):
                return base.forward(self, *args, **kwargs)
        finally:
            conversion.active = False

    return forward


def _samples(name: str, arguments: tuple[Any, ...]) -> int:
    """The length of the first tensor among the arguments of the module of this name, which is to be its batch."""
    x = _first_tensor(arguments)
    if x is None:
        raise DualpropError(f"{name}: no batch among its arguments, so the number of samples is not known")
    if x.shape[0] == 0:
        raise DualpropError("x: a batch of 0 samples")
    _check_finite(x)
    return x.shape[0]


def _first_tensor(values: Iterable[Any]) -> Tensor | None:
    """The first tensor with dimensions, also inside sequences, mappings and dataclasses."""
    for value in values:
        if isinstance(value, Tensor):
            found = value if value.ndim else None
        elif isinstance(value, Mapping):
            found = _first_tensor(value.values())
        elif isinstance(value, list | tuple):
            found = _first_tensor(value)
        else:
            found = _first_tensor(vars(value).values()) if is_dataclass(value) else None
        if found is not None:
            return found
    return None


def _check_finite(x: Tensor) -> None:
    """Refuse a batch to learn from that is not finite; a compiled graph cannot branch on what it holds."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not x.is_floating_point() or not x.numel():
        return
    if not all(map(math.isfinite, torch.aminmax(x.detach()))):
        raise DualpropError("x: NaN or infinite inputs")


def _excluded(base: type[nn.Module]) -> Forward:
    """A module whose activations keep their ordinary derivative inside a converted one."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        conversion: Conversion | None = self.__dict__.get(KEY)
        if conversion is None:
            return base.forward(self, *args, **kwargs)
        before, conversion.active = conversion.active, False
        try:
            return base.forward(self, *args, **kwargs)
        finally:
            conversion.active = before

    return forward


_FORWARDS: dict[str, Callable[[type[nn.Module]], Forward]] = {
    "inner": _inner,
    "excluded": _excluded,
    "feedback": forward_with_feedback,
}
_CLASSES: dict[tuple[str, type[nn.Module]], type[nn.Module]] = {}
