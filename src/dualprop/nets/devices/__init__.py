"""Hardware that is not ideal: channels on states, drives, feedback and weights, and devices that hold weights.

Every rule takes channels by the keywords `states`, `drives`, `feedback_signal`, `weights` and `feedback_weights`:
one, or a list of them, for all layers alike, or a table of these by the number or the name of a layer.

Example:
    >>> import torch, dualprop as dp
    >>> net = dp.nets.mlp([4, 8, 3])
    >>> rule = dp.DualProp(net, states=dp.devices.Noise(0.1), weights=dp.devices.Quantised(bits=1, range=0.5))
    >>> step = rule.backward(torch.randn(5, 4), torch.randint(3, (5,)))
    >>> net.chain[0].synapse.weight.grad is not None
    True
"""

from dualprop.nets.devices.channels import (
    CHANNELS,
    Channel,
    Clipped,
    DeviceVariation,
    Dropped,
    Noise,
    Quantised,
    Sign,
)
from dualprop.nets.devices.draws import Draws
from dualprop.nets.devices.optimizer import PulsedSGD
from dualprop.nets.devices.presets import PRESETS
from dualprop.nets.devices.pulsed import PulsedDevice, levels
from dualprop.nets.devices.trace import Energy, Trace

__all__ = [
    "CHANNELS",
    "PRESETS",
    "Channel",
    "Clipped",
    "DeviceVariation",
    "Draws",
    "Dropped",
    "Energy",
    "Noise",
    "PulsedDevice",
    "PulsedSGD",
    "Quantised",
    "Sign",
    "Trace",
    "levels",
]
