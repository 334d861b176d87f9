"""Libraries that come with an extra of this package, for the parts that need them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

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
        library = str(error.name).partition(".")[0]
        line = f"{wanted or f'dualprop.{name}'}: needs {library}, not installed; {way_to(name)}"
        raise MissingExtraError(line) from None


def way_to(name: str) -> str:
    """How one gets the libraries of an extra, wherever this package came from.

    Args:
        name: of the extra.

    Returns:
        The command, with the libraries that the package's metadata names.
    """
    try:
        lines = metadata.requires("dualprop") or []
    except metadata.PackageNotFoundError:  # a checkout that is imported without being installed
        lines = []
    extra_of = re.compile(rf"""([^;]+); extra == ["']{name}["']""")
    brought = [f'"{line[1].strip()}"' for line in map(extra_of.fullmatch, lines) if line]
    return f"pip install {' '.join(brought)}" if brought else f"it comes with the extra {name}"
