"""A net: a chain of layers, each an affine synapse and a convex potential."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from dualprop.errors import DualpropError, check_type
from dualprop.nets.potentials import POTENTIALS, Potential
from dualprop.nets.synapses import Synapse


class Layer(nn.Module):
    """One layer of neurons and the synapse into it: z_k = f_k(A_k(z_{k-1})).

    Args:
        synapse: the affine map A_k from the layer below.
        potential: the potential G_k of its neurons, or a name in `POTENTIALS`.

    Example:
        >>> import torch, dualprop as dp
        >>> layer = Layer(dp.Dense(4, 3), "tanh")
        >>> layer(torch.zeros(2, 4)).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    synapse: Synapse

    def __init__(self, synapse: Synapse, potential: Potential | str = "relu") -> None:
        super().__init__()
        check_type("synapse", synapse, Synapse)
        self.synapse = synapse
        self.potential = POTENTIALS[potential] if isinstance(potential, str) else potential
        check_type("potential", self.potential, Potential)

    def forward(self, z: Tensor) -> Tensor:
        """f(A(z)), shape (B, *out_shape)."""
        return self.potential(self.synapse(z))

    def extra_repr(self) -> str:
        """What `print(net)` says of this layer besides its synapse."""
        return f"potential={self.potential}"


class Net(nn.Module):
    """A chain of layers k = 1..L. `net(x)` is the ordinary forward pass, differentiable by autograd.

    Rules (`dualprop.RULES`) read its layers and write states of their own; the net holds weights alone.

    Args:
        layers: at least one `Layer`, from the input up.

    Raises:
        DualpropError: if there is no layer.

    Example:
        >>> import torch
        >>> from dualprop import Dense, Layer, Net
        >>> net = Net([Layer(Dense(4, 8), "tanh"), Layer(Dense(8, 3), "linear")])
        >>> net(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        layers = list(layers)
        if not layers:
            raise DualpropError("layers: a net needs at least one")
        for layer in layers:
            check_type("layers", layer, Layer)
        self.layers = nn.ModuleList(layers)

    @property
    def chain(self) -> list[Layer]:
        """The layers from the input up; layer k of the equations is chain[k - 1]."""
        return list(self.layers)  # type: ignore[arg-type]  # the constructor has let in nothing else

    def __len__(self) -> int:
        """L, the number of layers."""
        return len(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """The output z_L of the feed-forward pass, shape (B, *out_shape)."""
        for layer in self.layers:
            x = layer(x)
        return x

    def shapes(self, in_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes of one sample of z_0 .. z_L.

        Args:
            in_shape: that of the input x, without the batch.

        Raises:
            DualpropError: if a layer does not take what the one below gives.
        """
        shapes = [tuple(in_shape)]
        for layer in self.chain:
            shapes.append(layer.synapse.out_shape(shapes[-1]))
        return shapes

    @property
    def feedback(self) -> str:
        """How the error comes down: "symmetric" or "kolen-pollack" (weights B of its own)."""
        own = any(bool(layer.synapse.feedback_pairs()) for layer in self.chain)
        return "kolen-pollack" if own else "symmetric"
