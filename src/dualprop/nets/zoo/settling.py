"""Perceptrons with top-down edges, whose states settle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from dualprop.arguments import Count, Fraction, Positive, checked
from dualprop.errors import DualpropError
from dualprop.nets.graph import Edge, Graph
from dualprop.nets.net import Net
from dualprop.nets.synapses import Dense, Synapse, Transposed
from dualprop.registry import Registry

TOLERANCE = 1e-5
"""Of the free fixed point: a hundred times what rounding in float32 leaves."""

TopDown = Callable[..., Synapse]
"""From an edge, the strength and what draws new weights to the synapse that leads back down beside it."""


class _Scaled(nn.Module):
    """s B in place of B."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        """s B."""
        return self.scale * weight


def _free(edge: Edge, strength: float, **drawing: Any) -> Dense:
    """s B with weights B of its own, which learn as slowly as the others do: the optimizer's step is theirs."""
    assert isinstance(edge.synapse, Dense)
    synapse = Dense(edge.synapse.out_features, edge.synapse.in_features, bias=False, **drawing)
    register_parametrization(synapse, "weight", _Scaled(strength))
    return synapse


TOP_DOWN: Registry[TopDown] = Registry(
    "top-down edge",
    {
        "symmetric": lambda edge, strength, **drawing: Transposed(edge, scale=strength),
        "skew": lambda edge, strength, **drawing: Transposed(edge, scale=-strength),
        "free": _free,
    },
)
"""What leads back down: s Wᵀ, as in a Hopfield net, -s Wᵀ, or s B with weights B of its own."""


@checked
def hopfield_mlp(
    sizes: Sequence[Count],
    activation: str = "tanh",
    *,
    top_down: str = "symmetric",
    strength: Positive = 0.1,
    damping: Fraction = 0.5,
    output: str = "linear",
    init: str = "glorot-uniform",
    feedback: str = "symmetric",
    generator: torch.Generator | None = None,
) -> Net:
    """A multi-layer perceptron in which every layer above the first drives the one below it, too.

    a_k = W_k z_{k-1} + b_k + T_k z_{k+1}, with T_k = s W_{k+1}ᵀ, -s W_{k+1}ᵀ or s B_k, free. One block update
    trains them all: with T = 0 it is dual propagation, with the first centred equilibrium propagation, with the
    others dyadic learning in skew-symmetric and asymmetric nets.

    Args:
        sizes: neurons in each layer from the input up; at least two.
        activation: the hidden layers' potential, a name in `POTENTIALS`.
        top_down: a name in `TOP_DOWN`: "symmetric", "skew" or "free".
        strength: s. Two layers with weights of spectral norm σ answer each other with gain s σ² at slope 1 of f.
            Well above 1 symmetric nets have several fixed points, whatever the input, and skew-symmetric ones
            settle with damping alone; σ is 2 to 3 in nets of some hundred neurons, trained or not.
        damping: λ in [0, 1) of the free fixed point: skew-symmetric edges settle for s σ² < (1 + λ)/(1 - λ).
        output: the output layer's potential.
        init: the initial weights, a name in `INITS`.
        feedback: "symmetric"; tied edges have no feedback weights of their own.
        generator: where the initial weights come from; torch's global one by default.

    Returns:
        The net, a graph with cycles; it takes x of shape (B, sizes[0]), or any with as many elements a sample.

    Raises:
        DualpropError: for fewer than two sizes, another feedback, or an unknown name.

    Example:
        >>> import torch
        >>> net = hopfield_mlp([784, 64, 64, 10])
        >>> print(net.wiring)
        1. layer1 <- x, layer2
        2. layer2 <- layer1, layer3
        3. layer3 <- layer2 (output)
        >>> net(torch.rand(2, 784)).shape
        torch.Size([2, 10])

    References:
        Høier et al., *Dyadic learning in recurrent and feedforward models*, 2024.
    """
    if len(sizes) < 2:
        raise DualpropError(f"sizes={list(sizes)}: a net needs an input and an output size")
    if feedback != "symmetric":
        raise DualpropError(f"feedback={feedback!r}: tied edges go with 'symmetric' alone")
    lead_down = TOP_DOWN[top_down]
    drawing: dict[str, Any] = {"init": init, "generator": generator}
    g, last = Graph(), len(sizes) - 1
    nodes = [g.input("x")]
    for k, (below, above) in enumerate(pairwise(sizes), 1):
        potential = output if k == last else activation
        nodes.append(g.layer(f"layer{k}", {nodes[-1]: Dense(below, above, **drawing)}, potential))
    for lower, upper in pairwise(nodes[1:]):
        g.connect(upper, lower, lead_down(g.edge(lower, upper), strength, **drawing))
    return g.net(nodes[-1:], tolerance=TOLERANCE, damping=damping)
