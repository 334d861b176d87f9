"""Objects of one's own in place of what settings name: data, a net, a rule, an optimizer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dualprop.arguments import check
from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.rules import Rule


@dataclass(frozen=True, eq=False)  # arrays are not equal or not
class Own:
    """What a caller brings along. A run records what it was, and needs it again to go on.

    Attributes:
        data: see `dualprop.data.own_dataset`.
        net: trained where it is; the rule that the settings name is bound to it.
        rule: bound to its net already, which is the one that is trained.
        optimizer: of the net's parameters; its learning rate stays as it is.

    Raises:
        DualpropError: for an object of another kind, or a rule of another net.
    """

    data: Any = None
    net: Net | None = None
    rule: Rule | None = None
    optimizer: torch.optim.Optimizer | None = None

    def __post_init__(self) -> None:
        for name, kind in (("net", Net), ("rule", Rule), ("optimizer", torch.optim.Optimizer)):
            if getattr(self, name) is not None:
                check(name, getattr(self, name), kind)
        if self.net is not None and self.rule is not None and self.rule.net.ideal is not self.net.ideal:
            raise DualpropError("rule: bound to another net than this one")
        if self.optimizer is not None and self.trained is None:
            raise DualpropError("optimizer: steps the parameters of a net, which is to be given as well: net=...")

    @property
    def trained(self) -> Net | None:
        """The net, its own or the rule's."""
        return self.net if self.rule is None else self.rule.net

    def described(self) -> dict[str, str]:
        """What was given: rule and optimizer with their settings, a net by a digest of all but its weights."""
        words = {} if self.data is None else {"data": "arrays"}
        if self.trained is not None:
            weights = {name: list(weight.shape) for name, weight in self.trained.state_dict().items()}
            made = _without_addresses(f"{weights} {self.trained!r} {self.trained.wiring!r}")
            digest = hashlib.blake2b(made.encode(), digest_size=8).hexdigest()
            words["net"] = f"{len(weights)} weights {digest}"
        if self.rule is not None:
            words["rule"] = _without_addresses(f"{type(self.rule).__module__}.{self.rule!r}")
        if self.optimizer is not None:
            settings = ", ".join(f"{name}={value!r}" for name, value in sorted(self.optimizer.defaults.items()))
            words["optimizer"] = (
                f"{type(self.optimizer).__module__}.{type(self.optimizer).__qualname__}({settings})"
            )
        return words

    def check_again(self, before: Mapping[str, str]) -> None:
        """Refuse to go on with a run by other objects than it was started with.

        Args:
            before: what `described` said then.

        Raises:
            DualpropError: naming what is missing, too much or another.
        """
        now = self.described()
        for name, was in before.items():
            if name not in now:
                raise DualpropError(
                    f"{name}: the run was started from Python with one of its own ({was}), which it needs again: "
                    f"resume(..., {name}=...)"
                )
        for name, value in now.items():
            if name not in before:
                raise DualpropError(f"{name}: the run was started without one of its own")
            if before[name] != value:
                raise DualpropError(f"{name}: of {value}, but the run was started with {before[name]}")


def _without_addresses(text: str) -> str:
    """What objects say of themselves, without where in memory they are."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)
