"""What every source of frames is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from dualprop.nets.shapes import Shape


class Item(NamedTuple):
    """What comes in at a tick.

    Attributes:
        x: the frame; None for one that was dropped, or where only a label comes.
        y: its class; None for not yet.
        first: whether it is the first view of a picture, the one that is judged.
        frame: what the frame is called; of a label that comes late, its frame.
        unread: why there is nothing, where something could not be read.
        at: where it came from, in words; "" where that goes without saying.
    """

    x: Tensor | None
    y: int | None = None
    first: bool = True
    frame: int | str | None = None
    unread: str = ""
    at: str = ""


class Source(ABC):
    """Frames, one after the other.

    Attributes:
        in_shape: of a frame.
        classes: how many there are at first.
        length: how many items there will be; None where nobody knows.
        grows: whether features and classes come that were not there at first.
        dropped: how many items found no place to wait for the learner.
    """

    in_shape: Shape
    classes: int
    length: int | None = None
    grows = False

    @property
    def dropped(self) -> int:
        """How many items found no place to wait for the learner, since it began."""
        return 0

    @abstractmethod
    def items(self, start: int) -> Iterator[Item | None]:
        """The items from a number on, the same at every call; None for nothing yet.

        Args:
            start: the number of the first; a source that cannot go back goes on where it is.
        """

    def digest(self, items: int) -> str:
        """What tells the first items from those of another source; "" where nothing does.

        Args:
            items: how many.
        """
        return ""

    def state_dict(self) -> dict[str, Any]:
        """What it has learnt."""
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Take back what `state_dict` gave."""


def mixed(*numbers: int) -> int:
    """A seed that depends on all of them."""
    return hash(numbers) % 2**63  # of whole numbers, which is the same in every process
