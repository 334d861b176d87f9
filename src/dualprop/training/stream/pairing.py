"""Which drive and which state below an error is paired with: those of now, or those of its own frame.

A frame is at layer k after k - 1 ticks, at the output after L - 1, and its error comes to layer k 2(L - k) ticks
after the frame was there. In a net that is no chain k is the length of the longest way to a layer, and L that to
the output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from typing_extensions import override

from dualprop.arguments import CountOrZero, checked
from dualprop.engines.dyads.frames import ages
from dualprop.engines.dyads.schedules import Sweep, Update
from dualprop.errors import DualpropError
from dualprop.nets.wiring import Wiring


class Pairing(ABC):
    """How far back a layer looks for what an error belongs to.

    Attributes:
        late: the ticks that a label is waited for once its frame is at the output.
        forward: whether the mean is f(a), which no error moves, or that of the nudged states.
    """

    late: int = 0
    forward: bool = False

    @abstractmethod
    def lags(self, updates: Sequence[Update], wiring: Wiring) -> list[int]:
        """How many ticks ago each layer 1..L saw the frame whose error comes to it now.

        Args:
            updates: those of one tick.
            wiring: how the layers are connected.

        Raises:
            DualpropError: if it cannot say that of these updates, or of this net.
        """


@dataclass(frozen=True)
class Present(Pairing):
    """An error meets what the layer sees now: z_k^± = f(a_k ± {α, ᾱ} d_k), learnt with the state below as it is.

    A neuron remembers nothing but its own two states: everything is local in space and in time. Right as far as
    frames resemble each other over the 2(L - k) ticks that an error takes; where each tick brings another frame it
    hardly learns. A label has to be there when its frame is at the output.

    References:
        Malinowski, Swirszcz, Carreira, Patraucean, *Sideways: Depth-Parallel Training of Video Models*, CVPR 2020
        (arXiv 2001.06232), does so for back-propagation.
    """

    @override
    def lags(self, updates: Sequence[Update], wiring: Wiring) -> list[int]:
        return [0] * wiring.depth


@checked
@dataclass(frozen=True)
class Delayed(Pairing):
    """An error meets the drive and the state below of its own frame, which wait for it in a delay line.

    z̄_k = f(a_k) goes up, and the difference f(a + α d) - f(a - ᾱ d) is taken at the drive a of the frame that the
    error d belongs to; with frozen weights it is that frame's reverse-mode difference exactly. A neuron of layer k
    remembers its last 2(L - k) + 1 drives, a synapse into it as many states below; `late` more of each where
    labels come late. (All layers' lines are kept as long as the first one's.)

    In a graph without cycles the same holds of every way: along an edge that is a short cut the state waits for
    what comes the long way, and so does the difference on its way down, each in a line of its own.

    That is so where every layer is updated once a tick. In a whole sweep at every tick, `schedule=Sweep()`, an
    error meets its own frame within the tick, and nothing has to be remembered: one sample, one step.

    Args:
        late: ticks for which a label is waited for once its frame is at the output: L - 1 + late after the frame
            came in it acts, however early it was there.

    Raises:
        DualpropError: for a number below 0.

    References:
        Kosson, Chiley, Venigalla, Hestness, Köster, *Pipelined Backpropagation at Scale*, MLSys 2021 (arXiv
        2003.11666), where weights are as stale as here.
    """

    late: CountOrZero = 0
    forward = True

    @override
    def lags(self, updates: Sequence[Update], wiring: Wiring) -> list[int]:
        if cycles := [e for e, (source, target) in enumerate(wiring.edges) if source >= target]:
            raise DualpropError(
                f"pairing: {wiring.arrow(cycles[0])} closes a cycle, so that states are of no single frame and "
                "Delayed() cannot say when its error comes; Present() takes any net"
            )
        order = [tuple(update.layers) for update in updates]
        sweep = [tuple(update.layers) for update in Sweep().plan(wiring, torch.Generator())]
        if order != sweep and [sorted(layers) for layers in order] != [list(range(1, wiring.depth + 1))]:
            raise DualpropError(
                "schedule: a delay line has one place for each tick, so Delayed() needs one update of all layers "
                "in it, Parallel(1), or one sweep, Sweep(); Present() takes any schedule"
            )
        age, (output,) = ages(updates, wiring)[-1], wiring.outputs
        return [2 * max(0, age[output] - age[k]) + self.late for k in range(1, wiring.depth + 1)]
