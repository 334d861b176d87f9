"""What arguments may be, declared once by their annotations and checked by one decorator.

An annotation gives an argument's type and range, its line in the docstring's `Args:` the help. The check, its
one-line error and the command line all read them there.

Example:
    >>> @checked
    ... def grow(rate: Positive, layers: Count = 2) -> float:
    ...     return rate * layers
    >>> grow(1, layers=3)
    3.0
    >>> grow(rate=-1)
    Traceback (most recent call last):
    ...
    dualprop.errors.DualpropError: rate=-1: must be a finite number above 0
"""

from dualprop.arguments._checking import check, check_entries, checked, declared, per_layer, read
from dualprop.arguments._kinds import (
    Count,
    CountOrZero,
    Fraction,
    Grey,
    In,
    NotNegative,
    Number,
    PerLayer,
    Portion,
    Positive,
    PositivePortion,
    Seed,
    Several,
)
from dualprop.arguments._wording import allowed

__all__ = [
    "Count",
    "CountOrZero",
    "Fraction",
    "Grey",
    "In",
    "NotNegative",
    "Number",
    "PerLayer",
    "Portion",
    "Positive",
    "PositivePortion",
    "Seed",
    "Several",
    "allowed",
    "check",
    "check_entries",
    "checked",
    "declared",
    "per_layer",
    "read",
]
