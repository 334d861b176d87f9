"""Named things: a dictionary that says what it holds when asked for what it does not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

from dualprop.errors import UnknownNameError

T = TypeVar("T")


class Registry(dict[str, T]):
    """A dictionary of one `kind` of thing, for example rules or potentials.

    Example:
        >>> colours = Registry("colour", red=1, green=2)
        >>> colours["gren"]
        Traceback (most recent call last):
        ...
        dualprop.errors.UnknownNameError: unknown colour 'gren': did you mean 'green' or 'red'? Known: red, green
    """

    def __init__(self, kind: str, /, *entries: dict[str, T], **named: T) -> None:
        super().__init__(*entries, **named)
        self.kind = kind

    def __repr__(self) -> str:
        """Its names: what they stand for fills a screen."""
        return f"<{self.kind}: {', '.join(self)}>"

    def __getitem__(self, name: str) -> T:
        try:
            return super().__getitem__(name)
        except TypeError:  # a list, say, which no name can be
            return self.__missing__(name)

    def __missing__(self, name: object) -> T:
        raise UnknownNameError(f"unknown {self.kind} {name!r}: {near(name, self)}")


def near(name: object, known: Iterable[str]) -> str:
    """What was perhaps meant by a name, and all that there is."""
    known = list(known)
    by_lower = {each.lower(): each for each in known}
    matches = difflib.get_close_matches(str(name).lower(), by_lower, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(by_lower[match]) for match in matches)}? " if matches else ""
    return f"{hint}Known: {', '.join(known)}"
