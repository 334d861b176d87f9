"""Kinds of arguments: numbers in a range, one or several of them, names in a registry.

A kind of one's own is declared alike: `Annotated[Count, Field(multiple_of=2)]`.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from dualprop.registry import Registry

T = TypeVar("T")

LARGE = 2**63
"""What no signed integer of 64 bits reaches."""


def _real(value: object) -> object:
    """Numbers of Python and numpy, and words where words are read; no array or tensor, be it of one element."""
    if not isinstance(value, numbers.Real | str):
        raise ValueError("not a number")
    return value


def _whole(value: object) -> object:
    """Whole numbers of numpy as Python's own."""
    return value if isinstance(value, bool) or not isinstance(value, numbers.Integral) else int(value)


Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_real)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_real)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_real)]
Portion = Annotated[float, Field(ge=0, le=1), BeforeValidator(_real)]
"""From 0 to 1, both included."""
PositivePortion = Annotated[float, Field(gt=0, le=1), BeforeValidator(_real)]
Fraction = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_real)]
"""From 0 to 1, which is not reached."""

Count = Annotated[int, Field(ge=1, lt=LARGE), BeforeValidator(_whole)]
CountOrZero = Annotated[int, Field(ge=0, lt=LARGE), BeforeValidator(_whole)]
Grey = Annotated[int, Field(ge=0, le=255), BeforeValidator(_whole)]
"""A grey level, from black to white."""
Seed = CountOrZero
"""What a generator takes."""

PerLayer = Union[T, Sequence[T]]  # noqa: UP007 - with | it would be no alias to mypy
"""One for all layers, or one for each."""
Several = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple, made of a list if need be."""


@dataclass(frozen=True, eq=False)  # told apart by identity: a registry has no hash
class In:
    """Names in a registry: `Annotated[str, In(RULES)]`. What is no word is left to the rest of a union.

    Args:
        registry: what holds them.
    """

    registry: Registry[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Look a word up before anything else is checked, for the error that names near matches."""
        return core_schema.no_info_before_validator_function(self._known, handler(source))

    def _known(self, value: Any) -> Any:
        if isinstance(value, str):
            self.registry[value]
        return value
