"""Libraries that come with an extra of this package, for the parts that need them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dualprop.errors import MissingExtraError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """A context for imports in which a library that is missing is one line, with the way to get it.

    Args:
        name: of the extra.

    Raises:
        MissingExtraError: if one is missing.

    Example:
        >>> with extra("river"):
        ...     import a_library_that_nobody_has
        Traceback (most recent call last):
        ...
        dualprop.errors.MissingExtraError: a_library_that_nobody_has: not installed; pip install "dualprop[river]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(f'{error.name}: not installed; pip install "dualprop[{name}]"') from None
