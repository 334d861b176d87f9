"""What there is to convert in a module: its activations, and what one might take for one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
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
    """The activations of a module: itself, those that its attributes hold or the code that forward runs names."""
    kind = type(module)
    if not has_own_code(kind):
        return [kind.__name__] if kind.__name__ in NAMES else []
    values = [value for value in _held(vars(module)) if isinstance(value, Hashable)]
    held = [CALLS[value].name for value in values if value in CALLS]
    for potential in (value for value in values if isinstance(value, Potential)):  # a dp.Layer's
        held += [name for m in potential.module().modules() if (name := type(m).__name__) in NAMES]
    return sorted({*held, *_named_activations(_named_in(module))})


def activations_outside_forward(module: nn.Module) -> dict[str, list[str]]:
    """The activations named in the code of public methods that forward does not run, by the method's name."""
    methods = _methods(module) if has_own_code(type(module)) else {}
    run = _run_by(("forward", "__call__"), module, methods)
    others = [name for name, own in methods.items() if not run.intersection(own) and not name.startswith("_")]
    found = {name: _named_activations(_used_by(_run_by((name,), module, methods), module)) for name in others}
    return {name: sorted(kinds) for name, kinds in found.items() if kinds}


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


def _named_activations(names: set[str]) -> set[str]:
    return {_FUNCTIONS[name] for name in names if name in _FUNCTIONS}


def _methods(module: nn.Module) -> dict[str, list[Any]]:
    """The functions that the methods of a module's classes are: several where one overrides another."""
    classes = [base for base in type(module).__mro__ if issubclass(base, nn.Module) and has_own_code(base)]
    methods: dict[str, list[Any]] = {}
    for base in classes:
        for name, value in vars(base).items() if base is not nn.Module else ():
            f = getattr(value, "__func__", getattr(value, "fget", value))  # of static methods and properties
            if isfunction(f):
                methods.setdefault(name, []).append(f)
    return methods


def _run_by(names: Iterable[str], module: nn.Module, methods: Mapping[str, Sequence[Any]]) -> set[Any]:
    """The methods of these names, and those that they name, and so on."""
    run, todo = set[Any](), [f for name in names for f in methods.get(name, ())]
    while todo:
        f = todo.pop()
        run.add(f)
        todo += [other for name in _used_by([f], module) for other in methods.get(name, ()) if other not in run]
    return run


def _named_in(module: nn.Module) -> set[str]:
    """Every name that the code uses which forward runs or the module holds, but those of its submodules."""
    held = {value for value in _held(vars(module)) if isfunction(value)}
    return _used_by(held | _run_by(("forward", "__call__"), module, _methods(module)), module)


def _used_by(functions: Iterable[Any], module: nn.Module) -> set[str]:
    """Every name that functions and those of their files that they call use, but those of submodules."""
    todo, seen, names = list(functions), set[Any](), set[str]()
    while todo:
        f = todo.pop()
        if f in seen:
            continue
        seen.add(f)
        used = _names(f.__code__)
        names |= used
        helpers = (f.__globals__.get(name) for name in used)
        todo += [helper for helper in helpers if isfunction(helper) and helper.__module__ == f.__module__]
    return names - dict(module.named_children()).keys()


def _names(code: CodeType) -> set[str]:
    """The names that a function's code uses, and the functions inside it."""
    inside = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inside)
