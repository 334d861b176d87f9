"""Ways of working by their words, as they are recorded."""

from __future__ import annotations

from collections.abc import Callable

from dualprop.arguments import Count, read
from dualprop.errors import DualpropError
from dualprop.registry import Registry
from dualprop.training.workers.held import Held
from dualprop.training.workers.in_flight import InFlight
from dualprop.training.workers.worker import Way

WAYS: Registry[Callable[[int], Way]] = Registry("way", {"in-flight": InFlight, "held": Held})


def parsed(word: str) -> Way:
    """The way that a word names.

    Raises:
        DualpropError: for a word that names none.

    Example:
        >>> parsed("in-flight:8"), parsed("held")
        (InFlight(batches=8), Held(updates=1, beat=0.02, patience=5.0))
    """
    name, colon, number = word.partition(":")
    make = WAYS[name]
    if not colon:
        return make()  # type: ignore[call-arg]
    try:
        return make(read(number, Count))
    except DualpropError as error:
        raise DualpropError(f"way={word!r}: {error}") from None
