"""How records, machines, commits and settings are called in a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dualprop.studies._machine import machine
from dualprop.studies._table import Table


class Machines:
    """What records were made on, by letters in the order of their appearance."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def letter(self, environment: Mapping[str, Any]) -> str:
        """That of one; empty where nothing is known."""
        if not environment:
            return ""
        words = machine({**environment, "git_commit": None})
        return self._letters.setdefault(words, _letter(len(self._letters)))

    def table(self) -> Table:
        """Letters and words."""
        return Table(
            "",
            ("machine", "what it is"),
            [(letter, words) for words, letter in self._letters.items()],
            ("what it is",),
        )


def _letter(number: int) -> str:
    """A, B, ..., Z, AA, ..."""
    before, last = divmod(number, 26)
    return (_letter(before - 1) if before else "") + chr(ord("A") + last)


def commit(environment: Mapping[str, Any]) -> str:
    """The commit's first letters, with a + where sources were changed; empty where none is known."""
    if not environment or not environment["git_commit"]:
        return ""
    return f"{environment['git_commit'][:8]}{'+' if environment['git_dirty'] else ''}"


def folders(paths: Iterable[Path], roots: Sequence[Path]) -> dict[Path, str]:
    """What records' folders are called: from the name of the folder on that was given, wherever that is."""
    named = {}
    for path in paths:
        root = next(root for root in roots if path == root or root in path.parents)
        named[path] = (Path(root.resolve().name) / path.relative_to(root)).as_posix()
    return named


def listed(words: Iterable[str]) -> str:
    """Each once, without empty ones."""
    return ", ".join(dict.fromkeys(filter(None, words)))


def together(names: Sequence[str]) -> str:
    """Names with what they begin with said once.

    Example:
        >>> together(["mnist/dp-seed0", "mnist/dp-seed1"])
        'mnist/dp-seed{0,1}'
    """
    if len(names) < 2:
        return "".join(names)
    length = next((n for n, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), None)
    start = min(names)[:length]
    return f"{start}{{{','.join(name[len(start) :] for name in names)}}}"


def assignments(values: Mapping[str, Any]) -> str:
    """Names and values as one would type them.

    Example:
        >>> assignments({"beta": 0.30000000004, "hidden": (8, 8)})
        'beta=0.3, hidden=[8, 8]'
    """
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())


def shown(value: object) -> str:
    """A value as one would type it, rounded to what a reader wants to know."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(list(value) if isinstance(value, tuple) else value)
