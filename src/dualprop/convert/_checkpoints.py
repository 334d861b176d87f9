"""Functions that a non-reentrant checkpoint computes again are to save what they saved the first time.

They are called again from the backward pass, outside of every module, where no hook sees them. A checkpoint keeps
the function for that in a frame; here it is made to run in the same mode again.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

_PACKS = "_checkpoint_hook.__init__.<locals>.pack_hook"


class Mode(AbstractContextManager[Any], Protocol):
    """What runs meanwhile."""

    def again(self) -> Mode:
        """The same for what is computed again."""


def keep_for_recomputation(mode: Mode) -> None:
    """Where a call is inside a non-reentrant checkpoint, let what it computes again run in this mode."""
    if torch.compiler.is_compiling():
        return
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    pack: Any = hooks[0] if hooks else None
    if getattr(pack, "__qualname__", "") != _PACKS:
        return
    cells = [cell.cell_contents for cell in pack.__closure__ or ()]
    frame = next(content for content in cells if hasattr(content, "recompute_fn"))
    if not isinstance(frame.recompute_fn, _Again):
        frame.recompute_fn = _Again(frame.recompute_fn, mode)


class _Again:
    """A function that runs in the mode of the first time."""

    def __init__(self, function: Any, mode: Mode) -> None:
        self.function = function
        self.mode = mode.again()

    def __call__(self, *args: Any) -> None:
        with self.mode.again():
            self.function(*args)
