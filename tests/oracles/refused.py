"""What every error of the library is: one line, not too long, that names what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dualprop.errors import DualpropError


@contextmanager
def refused(match: str, kind: type[DualpropError] = DualpropError) -> Iterator[None]:
    """A context in which an error of this kind must be raised whose line this expression finds."""
    with pytest.raises(kind, match=match) as caught:
        yield
    message = str(caught.value)
    assert message.strip()
    assert "\n" not in message
    assert len(message) < 400
