"""All that a run uses: what its settings leave to rule, net or machine, decided once and written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from dualprop.arguments import Count, check
from dualprop.errors import DualpropError
from dualprop.nets import NETS
from dualprop.nets.net import Net
from dualprop.rules import RULES
from dualprop.runs.settings import Settings


@dataclass(frozen=True)
class Resolved:
    """Every value from which the net, the rule and the optimizer of a run are made, by name.

    A record of it makes the same net and rule again after a default has changed.

    Attributes:
        net: the arguments of the function behind `NETS[settings.net]`.
        rule: the settings of the rule behind `RULES[settings.rule]`; schedules are words.
        optimizer: those of PyTorch's optimizer.
        device: the kind of device, for example "cpu".
        threads: the threads that products are computed in.
        data: the fingerprint of the data set; "" where it was not recorded.
        own: what a caller has brought along, see `Own.described`.
        workers: which layers each worker has, how they work and what carries their messages; empty without any.
    """

    net: Mapping[str, Any]
    rule: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    device: str
    threads: int
    data: str = ""
    own: Mapping[str, str] = field(default_factory=dict)
    workers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Resolved:
        """What `as_dict` gave.

        Raises:
            TypeError: if a value is missing.
            DualpropError: if one is of another kind.
        """
        resolved = cls(**values)
        for name in ("net", "rule", "optimizer", "own", "workers"):
            check(name, getattr(resolved, name), dict[str, Any])
        check("device", resolved.device, str)
        check("threads", resolved.threads, Count)
        check("data", resolved.data, str)
        return resolved

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), default=repr))
        return values


def net_arguments(settings: Settings, in_shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
    """Every argument that the net of these settings is made with, the same for every rule but for its own choices.

    Raises:
        DualpropError: for a choice that the net does not leave.
    """
    kind, method = NETS[settings.net], RULES[settings.rule]
    return kind.choose(
        in_shape,
        num_classes,
        settings.net_settings,
        hidden=settings.hidden,
        pool=settings.pool or (method.pool if kind.pools else None),
        init=settings.init or method.init,
        activation=settings.activation or kind.activation or method.activation,
        feedback=settings.feedback or method.feedback,
    )


def make_net(name: str, arguments: Mapping[str, Any], seed: int) -> Net:
    """The untrained net.

    Args:
        name: in `NETS`.
        arguments: as `net_arguments` gives them, or as a record holds them.
        seed: of the initial weights.

    Raises:
        DualpropError: for an argument that the net refuses, or a net too large to make.
    """
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        return NETS[name].make(**arguments, generator=torch.Generator().manual_seed(seed))
    except (RuntimeError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        hidden = arguments.get("hidden", ())
        raise DualpropError(f"hidden={hidden}: a net too large to make ({reason})") from None
    except DualpropError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:  # of an edited record
        raise DualpropError(f"net={name!r}: cannot be made with {arguments} ({error})") from None
