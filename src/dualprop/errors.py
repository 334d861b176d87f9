"""The library's errors: one clear line each, raised before work starts."""

from __future__ import annotations

import math


class DualpropError(ValueError):
    """A wrong argument, setting or file. The message is one line that says what is allowed."""


class UnknownNameError(DualpropError, KeyError):
    """A name that a registry does not hold; the message suggests near matches."""

    def __str__(self) -> str:
        return str(self.args[0])


class DataError(DualpropError):
    """A data file that is missing, truncated, tampered with or not what its name says."""


class CheckpointError(DualpropError):
    """A run folder or a checkpoint that cannot be read, or that belongs to something else."""


class DivergenceError(DualpropError, ArithmeticError):
    """The loss, a weight or a state became NaN or infinite, or an inference moved away from its fixed point."""


class Interrupted(DualpropError):
    """Ctrl-C or SIGTERM stopped a run between two steps, after its checkpoint was saved."""


def check_type(name: str, value: object, kind: type) -> None:
    """Refuse an argument of another type.

    Args:
        name: what the caller knows it by.
        value: what was given.
        kind: what it must be.

    Raises:
        DualpropError: naming all three.
    """
    if not isinstance(value, kind):
        given = value.__name__ if isinstance(value, type) else type(value).__name__
        place = {"torch.nn.modules.module": "torch.nn.", "builtins": ""}
        package = place.get(kind.__module__, kind.__module__.partition(".")[0] + ".")
        raise DualpropError(f"{name}: of type {given}, but it must be of type {package}{kind.__name__}")


def at_least_one(**values: object) -> None:
    """Refuse numbers that are not whole or below 1.

    Raises:
        DualpropError: naming the first of them.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DualpropError(f"{name}={value!r}: must be a whole number of at least 1")


def positive(**values: object) -> None:
    """Refuse what is not a positive and finite number.

    Raises:
        DualpropError: naming the first of them.
    """
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise DualpropError(f"{name}={value!r}: must be positive and finite")


def not_negative(**values: object) -> None:
    """Refuse what is not a finite number of at least 0.

    Raises:
        DualpropError: naming the first of them.
    """
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise DualpropError(f"{name}={value!r}: must be a finite number of at least 0")


def seeds(**values: object) -> None:
    """Refuse what no generator takes as its seed.

    Raises:
        DualpropError: naming the first of them.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise DualpropError(f"{name}={value!r}: must be a whole number of at least 0, below 2**63")
