"""What an annotation allows, in words."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from dualprop.arguments._kinds import LARGE, In

_NUMBERS = {float: "number", int: "whole number"}
_OTHERS: dict[Any, tuple[str, str]] = {  # one, and several
    bool: ("true or false", "true or false"),
    str: ("a word", "words"),
    types.NoneType: ("none", "none"),
    Mapping: ("a table", "tables"),
    Callable: ("a function", "functions"),
    Any: ("anything", "anything"),
}
_LISTS = (list, tuple, Sequence)


def refusal(name: str, value: Any, annotation: Any) -> str:
    """The one line about an argument that is wrong: its name, its value and what is allowed."""
    words = allowed(annotation)
    if isinstance(value, int) and value >= LARGE:
        words += ", below 2**63"
    shown = " ".join(repr(value).split())
    if (
        isinstance(value, bool | int | float | complex | str | bytes | list | tuple | dict | None)
        and len(shown) < 100
    ):
        return f"{name}={shown}: must be {words}"
    given = value.__name__ if isinstance(value, type) else type(value).__name__
    return f"{name}: of type {given}, but it must be {words}"


def allowed(annotation: Any, *, several: bool = False) -> str:
    """What an argument may be.

    Args:
        annotation: what declares it.
        several: whether to speak of many of them.

    Example:
        >>> from dualprop.arguments import Fraction, PerLayer, Positive
        >>> allowed(Positive), allowed(PerLayer[Fraction]), allowed(list[int] | None)
        ('a finite number above 0', 'a number in [0, 1) or a list of such', 'none or a list of whole numbers')
    """
    info = FieldInfo.from_annotation(annotation)
    kind: Any = info.annotation.__bound__ if isinstance(info.annotation, TypeVar) else info.annotation
    origin, parts = get_origin(kind) or kind, get_args(kind)
    for m in info.metadata:
        if isinstance(m, In):
            others = [allowed(part) for part in parts if part is not str]
            return " or ".join([*others, f"one of {', '.join(m.registry)}"])
    if origin in (Union, types.UnionType):
        return _alternatives(parts)
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin in _LISTS:
        return f"{'lists' if several else 'a list'} of {allowed(parts[0], several=True)}"
    if origin in _NUMBERS:
        return _number(_NUMBERS[origin], info.metadata, several)
    if origin in _OTHERS:
        of = (
            f" of {allowed(parts[1], several=True)}" if origin is Mapping and parts and parts[1] is not Any else ""
        )
        return f"{_OTHERS[origin][several]}{of}"
    return f"{_package(kind)}{kind.__name__}s" if several else f"a {_package(kind)}{kind.__name__}"


def _alternatives(parts: Sequence[Any]) -> str:
    """What a union allows, lists last; a list of what it allows by itself, too, is one of "such"."""
    lists = [part for part in parts if get_origin(FieldInfo.from_annotation(part).annotation) in _LISTS]
    words = [allowed(part) for part in parts if part not in lists]
    such = ["a list of such" if get_args(one)[0] in parts else allowed(one) for one in lists]
    return " or ".join([*words, *such])


def _number(noun: str, metadata: Sequence[Any], several: bool) -> str:
    """A kind of number with its range; no more is said of the largest whole numbers."""
    names = ("gt", "ge", "lt", "le", "multiple_of", "allow_inf_nan")
    bounds = {name: getattr(m, name) for m in metadata for name in names if hasattr(m, name)}
    noun = noun if bounds.get("allow_inf_nan", True) else f"finite {noun}"
    noun = f"{noun}s" if several else f"a {noun}"
    step = f", a multiple of {bounds['multiple_of']}" if "multiple_of" in bounds else ""
    low, high = bounds.get("gt", bounds.get("ge")), bounds.get("le", bounds.get("lt"))
    if low is None:
        return noun + step
    if high in (None, LARGE):
        return f"{noun} {'above' if 'gt' in bounds else 'of at least'} {low}{step}"
    left, right = "(" if "gt" in bounds else "[", "]" if "le" in bounds else ")"
    return f"{noun} in {left}{low}, {bounds.get('le', high)}{right}{step}"


def _package(kind: type) -> str:
    """Where a class is public."""
    place = {"torch.nn.modules.module": "torch.nn.", "builtins": ""}
    return place.get(kind.__module__, kind.__module__.partition(".")[0] + ".")
