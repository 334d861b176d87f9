"""Where channels are attached to a net, and all that one attached channel knows: draws, patterns, ranges."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from pydantic import SkipValidation
from torch import Tensor
from typing_extensions import TypedDict

from dualprop.arguments import check
from dualprop.errors import DualpropError
from dualprop.nets import crossing
from dualprop.nets.devices.channels import Channel, Ends, read, straight
from dualprop.nets.devices.draws import Draws
from dualprop.nets.net import Net
from dualprop.nets.synapses import Identity, Synapse, Transposed, Weighted
from dualprop.registry import near

logger = logging.getLogger("dualprop")

Table = Mapping[str, Any]

Given = Annotated[
    Channel | Sequence[Channel | Table] | Mapping[int, Any] | Table | None,
    SkipValidation,  # `read` says what is wrong
]
"""One channel or several, or a table of one, for all layers; or these by the number or name of a layer."""


class Quantities(TypedDict, total=False):
    """What a channel can be attached to; see `Devices`."""

    states: Given
    drives: Given
    feedback_signal: Given
    weights: Given
    feedback_weights: Given


QUANTITIES = tuple(Quantities.__annotations__)

CALIBRATION = 20
"""Batches that a channel without a range of its own looks at."""


class Place(Draws):
    """Where one channel is attached: what it draws, what is fixed there, the range that it has seen.

    Args:
        name: what it is called, the same in every run.
        devices: those that it belongs to.
        batched: whether the first dimension of what comes here is the batch.
        patterns: the name of the place whose patterns it has; by default its own.

    Attributes:
        seen: the least and the largest that has come here so far, or 0.
    """

    def __init__(self, name: str, devices: Devices, *, batched: bool, patterns: str = "") -> None:
        self.name, self._devices, self._batched = name, devices, batched
        self._drawn_as = patterns or name
        self.seen = [0.0, 0.0]
        self.sigma, self.in_memory = 1.0, False
        self._patterns: dict[tuple[str, torch.Size], Tensor] = {}

    @property
    def generator(self) -> torch.Generator:  # type: ignore[override]
        """That of the step which is being made."""
        return self._devices.drawing

    def pattern(self, z: Tensor, what: str) -> Tensor:
        """N(0, 1) of the shape of one sample, or of the weights; of this place alone."""
        shape = z.shape[1:] if self._batched else z.shape
        key = what, shape
        if key not in self._patterns:
            word = f"{self._devices.seed} {self._drawn_as} {what} {tuple(shape)}"
            generator = torch.Generator().manual_seed(zlib.crc32(word.encode()))
            self._patterns[key] = torch.randn(shape, generator=generator)
        return self._patterns[key].to(z.device, z.dtype)

    def ends(self, z: Tensor, percentile: float) -> Ends:
        """From -R to R, or from 0 to R where nothing negative has come; R holds this part of a batch's values."""
        low, high = self.seen
        if self._devices.calibrating:
            least, most = map(float, torch.aminmax(z.detach()))
            if percentile < 100:
                sizes = z.detach().abs().flatten()
                held = float(sizes.kthvalue(math.ceil(percentile / 100 * sizes.numel())).values)
                least, most = max(least, -held), min(most, held)
            low, high = min(low, least), max(high, most)
            self.seen[:] = low, high
        most_of_all = max(-low, high)
        return (-most_of_all if low < 0 else 0.0), most_of_all


class Line:
    """Channels one after the other, each in a place of its own.

    Imaginary parts leave by a line of their own, on the same devices.

    Args:
        channels: the first first.
        name: of the line.
        devices: those that it belongs to.
        batched: see `Place`.
    """

    def __init__(self, channels: Sequence[Channel], name: str, devices: Devices, *, batched: bool = True) -> None:
        self._name = name
        self.stops = [(c, Place(f"{name} {n}", devices, batched=batched)) for n, c in enumerate(channels)]
        self.imaginary = [
            (c.imaginary, Place(f"{at.name} i", devices, batched=batched, patterns=at.name))
            for c, at in self.stops
            if not c.imaginary.nothing
        ]
        self._devices = devices

    def __call__(self, z: Tensor) -> Tensor:
        """What is read of z."""
        for channel, place in self.imaginary if crossing.is_imaginary() else self.stops:
            z = channel(z, place)
        return z

    def alike(self) -> Line:
        """Another one of the same kind: what is drawn and fixed there is its own, ranges are the same."""
        name = f"{self._name} -"
        line = Line([channel for channel, _ in self.stops], name, self._devices)
        for (_, place), (_, own) in zip(line.all, self.all, strict=True):
            place.seen = own.seen
        return line

    @property
    def all(self) -> list[tuple[Channel, Place]]:
        """Its channels and their places, those of imaginary parts last."""
        return [*self.stops, *self.imaginary]

    @property
    def open(self) -> bool:
        """Whether a step on its devices is being made in this thread."""
        return crossing.here() is self._devices


Attached = Mapping[int, Sequence[Channel]]
"""Channels by the number of the layer."""


class Devices:
    """The devices that one rule has its net on: what its channels have drawn, fixed and seen so far.

    Attached to a layer k: "states", what leaves its neurons; "drives", what is heard of each product W p + b into
    it, and "feedback_signal", of each W^T δ that comes down from it; "weights", those of the edges into it as they
    are read, and "feedback_weights", as they are read on the way down. An edge through the transpose of another's
    weights reads that one's from the other side.

    Args:
        net: whose layers they are.
        channels: for each of `QUANTITIES` what `read` takes, for all layers alike (states: for all that an edge
            leads out of), or a table of these by number or name of the layer.
        seed: of all that is drawn.

    Attributes:
        seed: the same.
        batches: weight updates so far.

    Raises:
        DualpropError: for what is no channel, a layer that there is not, or an edge on which it cannot act.
    """

    def __init__(self, net: Net, channels: Mapping[str, Any], seed: int = 0) -> None:
        self.seed, self.batches, self.shared = seed, 0, 1
        self.drawing = self._generator = torch.Generator().manual_seed(seed)
        self._predicting = torch.Generator().manual_seed(seed + 2**32)
        self._learning = False
        attached = {name: _by_layer(net, name, channels.get(name)) for name in QUANTITIES}
        whole = {k: Line(each, f"states {k}", self) for k, each in attached["states"].items()}
        self.leaving = {k: (line, line.alike()) for k, line in whole.items()}
        self._lines: dict[tuple[str, int], Line] = {}
        for e, ((_, target), synapse) in enumerate(zip(net.wiring.edges, net.synapses, strict=True)):
            for name in QUANTITIES[1:]:
                if each := attached[name].get(target):
                    _check_crosses(net, e, synapse, name)
                    batched = name in ("drives", "feedback_signal")
                    self._lines[name, e] = Line(each, f"{name} {e}", self, batched=batched)
        for e, synapse in enumerate(net.synapses):  # feedback weights of their own are another device
            if ("weights", e) in self._lines and synapse.feedback_pairs():
                own = [channel for channel, _ in self._lines["weights", e].stops]
                self._lines.setdefault(
                    ("feedback_weights", e), Line(own, f"feedback_weights {e}", self, batched=False)
                )
        self._edges: dict[Synapse, int] = {}
        self._read: dict[Line, Tensor] = {}
        self._described = {
            name: [f"{net.wiring.name(k)}: {list(each)}" for k, each in by_layer.items()]
            for name, by_layer in attached.items()
            if by_layer
        }

    @property
    def used(self) -> set[str]:
        """The quantities that have channels."""
        return set(self._described)

    def __bool__(self) -> bool:
        """Whether there is anything on them that is not ideal."""
        return bool(self.leaving or self._lines)

    @contextmanager
    def step(self, net: Net, *, learns: bool, shared: int = 1) -> Iterator[None]:
        """A step is made on these devices: an update, or a prediction, which leaves what updates draw as it is.

        Args:
            net: whose synapses they are now.
            learns: whether it is a weight update.
            shared: what autograd's errors of a sample are divided by.
        """
        self.shared = shared
        self._edges = {}
        for e, synapse in enumerate(net.synapses):
            for part in (synapse, *(() if isinstance(synapse, Transposed) else synapse.parts)):
                self._edges.setdefault(part, e)
        self._read, self._learning = {}, learns
        self.drawing = self._generator if learns else self._predicting
        if learns:
            self.batches += 1
        try:
            with crossing.crossing(self):
                yield
        finally:
            self._read, self._edges, self.drawing = {}, {}, self._generator
        if learns and self.batches == CALIBRATION:
            self._say_ranges()

    @property
    def calibrating(self) -> bool:
        """Whether ranges still grow: for the first batches that are learnt from, and before them."""
        return self.batches <= CALIBRATION if self._learning else self.batches == 0

    def weight(self, synapse: object, name: str, value: Tensor, *, down: bool = False) -> Tensor:
        """A weight as it is read, the same one throughout a step; what learns is what it is made of."""
        e = self._edges.get(synapse, -1)  # type: ignore[call-overload]
        line = self._lines.get(("feedback_weights", e)) if down or name == "feedback" else None
        line = line or (self._lines.get(("weights", e)) if name == "weight" else None)
        if line is None:
            return value
        if line not in self._read:
            self._read[line] = line(value.detach())
        read_as = self._read[line]
        return straight(read_as, value) if torch.is_grad_enabled() and value.requires_grad else read_as

    def drive(self, synapse: object, made: Tensor) -> Tensor:
        """What is heard of W p + b."""
        return self._out("drives", synapse, made)

    def feedback(self, synapse: object, made: Tensor) -> Tensor:
        """What is heard of W^T δ."""
        return self._out("feedback_signal", synapse, made)

    def _out(self, name: str, synapse: object, made: Tensor) -> Tensor:
        line = self._lines.get((name, self._edges.get(synapse, -1)))  # type: ignore[call-overload]
        return made if line is None else line(made)

    @property
    def ranges(self) -> dict[str, list[float]]:
        """The ranges seen, by where: all that predictions need to know of former batches."""
        return {place.name: list(place.seen) for place in self._places()}

    def hold(self, ranges: Mapping[str, Sequence[float]]) -> None:
        """Take these ranges, which grow no more.

        Raises:
            DualpropError: if they are of other devices.
        """
        if set(ranges) != set(self.ranges):
            raise DualpropError("ranges: of other devices than these")
        for place in self._places():
            place.seen[:] = ranges[place.name]
        self.batches = max(self.batches, CALIBRATION)

    def state_dict(self) -> dict[str, Any]:
        """The generators, how many batches there were, and the ranges seen."""
        return {
            "generator": self._generator.get_state(),
            "predicting": self._predicting.get_state(),
            "batches": self.batches,
            "seen": self.ranges,
        }

    def load_state_dict(self, state: Any) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: if it is of other devices.
        """
        check("devices", state, dict[str, Any])
        own = self.state_dict()
        if set(state) != set(own) or set(check("devices.seen", state["seen"], dict[str, Any])) != set(own["seen"]):
            raise DualpropError("state: devices: of other devices than these")
        batches = check("devices.batches", state["batches"], int)
        seen = {name: check(f"devices.seen.{name}", ends, list[float]) for name, ends in state["seen"].items()}
        if batches < 0 or any(len(ends) != 2 or not ends[0] <= 0 <= ends[1] for ends in seen.values()):
            raise DualpropError("state: devices: a number of batches below 0, or a range that is none")
        try:
            self._generator.set_state(state["generator"].cpu())
            self._predicting.set_state(state["predicting"].cpu())
        except (RuntimeError, TypeError, AttributeError):
            raise DualpropError("state: devices: not the state of a random generator") from None
        self.batches = batches
        for place in self._places():
            place.seen[:] = seen[place.name]

    def __repr__(self) -> str:
        return "; ".join(f"{name} of {', '.join(each)}" for name, each in self._described.items())

    def _places(self) -> Iterator[Place]:
        for channel, place in self._stops():
            if channel.calibrates:
                yield place

    def _stops(self) -> Iterator[tuple[Channel, Place]]:
        for line, _ in self.leaving.values():  # whose ranges are the other's, too
            yield from line.all
        for line in self._lines.values():
            yield from line.all

    def _say_ranges(self) -> None:
        ranges = [f"{place.name} {_spoken(place.seen)}" for place in self._places() if any(place.seen)]
        if ranges:
            logger.warning("devices: calibrated on the first %d batches: %s", CALIBRATION, ", ".join(ranges))


def _spoken(seen: Sequence[float]) -> str:
    low, high = seen
    return f"[{-max(-low, high) if low < 0 else 0:.3g}, {max(-low, high):.3g}]"


def _by_layer(net: Net, name: str, value: Any) -> dict[int, list[Channel]]:
    """Channels of each layer that has some."""
    wiring = net.wiring
    if isinstance(value, Mapping) and "channel" not in value:
        numbers = {wiring.name(k): k for k in range(1, wiring.depth + 1)}
        numbers |= {str(k): k for k in range(1, wiring.depth + 1)}
        found = {}
        for layer, own in value.items():
            if str(layer) not in numbers:
                raise DualpropError(f"{name}: the net has no layer {layer!r}; {near(str(layer), numbers)}")
            found[numbers[str(layer)]] = read(f"{name}[{layer!r}]", own)
    else:
        layers = [k for k in range(1, wiring.depth + 1) if name != "states" or wiring.out_of[k]]
        found = dict.fromkeys(layers, read(name, value))
    return {k: own for k, own in found.items() if own}


def _check_crosses(net: Net, e: int, synapse: Synapse, name: str) -> None:
    """Refuse an edge whose products are none of a crossbar's."""
    try:
        known = isinstance(synapse.core, Weighted | Transposed | Identity)
    except DualpropError:
        known = False
    if not known:
        raise DualpropError(
            f"{name}: edge {net.wiring.arrow(e)} is of {type(synapse).__name__}, but a channel acts on the "
            "products of Dense and Conv2d alone; say for which layers, as a table by their names"
        )
