"""A net as PyTorch's own modules, on the very parameters."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from torch import fx, nn

from dualprop.errors import DualpropError
from dualprop.nets.synapses import Dense
from dualprop.nets.wiring import Wiring

if TYPE_CHECKING:
    from dualprop.nets.net import Layer


def plain_chain(layers: Sequence[Layer]) -> nn.Sequential:
    """The modules of a chain one after the other; what does nothing is left out."""
    modules: list[nn.Module] = []
    flat = False
    for layer in layers:
        modules += [m for m in layer.synapse.plain() if not (flat and isinstance(m, nn.Flatten))]
        modules.append(layer.potential.module())
        flat = isinstance(layer.synapse, Dense)
    return nn.Sequential(*(m for m in modules if not isinstance(m, nn.Identity)))


def plain_graph(wiring: Wiring, layers: Sequence[Layer]) -> fx.GraphModule:
    """The modules of a graph, which takes its inputs one by one.

    Raises:
        DualpropError: for a graph with cycles.
    """
    if wiring.cyclic:
        raise DualpropError("net: has cycles, and the states that it settles in are no output of plain modules")
    graph, modules = fx.Graph(), nn.ModuleDict()

    def through(module: nn.Module, name: str, node: fx.Node) -> fx.Node:
        if isinstance(module, nn.Identity):
            return node
        modules[name] = module
        return graph.call_module(name, (node,))

    states = {-n: graph.placeholder(name) for n, name in enumerate(wiring.inputs)}
    for k, layer in enumerate(layers, 1):
        drives = []
        for number, (e, synapse) in enumerate(zip(wiring.into[k], layer.synapses, strict=True)):
            node = states[wiring.edges[e][0]]
            for place, module in enumerate(synapse.plain()):
                node = through(module, f"{wiring.name(k)}_{number}_{place}", node)
            drives.append(node)
        drive = reduce(lambda a, b: graph.call_function(operator.add, (a, b)), drives)
        states[k] = through(layer.potential.module(), wiring.name(k), drive)
    outputs = tuple(states[k] for k in wiring.outputs)
    graph.output(outputs if len(outputs) > 1 else outputs[0])
    return fx.GraphModule(modules, graph)
