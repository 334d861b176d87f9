"""The library's errors: one clear line each, raised before work starts."""

from __future__ import annotations


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
