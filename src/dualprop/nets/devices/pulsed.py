"""What a device is that holds a weight which pulses move: granular, asymmetric, bounded, no two alike.

References:
    Gokmen, Vlasov, *Acceleration of Deep Neural Network Training with Resistive Cross-Point Devices*, Frontiers in
    Neuroscience 2016. Rasch et al., *aihwkit*, AICAS 2021, whose model of devices this follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from dualprop.arguments import Count, NotNegative, Number, Positive, checked
from dualprop.errors import DualpropError
from dualprop.nets.devices.responses import Constant, Response


@checked
@dataclass(frozen=True)
class PulsedDevice:
    """A device that holds one weight, which pulses move up and down.

    A pulse moves the weight w by dw_min times the response at w, and times 1 + dw_min_std N(0, 1). What is said to
    spread differs from device to device: dw_min (1 + spread N(0, 1)), and so on; a range does not shrink below a
    hundredth.

    Args:
        dw_min: the mean step at w = 0, where weights lie between about -1 and 1.
        up_down: asymmetry β: steps up are 1 + β times dw_min, steps down 1 - β times.
        w_min: the least weight, below 0.
        w_max: the largest, above 0.
        dw_min_dtod: spread of dw_min.
        up_down_dtod: that of β, absolute.
        w_min_dtod: that of w_min.
        w_max_dtod: that of w_max.
        dw_min_std: how much one pulse differs from the next.
        additive: whether that does not depend on the response.
        write_noise_std: noise on the weight that is read after a pulse, in units of dw_min; anew at each pulse.
        lifetime: steps in which a weight leaks away by a factor of e; 0 for none.
        response: how steps depend on w.
        on_grid: whether weights are rounded to whole steps from w_min when they are first put there.
        source: where the numbers are from.

    Raises:
        DualpropError: for a value out of range, or a range that is empty.
    """

    dw_min: Positive
    up_down: Number = 0.0
    w_min: Number = -1.0
    w_max: Number = 1.0
    dw_min_dtod: NotNegative = 0.0
    up_down_dtod: NotNegative = 0.0
    w_min_dtod: NotNegative = 0.0
    w_max_dtod: NotNegative = 0.0
    dw_min_std: NotNegative = 0.0
    additive: bool = False
    write_noise_std: NotNegative = 0.0
    lifetime: NotNegative = 0.0
    response: Response = field(default_factory=Constant)
    on_grid: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        if not self.w_min < 0 < self.w_max:
            raise DualpropError(
                f"w_min={self.w_min!r}, w_max={self.w_max!r}: the first must be below 0, the second above"
            )


@checked
def levels(bits: Annotated[Count, Field(le=16)]) -> PulsedDevice:
    """A device of 2^bits levels and nothing else: weights of so many bits without a float copy.

    A pulse leads from one level to the next. How many there are is rounded stochastically, and so is the weight.

    Args:
        bits: from 1 to 16.

    Example:
        >>> levels(2).dw_min
        0.6666666666666666
    """
    return PulsedDevice(2 / (2**bits - 1), on_grid=True, source=f"{2**bits} levels from -1 to 1")
