"""Batches of one's own, gone through once an epoch, and on from the middle of one as if it had not stopped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dualprop.errors import DualpropError
from dualprop.rules.state import restored, saved

Batch = tuple[Tensor, Tensor]


class Repeated:
    """The same batches in every epoch, or those that a `DataLoader` draws anew.

    A loader draws an epoch's order when the epoch begins. To go on within one, the generators are put where they
    were then, and the batches that were trained are drawn again.

    Args:
        batches: a list, a `DataLoader` or the like, of a known length; no iterator, which runs out.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        if not isinstance(batches, Iterable) or isinstance(batches, Iterator) or not hasattr(batches, "__len__"):
            kind = type(batches).__name__
            raise DualpropError(f"data: {kind}, but it must be a list of batches, a DataLoader or a Batches")
        self.batches: Any = batches
        if not len(self):
            raise DualpropError("data: holds no batch")
        self._own = _generators(batches)
        self._begun = self._states()

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches from number `start` on."""
        if not start:
            self._begun = self._states()
            return iter(self.batches)
        now = torch.get_rng_state()
        restored({"global": torch.default_generator, **self._own}, self._begun, "data")
        left: Iterator[Batch] = iter(self.batches)
        for _ in range(start):
            next(left, None)
        torch.set_rng_state(now)
        return left

    def _states(self) -> dict[str, Any]:
        states: dict[str, Any] = saved({"global": torch.default_generator, **self._own})
        return states

    def state_dict(self) -> dict[str, Any]:
        """The states of the loader's generators, now and when the epoch began."""
        return {"own": saved(self._own), "begun": dict(self._begun)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: if it is of other generators.
        """
        kept = restored({"own": saved(self._own), "begun": self._begun}, state, "data")
        restored(self._own, kept["own"], "data")
        self._begun = kept["begun"]


def _generators(batches: Any) -> dict[str, torch.Generator]:
    """A loader's own ones, if it has any."""
    holders = {"loader": batches, "sampler": getattr(batches, "sampler", None)}
    found = {name: getattr(holder, "generator", None) for name, holder in holders.items()}
    return {name: one for name, one in found.items() if isinstance(one, torch.Generator)}
