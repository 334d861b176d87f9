"""Vision transformers for small images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dualprop.arguments import Count, checked
from dualprop.errors import DualpropError
from dualprop.nets.graph import Graph, Node
from dualprop.nets.net import Net
from dualprop.nets.synapses import INITS, Affine, Identity, Local


class _Patches(nn.Module):
    """Patches of an image as tokens, with an embedding of their places: affine in the image."""

    def __init__(self, channels: int, width: int, patch: int, places: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.place = nn.Parameter(torch.zeros(places, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, places, width)."""
        tokens: Tensor = self.embed(x).flatten(2).transpose(1, 2)
        return tokens + self.place


class _Attention(nn.Module):
    """Multi-head attention of layer-normed tokens to one another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, 3 * width)
        self.write = nn.Linear(width, width)
        self.heads = heads

    def forward(self, z: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        batch, tokens, width = z.shape
        parts = self.read(self.norm(z)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts
        # by products and soft-max: on a CPU the way back of PyTorch's fused attention takes half of a step
        mixed = (query @ key.mT / math.sqrt(width / self.heads)).softmax(-1) @ value
        written: Tensor = self.write(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return written


class _Mean(nn.Module):
    """The mean over the tokens."""

    def forward(self, z: Tensor) -> Tensor:
        """(B, T, width) -> (B, width)."""
        return z.mean(1)


@checked
def vit_tiny(
    num_classes: Count = 10,
    in_shape: tuple[int, ...] = (3, 32, 32),
    activation: str = "relu",
    *,
    depth: Count = 4,
    width: Count = 64,
    heads: Count = 2,
    patch: Count = 4,
    init: str = "glorot-uniform",
    feedback: str = "symmetric",
    generator: torch.Generator | None = None,
) -> Net:
    """A small vision transformer: patches, blocks of attention and a hidden layer with skips, a read-out.

    a = z + Attention(LayerNorm(z)), z' = a + W_2 f(W_1 LayerNorm(a) + b_1) + b_2: attention and what follows a
    layer norm are `Local` edges, the sums linear layers, so that 3 · depth + 2 layers of dyads carry it.

    Args:
        num_classes: neurons of the output layer.
        in_shape: channels, height and width of an image; its sides multiples of `patch`.
        activation: the hidden layers' potential, a name in `POTENTIALS`.
        depth: blocks.
        width: neurons of a token, a multiple of `heads`.
        heads: of the attention.
        patch: side of a patch.
        init: the initial weights, a name in `INITS`.
        feedback: "symmetric"; attention has no feedback weights of its own.
        generator: where the initial weights come from; torch's global one by default.

    Returns:
        The net, a graph; it takes x of shape (B, *in_shape).

    Raises:
        DualpropError: for an image or a width that does not fit, another feedback, or an unknown name.

    Example:
        >>> net = vit_tiny(in_shape=(3, 8, 8), depth=1, width=12)
        >>> print(net.wiring)
        1. patches <- x
        2. attention1 <- patches, patches
        3. hidden1 <- attention1
        4. block1 <- hidden1, attention1
        5. y <- block1 (output)

    References:
        Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021; ReLU in place of GELU, whose potential
        is not convex, and the mean over tokens in place of a class token.
    """
    if len(in_shape) != 3 or in_shape[1] % patch or in_shape[2] % patch:
        raise DualpropError(
            f"in_shape={tuple(in_shape)}: must be (channels, height, width), sides multiples of patch={patch}"
        )
    if width % heads:
        raise DualpropError(f"width={width}: must be a multiple of heads={heads}")
    if feedback != "symmetric":
        raise DualpropError(f"feedback={feedback!r}: attention on the edges goes with 'symmetric' alone")
    draw = INITS[init]

    def drawn(module: nn.Module) -> nn.Module:
        for name, weight in module.named_parameters():
            with torch.no_grad():
                if weight.ndim > 1 and not name.endswith("place"):
                    draw(weight, generator)
                elif name.endswith("bias"):
                    weight.zero_()
        return module

    places = (in_shape[1] // patch) * (in_shape[2] // patch)
    g = Graph()
    z: Node = g.layer(
        "patches", {g.input("x"): Affine(drawn(_Patches(in_shape[0], width, patch, places)))}, "linear"
    )
    for block in range(1, depth + 1):
        a = g.layer(f"attention{block}", {z: Identity()}, "linear")
        g.connect(z, a, Local(drawn(_Attention(width, heads))))
        widen = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width))
        h = g.layer(f"hidden{block}", {a: Local(drawn(widen))}, activation)
        z = g.layer(f"block{block}", {h: Affine(drawn(nn.Linear(4 * width, width))), a: Identity()}, "linear")
    head = nn.Sequential(nn.LayerNorm(width), _Mean(), nn.Linear(width, num_classes))
    return g.net([g.layer("y", {z: Local(drawn(head))}, "linear")])
