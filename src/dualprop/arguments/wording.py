"""What an annotation allows, in words."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from dualprop.arguments.kinds import LARGE, In

_NAMES: dict[Any, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a word",
    types.NoneType: "none",
    Mapping: "a table",
    dict: "a table",
}
_LISTS = (list, tuple, Sequence)


def refusal(name: str, value: Any, annotation: Any) -> str:
    """The one line about an argument that is wrong: its name, its value and what is allowed."""
    shown = " ".join(repr(value).split())
    if (
        isinstance(value, bool | int | float | complex | str | bytes | list | tuple | dict | None)
        and len(shown) < 100
    ):
        return f"{name}={shown}: must be {allowed(annotation)}"
    given = value.__name__ if isinstance(value, type) else type(value).__name__
    return f"{name}: of type {given}, but it must be {allowed(annotation)}"


def allowed(annotation: Any) -> str:
    """What an argument may be.

    Example:
        >>> from dualprop.arguments import Fraction, PerLayer, Positive
        >>> allowed(Positive), allowed(PerLayer[Fraction]), allowed(str | None)
        ('a finite number above 0', 'a number in [0, 1) or a list of such', 'a word or none')
    """
    info = FieldInfo.from_annotation(annotation)
    kind: Any = info.annotation
    origin, parts = get_origin(kind) or kind, get_args(kind)
    for m in info.metadata:
        if isinstance(m, In):
            others = [allowed(part) for part in parts if part is not str]
            return " or ".join([*others, f"one of {', '.join(m.registry)}"])
    if origin in (Union, types.UnionType):
        return _alternatives(parts)
    if origin in _LISTS:
        return f"a list, each {allowed(parts[0])}"
    if origin in _NAMES:
        return _within(_NAMES[origin], info.metadata)
    return f"a {_package(kind)}{kind.__name__}"


def _alternatives(parts: Sequence[Any]) -> str:
    """What a union allows; a list of what it allows by itself, too, is one of "such"."""
    lists = [part for part in parts if get_origin(part) in _LISTS and get_args(part)[0] in parts]
    words = [allowed(part) for part in parts if part not in lists]
    return " or ".join([*words, *["a list of such" for _ in lists]])


def _within(noun: str, metadata: Sequence[Any]) -> str:
    """A kind of number with its range."""
    names = ("gt", "ge", "lt", "le", "multiple_of", "allow_inf_nan")
    bounds = {name: getattr(m, name) for m in metadata for name in names if hasattr(m, name)}
    noun = noun if bounds.get("allow_inf_nan", True) else noun.replace("a number", "a finite number")
    step = f", a multiple of {bounds['multiple_of']}" if "multiple_of" in bounds else ""
    low, high = bounds.get("gt", bounds.get("ge")), bounds.get("lt", bounds.get("le"))
    if low is None:
        return noun + step
    if high == LARGE:
        step += ", below 2**63"
    elif high is not None:
        left, right = "(" if "gt" in bounds else "[", ")" if "lt" in bounds else "]"
        return f"{noun} in {left}{low}, {high}{right}{step}"
    return f"{noun} {'above' if 'gt' in bounds else 'of at least'} {low}{step}"


def _package(kind: type) -> str:
    """Where a class is public."""
    place = {"torch.nn.modules.module": "torch.nn.", "builtins": ""}
    return place.get(kind.__module__, kind.__module__.partition(".")[0] + ".")
