"""The convolutional synapse."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualprop.arguments import Count, CountOrZero, checked
from dualprop.errors import DualpropError
from dualprop.nets.counting import counted, report
from dualprop.nets.kernels import products
from dualprop.nets.synapses.inits import Init
from dualprop.nets.synapses.pools import Pool
from dualprop.nets.synapses.weighted import Feedback, Weighted


class Conv2d(Weighted):
    """A(z) = W ∗ z + b on images, or on pool(z); the feedback is the transposed convolution.

    Args:
        in_channels: channels below.
        out_channels: channels above.
        kernel_size: side of the kernel.
        stride: steps between two places of the kernel.
        padding: rows and columns of zeros around the image, at least 0.
        dilation: steps between two elements of the kernel.
        groups: into how many groups of channels the map falls apart; divides both numbers of channels.
        bias: whether there is a b.
        feedback: a name in `FEEDBACK`: "symmetric" (W^T), "kolen-pollack" (B^T), "random" (B^T, which stays as it
            is) or "sign" (the signs of W^T).
        init: the initial weights, a name in `INITS`.
        pool: pooling in front.
        generator: where the initial weights come from; torch's global one by default.

    Attributes:
        weight: W, shape (out_channels, in_channels / groups, kernel_size, kernel_size).
        bias: b, shape (out_channels,), zero at first; or None.
        feedback: B, of the shape of W; or None.

    Example:
        >>> import torch
        >>> from dualprop.nets.synapses import MaxPool2d
        >>> synapse = Conv2d(3, 8, 3, padding=1, pool=MaxPool2d(2))
        >>> z, delta = torch.randn(5, 3, 8, 8), torch.randn(5, 8, 4, 4)
        >>> synapse(z).shape, synapse.adjoint(delta, z).shape
        (torch.Size([5, 8, 4, 4]), torch.Size([5, 3, 8, 8]))
    """

    @checked
    def __init__(
        self,
        in_channels: Count,
        out_channels: Count,
        kernel_size: Count,
        *,
        stride: Count = 1,
        padding: CountOrZero = 0,
        dilation: Count = 1,
        groups: Count = 1,
        bias: bool = True,
        feedback: Feedback = "symmetric",
        init: Init = "glorot-uniform",
        pool: Pool | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if in_channels % groups or out_channels % groups:
            raise DualpropError(f"groups={groups}: must divide in_channels={in_channels} and {out_channels=}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.geometry = products.Geometry(stride, padding, dilation, groups)
        shape = out_channels, in_channels // groups, kernel_size, kernel_size
        super().__init__(shape, bias=bias, feedback=feedback, init=init, pool=pool, generator=generator)

    @property
    def width_below(self) -> int:
        """The number of channels below."""
        return self.in_channels

    @counted("forward")
    def affine(self, p: Tensor) -> Tensor:
        """W ∗ p + b, shape (B, out_channels, H', W')."""
        if torch.is_grad_enabled():
            return F.conv2d(p, self.heard("weight"), self.read("bias"), *self.geometry)
        return products.conv_forward(p, self.upward(p.dtype), self.read("bias"), self.geometry)

    @counted("forward")
    def linear_part(self, p: Tensor) -> Tensor:
        """W ∗ p, shape (B, out_channels, H', W')."""
        if torch.is_grad_enabled():
            return F.conv2d(p, self.heard("weight"), None, *self.geometry)
        return products.conv_forward(p, self.upward(p.dtype), None, self.geometry)

    @counted("feedback")
    def transposed(self, delta: Tensor, shape: torch.Size) -> Tensor:
        """The transposed convolution of delta with W, or with B."""
        return products.conv_adjoint(delta, self.downward(delta.dtype), shape, self.geometry)

    def turned_weight(self) -> Tensor:
        """Both kinds of channels exchanged, group by group, and the kernel turned by half a turn."""
        W, groups = self.weight.detach(), self.geometry.groups
        return W.view(groups, -1, *W.shape[1:]).transpose(1, 2).flatten(0, 1).flip(-1, -2)

    @counted("gradient")
    def outer(self, delta: Tensor, p: Tensor) -> Tensor:
        """Σ over the batch and all places of delta times the patch below it, of the shape of W."""
        return products.conv_outer(delta, p, self.read("weight"), self.geometry)

    def shift(self, delta: Tensor, p: Tensor) -> None:
        """Without a gradient in between, where there are few places."""
        if products.suits_shift(delta, self.weight, self.geometry):
            products.conv_shift(self.weight, delta, p, self.geometry)
            report("gradient", len(delta), delta.numel() * self.fan_in)
        else:
            super().shift(delta, p)

    def modules_without_weights(self) -> list[nn.Module]:
        """`torch.nn.Conv2d`."""
        sizes = self.in_channels, self.out_channels, self.kernel_size
        return [nn.Conv2d(*sizes, *self.geometry, bias=self.biased, device="meta")]

    def affine_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(out_channels, H', W') for images of in_channels."""
        if len(shape) != 3 or shape[0] != self.in_channels:
            raise DualpropError(
                f"x: shape {shape} a sample, but the layer takes images of {self.in_channels} channels"
            )
        g = self.geometry
        sides = [(n + 2 * g.padding - g.dilation * (self.kernel_size - 1) - 1) // g.stride + 1 for n in shape[1:]]
        if min(sides) < 1:
            raise DualpropError(
                f"x: shape {shape} a sample is smaller than the layer's kernel of {self.kernel_size}"
            )
        return (self.out_channels, *sides)

    def extra_repr(self) -> str:
        """What `print(net)` says of this synapse."""
        g = self.geometry
        geometry = f"stride={g.stride}, padding={g.padding}, dilation={g.dilation}, groups={g.groups}"
        sizes = f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, {geometry}"
        return sizes + self.extras()
