"""Objects of one's own in place of what settings name: data, a net, a rule, an optimizer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
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
        if self.net is not None and self.rule is not None and self.rule.net is not self.net:
            raise DualpropError("rule: bound to another net than this one")
        if self.optimizer is not None and self.trained is None:
            raise DualpropError("optimizer: steps the parameters of a net, which is to be given as well: net=...")

    @property
    def trained(self) -> Net | None:
        """The net, its own or the rule's."""
        return self.net if self.rule is None else self.rule.net

    def described(self) -> dict[str, str]:
        """In a word or two, what of it was given; of a net also the digest of its weights' names and shapes."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        words = {name: f"{type(value).__module__}.{type(value).__qualname__}" for name, value in given.items()}
        if self.trained is not None:
            shapes = {name: list(weight.shape) for name, weight in self.trained.state_dict().items()}
            words["net"] = (
                f"{len(shapes)} weights {hashlib.blake2b(repr(shapes).encode(), digest_size=8).hexdigest()}"
            )
        return {**words, "data": "arrays"} if "data" in words else words

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
