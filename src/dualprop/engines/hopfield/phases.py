"""A net as a Hopfield net: the layers whose states relax, what reads them out, and the phases in which they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.relaxation import Relaxation, Settled
from dualprop.nets.net import Layer
from dualprop.nets.synapses import Synapse, layout, product_dtype


@dataclass(frozen=True)
class HopfieldNet:
    """The layers of a net that relax, and its read-out if it has one.

    Args:
        layers: layers 1..M, whose states relax.
        readout: the synapse whose drives A_L(z_{L-1}) are the output; None where the last state is.
        gain: γ, of the feedback.
    """

    layers: Sequence[Layer]
    readout: Synapse | None = None
    gain: float = 1.0

    @property
    def reads_out(self) -> bool:
        """Whether the output is no state: the read-out lies above the layers that relax, and M = L - 1."""
        return self.readout is not None and (not self.layers or self.layers[-1].synapse is not self.readout)

    @property
    def synapses(self) -> list[Synapse]:
        """Those of all layers 1..L."""
        above = [self.readout] if self.readout is not None and self.reads_out else []
        return [*(layer.synapse for layer in self.layers), *above]

    def drive(self, x: Tensor) -> Tensor | None:
        """A_1(x), which stands still while the layers relax; None where no layer does."""
        return self.layers[0].synapse(x.to(product_dtype(x))) if self.layers else None

    def zeros(self, x: Tensor) -> list[Tensor]:
        """z_1 .. z_M at zero, for inputs of shape (B, ...)."""
        shape, zeros = tuple(x.shape[1:]), []
        for layer in self.layers:
            shape = layer.synapse.out_shape(shape)
            z = x.new_zeros(len(x), *shape)
            zeros.append(z.contiguous(memory_format=layout(x)) if z.ndim == 4 else z)
        return zeros

    def output(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        """What the net says in the states z_1 .. z_M of a batch, in the type of x."""
        if self.readout is None:
            return states[-1].to(x.dtype)
        below = [x, *states][len(self.synapses) - 1]
        output: Tensor = self.readout(below.to(product_dtype(below)))
        return output.to(x.dtype)


@dataclass(frozen=True)
class Phase:
    """How long states relax, and in which order.

    Args:
        name: for errors.
        steps: at most.
        groups: the order of updates, from `ORDERS`; layers in no group stand still.
        tolerance: the phase ends early once no state moves by more than this in a step.
    """

    name: str
    steps: int
    groups: Sequence[Sequence[int]]
    tolerance: float

    def run(
        self,
        net: HopfieldNet,
        drive: Tensor | None,
        start: Sequence[Tensor],
        copies: Copies,
        *,
        force: Callable[[Tensor], Tensor] | None = None,
        noise: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[list[Tensor], Settled]:
        """Relax.

        Args:
            net: whose states.
            drive: A_1(x) in the rows of the copies.
            start: z_1 .. z_M to start from, which are not written over.
            copies: what the rows of the states are.
            force: what the world adds to the drive of layer M, a function of z_M; None for nothing.
            noise: what is added to every drive, a function of it; None for nothing.

        Returns:
            z_1 .. z_M at the end of the phase, and how it ended.

        Raises:
            DivergenceError: if the states diverge.
        """
        relaxation = Relaxation(
            net.layers, drive, start, copies, groups=self.groups, gain=net.gain, force=force, noise=noise
        )
        settled = relaxation.run(self.steps, self.tolerance, self.name)
        return relaxation.z, settled


@dataclass(frozen=True)
class Free:
    """The end of the free phase on one batch.

    Args:
        drive: A_1(x), None where no layer relaxes.
        states: z_1 .. z_M.
        output: what the net says.
        settled: how the phase ended.
    """

    drive: Tensor | None
    states: Sequence[Tensor]
    output: Tensor
    settled: Settled
