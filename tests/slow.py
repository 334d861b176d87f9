"""Which cases of a test are for `make test-all` alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def but_slow(values: Iterable[Any], *slow: Any) -> list[Any]:
    """The values of a parameter, these of them marked `slow`."""
    values = list(values)
    assert set(slow) < set(values), "they are among the values, and one is left for `make test`"
    return [pytest.param(value, marks=pytest.mark.slow) if value in slow else value for value in values]
