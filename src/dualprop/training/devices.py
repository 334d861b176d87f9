"""The devices of a run: channels for its rule, and an optimizer for what its weights are kept on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dualprop.arguments import check
from dualprop.errors import DualpropError
from dualprop.nets.devices import PulsedSGD, levels
from dualprop.nets.devices.places import QUANTITIES
from dualprop.registry import near
from dualprop.runs.settings import Settings

PULSED = "pulsed-sgd"
"""The optimizer that makes updates by pulses, by its name in `OPTIMIZERS`."""

UPDATES = "updates"


def channels(settings: Settings) -> dict[str, Any]:
    """What the rule of a run is told of its devices, by keyword."""
    told = {name: value for name, value in settings.devices.items() if name != UPDATES}
    return {**told, "device_seed": settings.seed} if told else {}


def optimizer(parameters: Any, settings: Settings) -> torch.optim.Optimizer:
    """`PulsedSGD` with the run's learning rate and devices.

    Args:
        parameters: as PyTorch's optimizers take them.
        settings: `devices.updates` holds the arguments of `PulsedSGD`, or bits in place of device.
    """
    own = dict(check(f"devices.{UPDATES}", settings.devices.get(UPDATES, {}), Mapping[str, Any]))
    if "bits" in own:
        if "device" in own:
            raise DualpropError(f"devices.{UPDATES}: has bits and device; give one, for bits make a device")
        own["device"] = levels(own.pop("bits"))
    return PulsedSGD(parameters, settings.lr, **{"seed": settings.seed, **own})


def spoken(devices: Any) -> str:
    """What devices are, in a few words; nothing for ideal ones.

    Example:
        >>> spoken({"states": [{"channel": "noise", "sigma": 0.2}], "updates": {"device": "EcRam"}})
        'states noise sigma 0.2, updates device EcRam'
    """
    return ", ".join(f"{name} {_words(value)}" for name, value in devices.items())


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(str(v) if k == "channel" else f"{k} {_words(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return " + ".join(map(_words, value))
    return str(value)


def check_devices(settings: Settings) -> None:
    """Refuse devices that there are not, and settings that do not go with those that there are.

    Raises:
        DualpropError: for the first such thing.
    """
    known = [*QUANTITIES, UPDATES]
    for name in settings.devices:
        if name not in known:
            raise DualpropError(f"devices: unknown name {name!r}; {near(name, known)}")
    for name in settings.rule_settings:
        if name in QUANTITIES:
            raise DualpropError(f"{name}: belongs into devices, beside the rule's settings")
    if UPDATES in settings.devices and settings.optimizer != PULSED:
        raise DualpropError(f"optimizer={settings.optimizer!r}: devices has updates, which {PULSED} alone makes")
    if settings.optimizer == PULSED:
        if settings.weight_decay or settings.fused_update:
            name = "weight_decay" if settings.weight_decay else "fused_update"
            raise DualpropError(f"{name}: not with {PULSED}")
        optimizer([torch.nn.Parameter(torch.zeros(1, 1))], settings)
