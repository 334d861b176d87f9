"""Libraries that come with an extra of this package, for the parts that need them."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from packaging.requirements import Requirement

from dualprop.errors import MissingExtraError


@contextmanager
def extra(name: str, wanted: str | None = None) -> Iterator[None]:
    """A context for imports in which a library that is missing is one line, with the way to get it.

    Args:
        name: of the extra.
        wanted: what needs the library, an argument for example; by default the module of the extra's name.

    Raises:
        MissingExtraError: if one is missing.

    Example:
        >>> with extra("river"):  # doctest: +ELLIPSIS
        ...     import a_library_that_nobody_has
        Traceback (most recent call last):
        ...
        dualprop.errors.MissingExtraError: dualprop.river: needs a_library_that_nobody_has, not installed; ...
    """
    try:
        yield
    except ModuleNotFoundError as error:
        line = f"{wanted or f'dualprop.{name}'}: needs {error.name}, not installed; {way_to(name)}"
        raise MissingExtraError(line) from None


def way_to(name: str) -> str:
    """How one gets the libraries of an extra, wherever this package came from.

    Args:
        name: of the extra.

    Returns:
        The command with the libraries that the package's metadata names for this Python; without any, why.
    """
    try:
        lines = metadata.requires("dualprop") or []
    except metadata.PackageNotFoundError:  # a checkout that is imported without being installed
        lines = []
    brought = [
        each for each in map(Requirement, lines) if each.marker and f'extra == "{name}"' in str(each.marker)
    ]
    here = [
        f'"{each.name}{each.specifier}"'
        for each in brought
        if each.marker and each.marker.evaluate({"extra": name})
    ]
    if here:
        return f"pip install {' '.join(here)}"
    without = f", which has nothing for Python {platform.python_version()}" if brought else ""
    return f"it comes with the extra {name}{without}"
