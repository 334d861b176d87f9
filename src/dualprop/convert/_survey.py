"""What there is to convert in a module: its activations, and what one might take for one."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from inspect import isfunction
from types import CodeType
from typing import Any

from torch import nn

from dualprop.convert.activations import CALLS, NAMES, UNKNOWN, Activation
from dualprop.nets.potentials import Potential

_FUNCTIONS = {call.__name__: made.name for call, made in CALLS.items() if isinstance(made, Activation)}
_ORDINARY = ("Norm", "Pool", "Softmax", "MultiheadAttention", "Dropout")
_UNKNOWN_MODULES = frozenset(UNKNOWN.values())
_RECURRENT = ("RNN", "LSTM", "GRU")


def has_own_code(kind: type[nn.Module]) -> bool:
    """Whether calls of functions may stand in its methods: all but PyTorch's own leaves."""
    return not kind.__module__.startswith("torch.nn.modules") or kind.__module__.endswith("transformer")


def activations_of(module: nn.Module) -> list[str]:
    """The activations of a module: itself, those that its attributes hold or the code of its methods names."""
    kind = type(module)
    if not has_own_code(kind):
        return [kind.__name__] if kind.__name__ in NAMES else []
    values = [value for value in _held(vars(module)) if isinstance(value, Hashable)]
    held = [CALLS[value].name for value in values if value in CALLS]
    for potential in (value for value in values if isinstance(value, Potential)):  # a dp.Layer's
        held += [name for m in potential.module().modules() if (name := type(m).__name__) in NAMES]
    named = [_FUNCTIONS[name] for name in _named_in(module) if name in _FUNCTIONS]
    return sorted({*held, *named})


def unknown_to(module: nn.Module) -> list[str]:
    """The functions that `convert` does not know and the code of a module's methods names."""
    names = _named_in(module) if has_own_code(type(module)) else set()
    return sorted(names.intersection(call.__name__ for call in UNKNOWN))


def reason(kind: type[nn.Module]) -> str | None:
    """Why one of PyTorch's own modules is left alone, if anybody might have expected otherwise."""
    name = kind.__name__
    if has_own_code(kind):
        return None
    if name in _UNKNOWN_MODULES or name.startswith(_RECURRENT):
        return f"{name} (not known to `convert`)"
    return f"{name} (ordinary derivative)" if any(part in name for part in _ORDINARY) else None


def _held(value: Any) -> Iterator[Any]:
    """A value, or what is in it if it is a sequence or mapping."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        yield value
        return
    for item in value:
        yield from _held(item)


def _named_in(module: nn.Module) -> set[str]:
    """Every name that a module's methods, and functions they call or hold, use, but those of its submodules."""
    classes = [base for base in type(module).__mro__ if issubclass(base, nn.Module) and has_own_code(base)]
    functions = [f for base in classes if base is not nn.Module for f in vars(base).values() if isfunction(f)]
    functions += [value for value in _held(vars(module)) if isfunction(value)]
    seen: set[Any] = set()
    names: set[str] = set()
    while functions:
        f = functions.pop()
        if f in seen:
            continue
        seen.add(f)
        used = _names(f.__code__)
        names |= used
        helpers = (f.__globals__.get(name) for name in used)
        functions += [helper for helper in helpers if isfunction(helper) and helper.__module__ == f.__module__]
    return names - dict(module.named_children()).keys()


def _names(code: CodeType) -> set[str]:
    """The names that a function's code uses, and the functions inside it."""
    inside = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inside)
