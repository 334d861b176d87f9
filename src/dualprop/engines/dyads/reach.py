"""Where activity and nudge get to in an order of updates: their flags, followed without a number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def learning_layers(inferences: Iterable[Iterable[tuple[Sequence[int], bool]]], depth: int) -> set[int]:
    """The layers whose weights get a gradient in one of several inferences, each from the states before it.

    The gradient (1/β_k)(z_k^- - z_k^+) z̄_{k-1}^T is zero unless, at the end of the inference, layer k has a
    difference and layer k - 1 has left zero. A layer has a difference if the layer above had one when it was last
    updated, layer L if the loss nudged it then.

    Args:
        inferences: the updates of each: layers that are updated at once, and whether the loss nudges layer L.
        depth: L.

    Returns:
        Numbers from 1..L. A layer that is not among them gets exactly zero.

    Example:
        >>> learning_layers([[((1,), True), ((2,), True)]], 2)
        {2}
    """
    active = [True] + [False] * depth  # of layers 0..L: the input is
    different = [False] * (depth + 1)
    learning: set[int] = set()
    for updates in inferences:
        for layers, nudged in updates:
            below = {k: nudged if k == depth else different[k + 1] for k in layers}
            for k, flag in below.items():
                active[k], different[k] = True, flag
        learning |= {k for k in range(1, depth + 1) if different[k] and active[k - 1]}
    return learning
