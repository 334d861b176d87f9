"""The library's errors: one clear line each, raised before work starts."""

from __future__ import annotations

LONGEST = 4000
"""Characters that are shown of one text at most."""


def printable(text: str) -> str:
    r"""A text that may come from a file or a file's name, as a terminal may have it.

    Args:
        text: any characters. What is not printable, for example an escape sequence or a change of the writing
            direction, becomes a backslash and its number; what is too long loses its middle.

    Example:
        >>> print(printable("dog \x1b[31m"))
        dog \x1b[31m
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class DualpropError(ValueError):
    """A wrong argument, setting or file. The message is one line that says what is allowed.

    Whatever files and their names put into it is shown as `printable` has it.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(arg) if isinstance(arg, str) else arg for arg in args))


class UnknownNameError(DualpropError, KeyError):
    """A name that a registry does not hold; the message suggests near matches."""

    def __str__(self) -> str:
        return str(self.args[0])


class MissingExtraError(DualpropError, ImportError):
    """A library that comes with an extra of this package, and is not installed."""


class DataError(DualpropError):
    """A data file that is missing, truncated, tampered with or not what its name says."""


class CheckpointError(DualpropError):
    """A run folder or a checkpoint that cannot be read, or that belongs to something else."""


class DivergenceError(DualpropError, ArithmeticError):
    """The loss, a weight or a state became NaN or infinite, or an inference moved away from its fixed point."""


class Interrupted(DualpropError):
    """Ctrl-C or SIGTERM stopped a run between two steps, after its checkpoint was saved."""
