"""A synapse with pooling behind it, as in the convolutional nets of equilibrium propagation."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override

from dualprop.arguments import checked
from dualprop.errors import DualpropError
from dualprop.nets.synapses.base import AffineMap, Synapse
from dualprop.nets.synapses.pools import Linearisation, Pool, layout


class Pooled(Synapse):
    """A(z) = pool(W p + b): the neurons above are the pooled map's, and the energy has z_k · pool(W p + b).

    So a layer has fewer neurons than with the same pool in front of the next synapse, and its activation acts
    behind the pool. Where the winners are, only the map itself can say: to see a state is to compute its drive,
    which is what `linearise` gives and `affine` leaves as it is.

    Args:
        synapse: W p + b, perhaps with a pool in front, and none behind.
        pool: the pooling behind, linearised at what the synapse makes of the state.

    Raises:
        DualpropError: for another type, or a synapse with a pool behind it already.

    Example:
        >>> import torch
        >>> from dualprop.nets.synapses import Conv2d, MaxPool2d
        >>> synapse = Pooled(Conv2d(3, 8, 3, padding=1), MaxPool2d(2))
        >>> z, delta = torch.randn(5, 3, 8, 8), torch.randn(5, 8, 4, 4)
        >>> synapse(z).shape, synapse.adjoint(delta, z).shape
        (torch.Size([5, 8, 4, 4]), torch.Size([5, 3, 8, 8]))

    References:
        Laborieux, Ernoult, Scellier, Bengio, Grollier, Querlioz, *Scaling Equilibrium Propagation to Deep ConvNets
        by Drastically Reducing Its Gradient Estimator Bias*, Frontiers in Neuroscience 2021, section 2.3.
    """

    synapse: AffineMap
    behind: Pool

    @checked
    def __init__(self, synapse: Synapse, pool: Pool) -> None:
        super().__init__()
        if synapse.behind is not None:
            raise DualpropError(f"synapse: has a pool behind it already, {synapse.behind}")
        self.synapse, self.behind = synapse.core, pool

    @property
    def feedback_kind(self) -> str:  # type: ignore[override]
        """That of the synapse inside."""
        return self.synapse.feedback_kind

    @property
    def core(self) -> AffineMap:
        """The synapse inside."""
        return self.synapse

    @override
    @property
    def parts(self) -> tuple[Synapse, ...]:
        return (self, self.synapse)

    @override
    def learnt(self) -> list[Tensor]:
        return self.synapse.learnt()

    @override
    def followers(self) -> list[tuple[Tensor, Tensor]]:
        return self.synapse.followers()

    def forward(self, z: Tensor) -> Tensor:
        """The pooled drive, shape (B, *out_shape)."""
        return self.behind(self.synapse(z))

    def linearise(self, z: Tensor) -> tuple[Tensor, Linearisation]:
        """The pooled drive, and what the synapse inside and the pool have linearised."""
        p, inside = self.synapse.linearise(z)
        drive, behind = self.behind.linearise(self.synapse.affine(p))
        return drive, Linearisation(z.shape, drive.shape, layout(z), parts=(inside, behind))

    def affine(self, p: Tensor) -> Tensor:
        """The drive, which `linearise` has computed."""
        return p

    def adjoint_at(self, delta: Tensor, linearised: Linearisation) -> Tensor:
        """The feedback through pool and synapse, both linearised at the state read."""
        inside, behind = linearised.parts
        return self.synapse.adjoint_at(self.behind.adjoint(delta, behind), inside)

    def add_grad(self, delta: Tensor, z: Tensor) -> None:
        """Its gradients; the map is computed once more, to see where delta goes through the pool."""
        p, _ = self.synapse.linearise(z)
        _, behind = self.behind.linearise(self.synapse.affine(p))
        self.synapse.hebbian(self.behind.adjoint(delta, behind), p)

    def out_shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample of the pooled drive, given that of z.

        Raises:
            DualpropError: if the synapse inside does not take such a z, or makes too small an image of it.
        """
        return self.behind.out_shape(self.synapse.out_shape(in_shape))

    def plain(self) -> list[nn.Module]:
        """Those of the synapse inside, and the pool."""
        return [*self.synapse.plain(), self.behind.module()]

    def feedback_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Those of the synapse inside."""
        return self.synapse.feedback_pairs()

    def extra_repr(self) -> str:
        """What `print(net)` says besides the synapse inside."""
        return f"behind={self.behind}"
