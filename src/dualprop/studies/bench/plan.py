"""What is to be measured, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field

from dualprop.arguments import Count, Positive, Several, checked
from dualprop.errors import DualpropError
from dualprop.nets import NETS
from dualprop.nets.devices import Energy
from dualprop.rules import RULES
from dualprop.studies.bench.subjects import subjects
from dualprop.studies.bench.workload import in_shape, make_net
from dualprop.training.experiment import PRECISIONS, device

_Count = Annotated[Count, Field(lt=2**31)]


@checked
@dataclass(frozen=True)
class Plan:
    """Which subjects, on which nets, in which precisions, how often.

    Args:
        rules: names in `subjects()`; every one by default.
        nets: names in `NETS`, of nets without cycles.
        precisions: names in `PRECISIONS`.
        batch_size: samples in a step.
        features: of a sample of the mlp.
        hidden: neurons in the hidden layers of the mlp.
        repeats: pairs of steps of each row.
        budget: seconds after which a row begins no further pair.
        compile: whether each subject is measured compiled, too.
        device: auto, cpu, cuda or mps.
        energy: the constants of `dualprop.devices.Energy` that are not its defaults, for columns of what hardware
            would pay; None for none of these.

    Raises:
        DualpropError: for an unknown name, a repetition, a number out of range or a net with cycles.
    """

    rules: Several[str] | None = None
    nets: Several[str] = ("mlp", "vgg_like", "vgg16")
    precisions: Several[str] = ("float32", "bf16")
    batch_size: _Count = 100
    features: _Count = 784
    hidden: Several[Count] = (1000, 1000, 1000)
    repeats: _Count = 10
    budget: Positive = 60.0
    compile: bool = False
    device: str = "auto"
    energy: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        known: dict[str, tuple[Sequence[str], Mapping[str, object]]] = {
            "rules": (self.names, subjects()),
            "nets": (self.nets, NETS),
            "precisions": (self.precisions, PRECISIONS),
        }
        for name, (values, registry) in known.items():
            for value in values:
                registry[value]
            if not values or len(set(values)) != len(values):
                raise DualpropError(f"{name}={list(values)}: must name at least one, and each once")
        for net in self.nets:
            with torch.device("meta"):  # how it is connected, and no weights
                cyclic = make_net(net, in_shape(net, self.features), self.hidden, RULES["bp"]).wiring.cyclic
            if cyclic:
                raise DualpropError(
                    f"nets={net!r}: has cycles; rows are measured beside back-propagation in plain PyTorch, "
                    "which runs on none"
                )
        device(self.device)
        self.constants  # noqa: B018 - checked

    @property
    def constants(self) -> Energy | None:
        """What each thing costs, if that is counted."""
        return None if self.energy is None else Energy(**self.energy)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the subjects."""
        return tuple(subjects()) if self.rules is None else self.rules

    def rows(self) -> list[tuple[str, bool]]:
        """The rows of each table: a subject's name, and whether it is compiled."""
        kinds = subjects()
        compiled = (False, True) if self.compile else (False,)
        return [(name, c) for name in self.names for c in compiled if not c or kinds[name].compiles]
