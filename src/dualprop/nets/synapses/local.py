"""Any differentiable PyTorch module between two layers, linearised at the current mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualprop.arguments import check
from dualprop.errors import DualpropError
from dualprop.nets.synapses.affine import apart
from dualprop.nets.synapses.base import AffineMap, Synapse
from dualprop.nets.synapses.pools import Linearisation, layout
from dualprop.nets.synapses.weights import accumulate, buffers_kept, gradients_by, run
from dualprop.nets.synapses.work import Measured

_OF_THE_BATCH = (nn.modules.batchnorm._BatchNorm,)
_RANDOM = (nn.modules.dropout._DropoutNd,)


class Local(Synapse):
    """A(z) = module(z): layer or group norm, attention, or whatever else maps one tensor to one tensor.

    The way down is the module's vector-Jacobian product at z̄, δ ↦ J(z̄)ᵀ δ, and its parameters learn by theirs: a
    graph over this module alone, for none spans two layers. Of an affine module `Affine` makes the same.

    Args:
        module: maps (B, ...) to (B, ...), each sample by itself and without chance.

    Raises:
        DualpropError: for batch norm, which mixes the samples of a batch, or dropout, which draws anew each time.

    Example:
        >>> import torch
        >>> Local(torch.nn.LayerNorm(9))(torch.randn(2, 9)).shape
        torch.Size([2, 9])
    """

    aliases = True  # its graph may need the drive that it has made, and what comes back may be what was sent
    lasting = False  # the graph goes through the weights

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        check("module", module, nn.Module)
        for name, part in module.named_modules():
            at = f"module: {type(part).__name__}{f' ({name})' if name else ''}"
            if isinstance(part, _OF_THE_BATCH):
                raise DualpropError(f"{at} mixes the samples of a batch; use group or layer norm")
            if isinstance(part, _RANDOM) and part.p > 0:
                raise DualpropError(f"{at} draws anew at every call; leave it out")
        self.module = module
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._work = Measured()

    @property
    def linear(self) -> bool:
        """Its linearisation is another at every state."""
        return False

    def forward(self, z: Tensor) -> Tensor:
        """module(z), shape (B, *out_shape)."""
        drive = run(self.module, z)
        self._work.report_forward(self.module, z, drive)
        return drive

    def plain(self) -> list[nn.Module]:
        """The module."""
        return [self.module]

    def linearise(self, z: Tensor) -> tuple[Tensor, Linearisation]:
        """The drive, and the graph over the module that made it."""
        z, drive = self._run(z)
        return apart(drive.detach(), z), Linearisation(z.shape, drive.shape, layout(z), (z, drive))

    def affine(self, p: Tensor) -> Tensor:
        """The drive, which `linearise` has computed."""
        return p

    def adjoint_at(self, delta: Tensor, linearised: Linearisation) -> Tensor:
        """J(z̄)ᵀ δ."""
        z, drive = linearised.memory
        self._work.report("feedback", self.module, z)
        (feedback,) = torch.autograd.grad(drive, z, delta.to(drive.dtype), retain_graph=True)
        return apart(feedback.to(delta.dtype), delta)

    def add_grad(self, delta: Tensor, z: Tensor) -> None:
        """The module's own gradients at z̄."""
        parameters = [w for w in self.module.parameters() if w.requires_grad]
        if parameters:
            _, drive = self._run(z)
            self._work.report("gradient", self.module, z)
            gradients = gradients_by(parameters, drive, delta.to(drive.dtype))
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    accumulate(parameter, gradient)

    @torch.enable_grad()
    def _run(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        drive = run(self.module, z)
        self._work.report("forward", self.module, z)
        return z, drive

    @property
    def core(self) -> AffineMap:
        """There is none.

        Raises:
            DualpropError: always, for what asks for it needs an affine map.
        """
        raise DualpropError(f"{type(self.module).__name__} is no affine map, which this rule needs on every edge")

    @torch.inference_mode(False)
    @torch.enable_grad()
    def out_shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample of module(z), seen from a pass on zeros.

        Raises:
            DualpropError: if the module does not take such a z, works in place on it, or makes of it anything but
                one tensor that autograd can differentiate by z.
        """
        shape = tuple(in_shape)
        if shape not in self._shapes:
            like, name = next(self.module.parameters(), torch.empty(0)).detach(), type(self.module).__name__
            try:
                with buffers_kept(self.module):
                    made = self.module(like.new_zeros(1, *shape).requires_grad_())
            except (RuntimeError, ValueError, TypeError) as error:
                if "in-place" in str(error):
                    raise DualpropError(
                        f"module: {name} works in place on what it is given, which others read (inplace=False)"
                    ) from None
                raise DualpropError(
                    f"module: {name} does not take {shape} ({str(error).splitlines()[0]})"
                ) from None
            if not isinstance(made, Tensor) or not made.requires_grad:
                what = "a tensor without a graph" if isinstance(made, Tensor) else f"a {type(made).__name__}"
                raise DualpropError(
                    f"module: {name} makes {what}, but it must make one tensor that depends on its input"
                )
            self._shapes[shape] = tuple(made.shape[1:])
        return self._shapes[shape]
