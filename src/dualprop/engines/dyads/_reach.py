"""Where activity and nudge get to in an order of updates: their flags, followed without a number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dualprop.nets.wiring import Wiring


def learning_layers(inferences: Iterable[Iterable[tuple[Sequence[int], bool]]], wiring: Wiring) -> set[int]:
    """The layers whose weights get a gradient in one of several inferences, each from the states before it.

    The gradient (1/β_k)(z_k^- - z_k^+) z̄_j^T of an edge into layer k is zero unless, at the end of the inference,
    layer k has a difference and its source j has left zero. A layer has a difference if one that it drives had one
    when it was last updated; an output also if its loss nudged it then.

    Args:
        inferences: the updates of each: layers that are updated at once, and whether the losses nudge the outputs.
        wiring: the graph.

    Returns:
        Numbers from 1..L. A layer that is not among them gets exactly zero.

    Example:
        >>> learning_layers([[((1,), True), ((2,), True)]], Wiring.chain(2))
        {2}
    """
    edges, numbers = wiring.edges, wiring.out_of
    active = {k: k < 1 for k in numbers}  # the inputs are
    different = dict.fromkeys(numbers, False)
    learning: set[int] = set()
    for updates in inferences:
        for layers, nudged in updates:
            above = {k: any(different[edges[e][1]] for e in wiring.out_of[k]) for k in layers}
            for k, flag in above.items():
                active[k], different[k] = True, flag or (nudged and k in wiring.outputs)
        for k in range(1, wiring.depth + 1):
            if different[k] and any(active[edges[e][0]] for e in wiring.into[k]):
                learning.add(k)
    return learning


def updates_to_learn(wiring: Wiring) -> dict[int, int]:
    """How many updates, in the right order, bring activity up to a loss and its nudge down to each layer.

    One for every layer on the longest way up from the inputs to an output, then one for every layer below on the
    longest way down; 2L - k in a chain. Ways lead by edges to later layers. Of several outputs the one counts that
    takes the fewest. A layer from which no such way leads to an output is left out.

    Example:
        >>> updates_to_learn(Wiring.chain(3))
        {1: 5, 2: 4, 3: 3}
    """
    layers, rising = range(1, wiring.depth + 1), [edge for edge in wiring.edges if edge[0] < edge[1]]
    up = dict.fromkeys(wiring.out_of, 0)
    for k in layers:
        up[k] = 1 + max(up[source] for source, target in rising if target == k)
    fewest: dict[int, int] = {}
    for output in wiring.outputs:
        count = {output: up[output]}
        for k in range(output - 1, 0, -1):
            above = [count[target] for source, target in rising if source == k and target in count]
            if above:
                count[k] = 1 + max(above)
        for k, updates in count.items():
            fewest[k] = min(updates, fewest.get(k, updates))
    return dict(sorted(fewest.items()))
