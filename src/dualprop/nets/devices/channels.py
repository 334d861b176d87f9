"""Channels: what becomes of a signal between where it is made and where it is read.

A channel is a value, and holds nothing. What it draws, what is fixed of a device, and the range that it has seen
belong to the place where it is attached (`dualprop.nets.devices.places`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor

from dualprop.arguments import Count, NotNegative, Number, Portion, Positive, check, checked
from dualprop.errors import DualpropError
from dualprop.nets.synapses.weighted import signs
from dualprop.registry import Registry

Ends = tuple[float, float]
"""The lowest and the highest value of a range."""


class At(Protocol):
    """The place where a channel is attached."""

    def like(self, z: Tensor) -> Tensor:
        """N(0, 1) of the shape of z, drawn anew."""

    def uniform(self, z: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of the shape of z, drawn anew."""

    def pattern(self, z: Tensor, what: str) -> Tensor:
        """N(0, 1) for each neuron, or for each weight: always the same."""

    def ends(self, z: Tensor, percentile: float) -> Ends:
        """The range of this part of what has been seen here, z included as long as it is calibrated."""


class Channel(ABC):
    """What becomes of a signal. Gradients pass it; where it rounds, as if it did not.

    Example:
        >>> import dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 3])
        >>> rule = dp.DualProp(net, states=[dp.devices.Noise(0.1), dp.devices.Quantised(4)])
    """

    name: ClassVar[str]

    @property
    def nothing(self) -> bool:
        """Whether it changes nothing, so that it need not be there."""
        return False

    @property
    def calibrates(self) -> bool:
        """Whether it asks for the range that was seen."""
        return False

    @property
    def imaginary(self) -> Channel:
        """What becomes of the imaginary part of a complex signal: the same, but for offsets, which are real.

        Ranges hold both ways there.
        """
        return self

    @abstractmethod
    def __call__(self, z: Tensor, at: At) -> Tensor:
        """What is read of z.

        Args:
            z: the signal, of any shape; batch first unless it is weights.
            at: where the channel is attached.
        """

    def plain(self) -> dict[str, Any]:
        """Its name and what differs from its defaults, as JSON holds it."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        defaults = {f.name: f.default for f in fields(self)}  # type: ignore[arg-type]
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in own.items() if v != defaults[name]}
        return {"channel": self.name, **values}


@checked
@dataclass(frozen=True)
class Noise(Channel):
    """z + σ ξ, or z (1 + σ ξ) if relative, with ξ ~ N(0, 1).

    Args:
        sigma: σ, at least 0, in the unit of the signal.
        relative: whether σ is a part of the value itself.
        fixed: whether ξ is drawn once for each neuron or weight, and is the same ever after; else anew each time.
    """

    name: ClassVar[str] = "noise"
    sigma: NotNegative
    relative: bool = False
    fixed: bool = False

    @property
    def nothing(self) -> bool:
        """At σ = 0."""
        return self.sigma == 0

    @property
    def imaginary(self) -> Channel:
        """Nothing, where ξ is an offset."""
        return Noise(0.0) if self.fixed and not self.relative else self

    def __call__(self, z: Tensor, at: At) -> Tensor:
        """The noisy signal."""
        xi = at.pattern(z, "noise") if self.fixed else at.like(z)
        return z * (1 + self.sigma * xi) if self.relative else z + self.sigma * xi


@checked
@dataclass(frozen=True)
class Clipped(Channel):
    """z kept in a range.

    Args:
        range: its ends; one number R for -R and R.
    """

    name: ClassVar[str] = "clipped"
    range: Number | Sequence[Number]

    def __post_init__(self) -> None:
        object.__setattr__(self, "range", _ends(self.range))

    @property
    def imaginary(self) -> Channel:
        """From -R to R, with R the farther end."""
        return Clipped(_farther(self.range))

    def __call__(self, z: Tensor, at: At) -> Tensor:
        """The signal, kept in its range."""
        low, high = _ends(self.range)
        return z.clamp(low, high)


@checked
@dataclass(frozen=True)
class Quantised(Channel):
    """z rounded to one of 2^bits levels, evenly from the lower to the upper end of a range, both included.

    Args:
        bits: from 1 to 16.
        range: its ends; one number R for -R and R. None: from -R to R, or from 0 to R where nothing negative
            comes, with R the largest absolute value of the first 20 batches; until then of those before.
        stochastic: whether it is rounded up with the probability that makes its mean right, else to the nearest.
        percentile: without a range, the part of a batch's absolute values, zeros included, that R is to hold, in
            (0, 100] %: few large values beyond it are clipped for finer levels below.
    """

    name: ClassVar[str] = "quantised"
    bits: Annotated[Count, Field(le=16)]
    range: Number | Sequence[Number] | None = None
    stochastic: bool = False
    percentile: Annotated[Positive, Field(le=100)] = 100.0

    def __post_init__(self) -> None:
        if self.range is not None:
            object.__setattr__(self, "range", _ends(self.range))
            if self.percentile != 100:
                raise DualpropError(f"percentile={self.percentile:g}: not with a range, which is calibrated by it")

    @property
    def calibrates(self) -> bool:
        """Without a range of its own."""
        return self.range is None

    @property
    def imaginary(self) -> Channel:
        """From -R to R, with R the farther end; or by what is seen there."""
        return self if self.range is None else replace(self, range=_farther(self.range))

    def __call__(self, z: Tensor, at: At) -> Tensor:
        """The level."""
        low, high = at.ends(z, self.percentile) if self.range is None else _ends(self.range)
        if low == high:  # nothing but zeros has come yet
            return z
        inside, step = z.clamp(low, high), (high - low) / (2**self.bits - 1)
        number = (inside.detach() - low) / step
        number = torch.floor(number + at.uniform(z)) if self.stochastic else torch.round(number)
        level = torch.add(number * step, low).clamp_(low, high)
        return straight(level, inside) if inside.requires_grad else level


@checked
@dataclass(frozen=True)
class DeviceVariation(Channel):
    """(1 + g) z + o, with g ~ N(0, gain²) and o ~ N(0, offset²) drawn once for each neuron or weight.

    Args:
        gain: the spread of the gains.
        offset: that of the offsets, in the unit of the signal.
    """

    name: ClassVar[str] = "variation"
    gain: NotNegative = 0.1
    offset: NotNegative = 0.0

    @property
    def nothing(self) -> bool:
        """Without a spread."""
        return self.gain == 0 and self.offset == 0

    @property
    def imaginary(self) -> Channel:
        """Its gains."""
        return replace(self, offset=0.0)

    def __call__(self, z: Tensor, at: At) -> Tensor:
        """What this device makes of it."""
        if self.gain:
            z = z * (1 + self.gain * at.pattern(z, "gain"))
        return torch.add(z, at.pattern(z, "offset"), alpha=self.offset) if self.offset else z


@checked
@dataclass(frozen=True)
class Dropped(Channel):
    """0 with probability p, z otherwise.

    Args:
        p: in [0, 1].
        fixed: whether the same neurons or weights are always lost, being dead; else others each time.
    """

    name: ClassVar[str] = "dropped"
    p: Portion
    fixed: bool = False

    @property
    def nothing(self) -> bool:
        """At p = 0."""
        return self.p == 0

    def __call__(self, z: Tensor, at: At) -> Tensor:
        """What has arrived."""
        chance = torch.special.ndtr(at.pattern(z, "dropped")) if self.fixed else at.uniform(z)
        return z.masked_fill(chance < self.p, 0)


@checked
@dataclass(frozen=True)
class Sign(Channel):
    """The sign of every weight times their mean absolute value: feedback that knows of weights no more than that.

    Of one bit, whatever the range. References: Liao, Leibo, Poggio, *How Important Is Weight Symmetry in
    Backpropagation?*, AAAI 2016.
    """

    name: ClassVar[str] = "sign"

    def __call__(self, z: Tensor, at: At) -> Tensor:
        """± the mean absolute value."""
        level = signs(z.detach())
        return straight(level, z) if z.requires_grad else level


CHANNELS: Registry[type[Channel]] = Registry(
    "channel", {kind.name: kind for kind in (Noise, Quantised, Clipped, DeviceVariation, Dropped, Sign)}
)


def read(name: str, value: Any) -> list[Channel]:
    """The channels that a value stands for, one after the other; those that change nothing are left out.

    Args:
        name: what the caller knows it by.
        value: a channel, a table of one as `Channel.plain` gives it, a list of these, or None.

    Raises:
        DualpropError: for anything else.

    Example:
        >>> read("states", [{"channel": "noise", "sigma": 0.1}, Noise(0.0)])
        [Noise(sigma=0.1, relative=False, fixed=False)]
    """
    if value is None:
        return []
    if isinstance(value, Channel):
        return [] if value.nothing else [value]
    if isinstance(value, Mapping):
        return read(name, _of_table(name, value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [channel for each in value for channel in read(name, each)]
    raise DualpropError(
        f"{name}={value!r}: must be a channel of dualprop.devices, a table with its name, as "
        "{'channel': 'noise', 'sigma': 0.1}, or a list of these"
    )


def _of_table(name: str, table: Mapping[str, Any]) -> Channel:
    own = {**table}
    kind = CHANNELS[check(f"{name}.channel", own.pop("channel", None), str)]
    try:
        return kind(**own)
    except DualpropError as error:
        raise DualpropError(f"{name}: {error}") from None


def straight(value: Tensor, as_of: Tensor) -> Tensor:
    """The value itself, with the gradient of what it was made of."""
    return value.detach() + (as_of - as_of.detach())


def _ends(given: float | Sequence[float]) -> Ends:
    """The ends of a range that was given.

    Raises:
        DualpropError: for one that is empty.
    """
    ends = (-given, given) if not isinstance(given, Sequence) else tuple(given)
    if len(ends) != 2 or not ends[0] < ends[1] or not all(map(math.isfinite, ends)):
        raise DualpropError(f"range={given!r}: must be two numbers, the first below the second, or one above 0")
    return float(ends[0]), float(ends[1])


def _farther(given: float | Sequence[float]) -> float:
    """The end of a range that is farther from zero."""
    return max(map(abs, _ends(given)))
