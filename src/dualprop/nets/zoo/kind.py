"""What an entry of `NETS` is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.nets.synapses import Pool

OF_EVERY_NET = ("init", "pool")
"""Options that a run has settings of its own for."""


@dataclass(frozen=True)
class NetKind:
    """An entry of `NETS`: a kind of net, made to fit samples and classes.

    Args:
        make: makes it from num_classes, in_shape and options.
        sizes: the hidden layers' neurons where the user chooses none, handed on as `hidden`; None for a net that
            has sizes of its own.
        pools: whether it has a `pool` to choose.
        activation: the hidden layers' potential if the net needs one of its own, whatever suits the rule.
        options: what else `make` takes by keyword, with its values: a record of the net holds them.

    Example:
        >>> from dualprop.nets import NETS
        >>> NETS["vgg16"].pools, NETS["mlp"].pools
        (True, False)
        >>> NETS["mlp"]((1, 28, 28), 10, hidden=[32]).shapes((1, 28, 28))
        [(1, 28, 28), (32,), (10,)]
    """

    make: Callable[..., Net]
    sizes: tuple[int, ...] | None = None
    pools: bool = False
    activation: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, in_shape: tuple[int, ...], num_classes: int, **options: Any) -> Net:
        """The net, with arguments as for `choose`."""
        return self.make(**self.choose(in_shape, num_classes, **options))

    def choose(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        own: Mapping[str, Any] | None = None,
        *,
        hidden: Sequence[int] | None = None,
        pool: Pool | str | None = None,
        init: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Every argument of `make`, what is left to the net included.

        Args:
            in_shape: the shape of a sample.
            num_classes: neurons of the output layer.
            own: what only this kind of net has to choose, by name.
            hidden: neurons of the hidden layers, None for the net's own.
            pool: its pooling, None for the net's own.
            init: its initial weights, None for the net's own.
            options: `activation`, `feedback` and `generator`.

        Raises:
            DualpropError: for what the net does not leave to choose.
        """
        name = self.make.__name__.lstrip("_")
        known = [option for option in self.options if option not in OF_EVERY_NET]
        for option in own or {}:
            if option not in known:
                listed = f"Known: {', '.join(known)}" if known else "It has none"
                raise DualpropError(f"net_settings: {name} has no setting {option!r} of its own. {listed}")
        if hidden is not None and self.sizes is None:
            raise DualpropError(f"hidden={list(hidden)}: {name} has sizes of its own; leave it out")
        if pool is not None and not self.pools:
            raise DualpropError(f"pool={pool!r}: {name} has no pooling; leave it out")
        chosen: dict[str, Any] = {"num_classes": num_classes, "in_shape": in_shape, **self.options}
        if init is not None:
            chosen["init"] = init
        if self.sizes is not None:
            chosen["hidden"] = self.sizes if hidden is None else hidden
        if pool is not None:
            chosen["pool"] = pool
        return {**chosen, **(own or {}), **options}
