"""A net: layers of synapses and potentials, in a chain or in any graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from dualprop.arguments import Count, Fraction, In, NotNegative, check, checked
from dualprop.errors import DivergenceError, DualpropError
from dualprop.nets.drawing import Drawing, drawn
from dualprop.nets.plain import plain_chain, plain_graph
from dualprop.nets.potentials import POTENTIALS, Potential
from dualprop.nets.shapes import Shape, check_fit, propagated
from dualprop.nets.synapses import Dense, Synapse, layout
from dualprop.nets.wiring import Wiring

Inputs = Tensor | tuple[Tensor, ...]


class Layer(nn.Module):
    """One layer of neurons and the synapses into it: z_k = f_k(Σ_j A_jk(z_j)), in a chain f_k(A_k(z_{k-1})).

    Args:
        synapse: the map A_k from the layer below.
        potential: the potential G_k of its neurons, or a name in `POTENTIALS`.
        also: further synapses into it, by name; in a chain there are none.

    Example:
        >>> import torch, dualprop as dp
        >>> layer = Layer(dp.Dense(4, 3), "tanh")
        >>> layer(torch.zeros(2, 4)).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    synapse: Synapse

    @checked
    def __init__(
        self,
        synapse: Synapse,
        potential: Annotated[Potential | str, In(POTENTIALS)] = "relu",
        also: Mapping[str, Synapse] | None = None,
    ) -> None:
        super().__init__()
        self.synapse = synapse
        self.also = nn.ModuleDict(dict(also or {}))
        self.potential = POTENTIALS[potential] if isinstance(potential, str) else potential

    @property
    def synapses(self) -> list[Synapse]:
        """All synapses into it."""
        modules = self._modules  # which attributes would be looked up in, more slowly
        return [modules["synapse"], *modules["also"]._modules.values()]  # type: ignore[union-attr, list-item]

    def forward(self, *z: Tensor) -> Tensor:
        """f of the sum of A(z) over the synapses, one state for each; shape (B, *out_shape)."""
        drive = self.synapse(z[0])
        for synapse, state in zip(self.also.values(), z[1:], strict=True):
            drive = drive + synapse(state)
        return self.potential(drive)

    def extra_repr(self) -> str:
        """What `print(net)` says of this layer besides its synapses."""
        return f"potential={self.potential}"


class Net(nn.Module):
    """Layers k = 1..L: a chain, or a graph that `dualprop.Graph` has built. It holds weights alone.

    `net(x)` is the ordinary forward pass, differentiable by autograd. On a graph with cycles it is the free fixed
    point, without autograd and in full precision: sweeps up through all layers, from states at zero, until none
    moves by more than `tolerance`, relatively. Rules (`dualprop.RULES`) read its layers and write states of their
    own.

    Args:
        layers: at least one `Layer`, from the input up; in a graph each with a synapse for every edge into it, in
            the order of the wiring.
        wiring: how they are connected, as `dualprop.Graph` gives it; a chain by default.
        tolerance: the largest relative change of a state, in a sweep, at the free fixed point of a cyclic graph.
        sweeps: how many of them it may take.
        damping: λ in [0, 1), the part of its old state that a layer keeps in them.

    Raises:
        DualpropError: if there is no layer, or a layer of several synapses in a chain.

    Example:
        >>> import torch
        >>> from dualprop import Dense, Layer, Net
        >>> net = Net([Layer(Dense(4, 8), "tanh"), Layer(Dense(8, 3), "linear")])
        >>> net(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        *,
        wiring: Wiring | None = None,
        tolerance: float = 1e-6,
        sweeps: int = 1000,
        damping: float = 0.0,
    ) -> None:
        super().__init__()
        stack = check("layers", list(layers) if isinstance(layers, Iterable) else layers, list[Layer])
        if not stack:
            raise DualpropError("layers: a net needs at least one")
        if wiring is None and any(layer.also for layer in stack):
            raise DualpropError("layers: one has several synapses; dualprop.Graph makes nets of such layers")
        self.layers = nn.ModuleList(stack)
        self.wiring = wiring or Wiring.chain(len(stack))
        self.tolerance: float = check("tolerance", tolerance, NotNegative)
        self.sweeps: int = check("sweeps", sweeps, Count)
        self.damping: float = check("damping", damping, Fraction)
        self._shapes: dict[tuple[Shape, ...], dict[int, Shape]] = {}
        check_fit(self.wiring, self.synapses)

    @property
    def ideal(self) -> Net:
        """This net without the devices that a rule has it on: itself, but for the net of such a rule."""
        return self

    @property
    def chain(self) -> list[Layer]:
        """The layers from the input up; layer k of the equations is chain[k - 1].

        Raises:
            DualpropError: if this net is no chain.
        """
        if not self.wiring.is_chain:
            raise DualpropError(f"net: must be a chain, but {self.wiring.unlike_a_chain}")
        return self.stack

    @property
    def stack(self) -> list[Layer]:
        """The layers in their order, however they are connected."""
        return list(self._modules["layers"]._modules.values())  # type: ignore[union-attr, arg-type]

    @property
    def synapses(self) -> list[Synapse]:
        """The synapses on the edges, in the order of `wiring.edges`."""
        if self.wiring.is_chain:
            return [layer._modules["synapse"] for layer in self.stack]  # type: ignore[misc]
        return [synapse for layer in self.stack for synapse in layer.synapses]

    def __len__(self) -> int:
        """L, the number of layers."""
        return len(self.layers)

    def forward(self, x: Inputs) -> Inputs:
        """The outputs' states: a tensor (B, *out_shape), or a tuple of them in their order if there are several.

        Args:
            x: the input, shape (B, ...); a tuple of them if the net has several inputs.

        Raises:
            DualpropError: for another number of inputs.
            DivergenceError: if the states of a graph with cycles do not settle.
        """
        if self.wiring.is_chain and isinstance(x, Tensor):
            for layer in self.layers:
                x = layer(x)
            return x
        states = self.states(x)
        return self.packed([states[k] for k in self.wiring.outputs])

    def states(self, x: Inputs) -> dict[int, Tensor]:
        """The states of inputs and layers in the forward pass, by number; see `forward`."""
        states = self.inputs(x)
        if self.wiring.cyclic:
            with torch.autocast(states[0].device.type, enabled=False):  # its rounding would go on moving them
                return states | self._settled(states)
        for k, layer in enumerate(self.stack, 1):
            states[k] = layer(*(states[self.wiring.edges[e][0]] for e in self.wiring.into[k]))
        return states

    def inputs(self, x: Inputs) -> dict[int, Tensor]:
        """The inputs by their numbers 0, -1, ...

        Raises:
            DualpropError: for another number of them.
        """
        given = x if isinstance(x, tuple) else (x,)
        self.check_inputs(given)
        return {-number: each for number, each in enumerate(given)}

    def check_inputs(self, given: Sequence[Tensor]) -> None:
        """Refuse another number of inputs than the net has.

        Raises:
            DualpropError: naming those that it has.
        """
        names = self.wiring.inputs
        if len(given) != len(names):
            raise DualpropError(f"x: {len(given)} inputs, but the net has {len(names)} ({', '.join(names)})")

    def packed(self, outputs: Sequence[Tensor]) -> Inputs:
        """One tensor where there is one output, otherwise a tuple."""
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    @torch.no_grad()
    def _settled(self, inputs: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The free fixed point of layers 1..L."""
        x, edges, into = inputs[0], self.wiring.edges, self.wiring.into
        shapes = self.state_shapes([tuple(inputs[-n].shape[1:]) for n in range(len(inputs))])
        states = {**inputs, **{k: zeros(x, shapes[k]) for k in range(1, len(self) + 1)}}
        for sweep in range(1, self.sweeps + 1):
            moved = 0.0
            for k, layer in enumerate(self.stack, 1):
                old, new = states[k], layer(*(states[edges[e][0]] for e in into[k]))
                states[k] = torch.lerp(new, old, self.damping) if self.damping else new
                change = float(torch.linalg.vector_norm(states[k] - old, dtype=torch.float64))
                if not math.isfinite(change):
                    raise DivergenceError(
                        f"the free states diverged at sweep {sweep}, layer {k} ({self.wiring.name(k)}): "
                        "NaN or infinite"
                    )
                if change:
                    moved = max(moved, change / float(torch.linalg.vector_norm(states[k], dtype=torch.float64)))
            if moved <= self.tolerance:
                return {k: states[k] for k in range(1, len(self) + 1)}
        raise DivergenceError(
            f"the free states do not settle within {self.sweeps} sweeps: they still move by {moved:.3g} of their "
            f"norm, but the tolerance is {self.tolerance:g}; give the net more damping or more sweeps"
        )

    def widen(self, *, inputs: int = 0, outputs: int = 0) -> None:
        """Give a chain further input features and output neurons; see `Dense.widen`.

        What it said of a sample it goes on saying, whatever the new features are: their weights are zero at first,
        and so is what the new neurons say, where they are linear.

        Args:
            inputs: how many more features, behind the others.
            outputs: how many more neurons, behind the others.

        Raises:
            DualpropError: for a net whose first or last synapse is not dense, or has a pool.

        Example:
            >>> import torch, dualprop as dp
            >>> net = dp.nets.mlp([2, 3, 1])
            >>> net.widen(inputs=1, outputs=2)
            >>> net(torch.ones(5, 3)).shape
            torch.Size([5, 3])
        """
        first, last = self.chain[0].synapse, self.chain[-1].synapse
        for synapse in (first, last):
            if not isinstance(synapse, Dense) or synapse.pool is not None:
                raise DualpropError(f"net: {synapse} cannot be widened; a dense synapse without a pool can")
        assert isinstance(first, Dense)
        assert isinstance(last, Dense)
        first.widen(first.in_features + inputs, first.out_features)
        last.widen(last.in_features, last.out_features + outputs)
        self._shapes.clear()

    def plain(self) -> nn.Module:
        """The net of PyTorch's own modules that does what this one does, to train by autograd, convert or export.

        Returns:
            Pools, `Flatten`, `Linear`, `Conv2d` and activations in a `torch.nn.Sequential`, or of a graph in a
            `torch.fx.GraphModule`, which takes several inputs one by one. It has the parameters themselves, no
            copies: what trains one trains both, and a weight that two layers share stays shared. Feedback weights
            B, which no forward pass goes through, are left out. What PyTorch has no module for (a soft-max pool, a
            rescaled activation, a synapse of one's own or with parametrized weights) is a module that calls this
            net's.

        Raises:
            DualpropError: if this net has cycles: its states settle, which no module of PyTorch's does.

        Example:
            >>> import torch, dualprop as dp
            >>> dp.nets.mlp([4, 8, 3], "tanh").plain()
            Sequential(
              (0): Flatten(start_dim=1, end_dim=-1)
              (1): Linear(in_features=4, out_features=8, bias=True)
              (2): Tanh()
              (3): Linear(in_features=8, out_features=3, bias=True)
            )
        """
        return plain_chain(self.stack) if self.wiring.is_chain else plain_graph(self.wiring, self.stack)

    def draw(self, *in_shapes: Shape) -> Drawing:
        """A picture of the net: printed it is text, in a notebook SVG (`draw().svg`).

        Args:
            in_shapes: the shapes of one sample of the inputs; by default the last that the net has seen, or those
                that its dense edges tell.

        Raises:
            DualpropError: for shapes that the net does not take.

        Example:
            >>> import dualprop as dp
            >>> dp.nets.mlp([4, 8, 3], "tanh").draw()
              x                       (4,)
                ↓ Dense(4, 8)
            1 layer1  tanh            (8,)
                ↓ Dense(8, 3)
            2 layer2  linear  output  (3,)
        """
        shapes = self.state_shapes(in_shapes) if in_shapes else self._known_shapes()
        return drawn(self.wiring, self.synapses, [layer.potential for layer in self.stack], shapes)

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return self.draw().svg

    def _known_shapes(self) -> dict[int, Shape]:
        """Of the states, as far as they are known without a batch."""
        if self._shapes:
            return list(self._shapes.values())[-1]
        wiring = self.wiring
        firsts = [self.synapses[wiring.out_of[-n][0]] for n in range(len(wiring.inputs))]
        features = [(s.in_features,) for s in firsts if isinstance(s, Dense) and s.pool is None]
        return self.state_shapes(features) if len(features) == len(firsts) else {}

    def shapes(self, in_shape: Shape) -> list[Shape]:
        """The shapes of one sample of z_0 .. z_L, for a net with one input.

        Args:
            in_shape: that of the input x, without the batch.

        Raises:
            DualpropError: if a layer does not take what comes into it.
        """
        shapes = self.state_shapes([tuple(in_shape)])
        return [shapes[k] for k in range(len(self) + 1)]

    def state_shapes(self, in_shapes: Sequence[Shape]) -> dict[int, Shape]:
        """The shapes of one sample of every state, by number; inputs are 0, -1, ...

        Args:
            in_shapes: those of the inputs, without the batch.

        Raises:
            DualpropError: for another number of inputs, or if a layer does not take what comes into it.
        """
        key = tuple(map(tuple, in_shapes))
        if len(key) != len(self.wiring.inputs):
            raise DualpropError(f"x: {len(key)} shapes, but the net has {len(self.wiring.inputs)} inputs")
        if key not in self._shapes:
            self._shapes[key] = propagated(self.wiring, self.synapses, key)
        return self._shapes[key]

    @property
    def feedback(self) -> str:
        """How the error comes down, a name in `FEEDBACK`: "symmetric" where all edges have Wᵀ."""
        kinds = (synapse.feedback_kind for synapse in self.synapses)
        return next((kind for kind in kinds if kind != "symmetric"), "symmetric")


def zeros(x: Tensor, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
    """States at zero beside an input, in memory as that lies.

    Args:
        x: the input, shape (B, ...).
        shape: of one sample.
        dtype: of the states; that of x by default.
    """
    made = x.new_zeros(len(x), *shape, dtype=dtype or x.dtype)
    return made.contiguous(memory_format=layout(x)) if len(shape) == 3 else made
