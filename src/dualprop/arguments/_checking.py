"""The check of arguments against their annotations, by pydantic."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Unpack, cast, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, validate_call

from dualprop.arguments._kinds import PerLayer
from dualprop.arguments._wording import refusal
from dualprop.errors import DualpropError
from dualprop.files import parse_json
from dualprop.registry import near

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
"""Also as JSON does not write them: .5, 1., +2."""

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
_LATER = ConfigDict(strict=True, arbitrary_types_allowed=True, defer_build=True)  # at the first call


def checked(function: F) -> F:
    """Check the arguments of a function, a constructor or a dataclass against their annotations, at every call.

    Strict: True and "3" are no numbers. Numbers of numpy are, and come as Python's own; a whole number comes as a
    float where a float is declared. Defaults are not checked. Signature and docstring stay.

    Args:
        function: what is decorated; of a class it is the constructor.

    Raises:
        DualpropError: when called with an argument that is missing, unknown, of another type or out of range.
    """
    if isinstance(function, type):
        _read_where_written(function)
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function

    @functools.wraps(function)
    def collect(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    check = cast("Callable[..., tuple[Any, Any]]", validate_call(config=_LATER)(collect))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            args, kwargs = check(*args, **kwargs)
        except ValidationError as error:
            raise _refused(function, args, kwargs, error) from None
        return function(*args, **kwargs)

    return cast("F", call)


def _read_where_written(kind: type) -> None:
    """Give a dataclass the types of the fields that it inherits; their names mean nothing in its own module."""
    base = next(filter(dataclasses.is_dataclass, kind.__mro__[1:]), None)
    if base is not None and dataclasses.is_dataclass(kind):
        inherited, own = get_type_hints(base, include_extras=True), inspect.get_annotations(kind)
        arguments = cast(Any, kind).__init__.__annotations__
        arguments |= {name: inherited[name] for name in arguments if name in inherited and name not in own}


def check(name: str, value: Any, annotation: Any) -> Any:
    """One value, checked as `checked` checks an argument.

    Args:
        name: what the caller knows it by.
        value: what was given.
        annotation: what it must be.

    Returns:
        The value, numbers of numpy as Python's own.

    Raises:
        DualpropError: naming all three.

    Example:
        >>> from dualprop.arguments import Positive
        >>> check("rates", [1, 0], list[Positive])
        Traceback (most recent call last):
        ...
        dualprop.errors.DualpropError: rates=[1, 0]: must be a list of finite numbers above 0
    """
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError as error:
        raise _ours(error) or DualpropError(refusal(name, value, annotation)) from None


def check_entries(table: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Entries of a table, each checked as `check` checks a value; one that is missing counts as None.

    Args:
        table: may have others, too.
        kinds: for each name what its entry must be.

    Raises:
        DualpropError: for the first that is something else.
    """
    for name, kind in kinds.items():
        check(name, table.get(name), kind)


def read(text: str, annotation: Any) -> Any:
    """The value that a word of the command line stands for.

    Args:
        text: for example "0.5", "true" or "1,1,0.5".
        annotation: what it is to become; several of something are separated by commas. `Any` is read as JSON.

    Returns:
        The value, or what else the word may mean, for the check to refuse.

    Example:
        >>> from dualprop.arguments import Count, PerLayer, Positive, Several
        >>> read("3", int), read("256,256", Several[Count]), read("1,0.5", PerLayer[Positive]), read("x", float)
        (3, (256, 256), [1.0, 0.5], 'x')
    """
    for value in (text, text.split(",")) if annotation is not Any else ():
        try:
            return _adapter(annotation).validate_python(value, strict=False)
        except ValidationError:
            pass
    try:
        return parse_json(text)
    except ValueError:
        return float(text) if _NUMBER.fullmatch(text) else text


def per_layer(name: str, value: PerLayer[T], count: int, what: str = "layers") -> tuple[T, ...]:
    """One value for each layer.

    Args:
        name: what the caller knows it by.
        value: one for all of them, or a list.
        count: how many there must be.
        what: what there are so many of.

    Raises:
        DualpropError: for a list of another length.

    Example:
        >>> per_layer("beta", 0.5, 3)
        (0.5, 0.5, 0.5)
    """
    if not isinstance(value, Sequence):
        return (value,) * count
    if len(value) != count:
        raise DualpropError(f"{name}={list(value)}: {len(value)} numbers, but the net has {count} {what}")
    return tuple(value)


def declared(function: Callable[..., Any]) -> dict[str, Any]:
    """What every argument of a function or constructor may be, `Any` where it is not said.

    Of `**others: Unpack[Others]` these are the entries of `Others`.
    """
    kinds: dict[str, Any] = {}
    for name, p in inspect.signature(function, eval_str=True).parameters.items():
        if get_origin(p.annotation) is Unpack:
            kinds |= get_type_hints(get_args(p.annotation)[0], include_extras=True)
        else:
            kinds[name] = Any if p.annotation is p.empty else p.annotation
    return kinds


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=_STRICT)


def _ours(error: ValidationError) -> DualpropError | None:
    """An error of this library's that a validator has raised: it says all there is to say."""
    raised = (each.get("ctx", {}).get("error") for each in error.errors(include_url=False))
    return next((ours for ours in raised if isinstance(ours, DualpropError)), None)


def _refused(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], error: ValidationError
) -> DualpropError:
    """The one line about the first argument that is wrong."""
    if ours := _ours(error):
        return ours
    first = error.errors(include_url=False)[0]
    what = type(args[0]).__name__ if function.__name__ == "__init__" else function.__qualname__
    kinds = declared(function)
    place = first["loc"][0] if first["loc"] else first["input"]  # a name that is no Unicode has no place
    if first["type"].startswith("missing"):
        return DualpropError(f"{place}: missing; {what} needs it")
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden") or not first["loc"]:
        known = [name for name in kinds if name != "self"]
        return DualpropError(f"{place}: {what} has no such argument; {near(place, known)}")
    if first["type"] == "unexpected_positional_argument":
        return DualpropError(f"{what}: got more arguments than it takes, {args[int(place)]!r}")
    if first["type"] == "multiple_argument_values":
        return DualpropError(f"{place}: given to {what} twice")
    name, value = (list(kinds)[place], args[place]) if isinstance(place, int) else (place, kwargs[place])
    return DualpropError(refusal(name, value, kinds[name]))
