"""The shapes of a net's states, and whether its synapses fit the layers at their ends."""

from __future__ import annotations

from collections.abc import Sequence

from dualprop.errors import DualpropError
from dualprop.nets.synapses import Dense, Synapse, Transposed
from dualprop.nets.wiring import Wiring

Shape = tuple[int, ...]


def check_fit(wiring: Wiring, synapses: Sequence[Synapse]) -> None:
    """Refuse synapses that cannot be where they are, as far as that is known without an input's shape.

    Dense ones have to fit the layers at their ends, as far as these are dense, too; one that is tied to another, a
    net that has the other.

    Args:
        wiring: how the layers are connected.
        synapses: on the edges, in the order of `wiring.edges`.

    Raises:
        DualpropError: naming the edge.
    """
    firsts = [synapses[into[0]] for into in wiring.into[1:]]
    widths = {k: synapse.out_features for k, synapse in enumerate(firsts, 1) if isinstance(synapse, Dense)}
    for e, ((source, target), synapse) in enumerate(zip(wiring.edges, synapses, strict=True)):
        if not isinstance(synapse, Dense) or synapse.pool is not None:
            continue
        for k, does, width in (
            (source, "takes", synapse.in_features),
            (target, "gives", synapse.out_features),
        ):
            if widths.get(k, width) != width:
                raise DualpropError(
                    f"net: edge {wiring.arrow(e)}: {does} {width} neurons, but {wiring.name(k)} has {widths[k]}"
                )
    for e, synapse in enumerate(synapses):
        if isinstance(synapse, Transposed) and not any(synapse.tied is other for other in synapses):
            raise DualpropError(
                f"net: edge {wiring.arrow(e)}: the synapse that it is the transpose of is not in the net"
            )


def propagated(wiring: Wiring, synapses: Sequence[Synapse], inputs: Sequence[Shape]) -> dict[int, Shape]:
    """The shapes of one sample of every state, by number; inputs are 0, -1, ...

    Args:
        wiring: how the layers are connected.
        synapses: on the edges, in the order of `wiring.edges`.
        inputs: the inputs' shapes, without the batch.

    Raises:
        DualpropError: if a layer does not take what comes into it.
    """
    shapes = {-n: shape for n, shape in enumerate(inputs)}
    edges = wiring.edges
    firsts = [next(e for e in into if edges[e][0] < k) for k, into in enumerate(wiring.into[1:], 1)]
    e = 0
    try:
        for e in firsts:
            shapes[edges[e][1]] = synapses[e].out_shape(shapes[edges[e][0]])
        for e, (source, target) in enumerate(() if wiring.is_chain else edges):
            synapses[e].check_joins(shapes[source], shapes[target])
    except DualpropError as error:
        if wiring.is_chain and e == 0:
            raise  # the input is to blame, not the net
        raise DualpropError(f"net: edge {wiring.arrow(e)}: {error}") from None
    return shapes
