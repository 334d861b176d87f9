"""Ways of working by their words, as they are recorded."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

from dualprop.arguments import read
from dualprop.errors import DualpropError
from dualprop.registry import Registry
from dualprop.training.workers.held import Held
from dualprop.training.workers.in_flight import InFlight
from dualprop.training.workers.worker import Way

WAYS: Registry[type[Any]] = Registry("way", {"in-flight": InFlight, "held": Held})


def parsed(word: str) -> Way:
    """The way that a word names, its first setting behind a colon, the others by their names.

    Raises:
        DualpropError: for a word that names none.

    Example:
        >>> parsed("in-flight:8"), parsed("held"), parsed("held:3,beat=0.1")
        (InFlight(batches=8), Held(updates=1, beat=0.02, patience=5.0), Held(updates=3, beat=0.1, patience=5.0))
    """
    name, colon, settings = word.partition(":")
    make = WAYS[name]
    kinds = get_type_hints(make, include_extras=True)
    own, given = [field.name for field in fields(make)], dict[str, Any]()
    try:
        for at, setting in enumerate(settings.split(",") if colon else []):
            key, equals, value = setting.partition("=")
            if not equals and at == 0:
                key, value = own[0], key
            if key not in own:
                raise DualpropError(f"unknown setting {key!r}; choose from {', '.join(own)}")
            given[key] = read(value, kinds[key])
        way: Way = make(**given)
    except DualpropError as error:
        raise DualpropError(f"way={word!r}: {error}") from None
    return way


def worded(way: Way) -> str:
    """The word that `parsed` makes a way of again.

    Raises:
        DualpropError: for what is no way of working.

    Example:
        >>> worded(InFlight(8)), worded(Held(3, beat=0.1))
        ('in-flight:8', 'held:3,beat=0.1')
    """
    name = next((name for name, kind in WAYS.items() if type(way) is kind), None)
    if name is None:
        raise DualpropError(f"way={way!r}: must be InFlight(...), Held(...) or a word for one of them")
    first, *others = fields(type(way))  # type: ignore[arg-type]
    own = [f"{field.name}={value}" for field in others if (value := getattr(way, field.name)) != field.default]
    return f"{name}:{','.join([str(getattr(way, first.name)), *own])}"
