"""What every maker of cells does."""

from __future__ import annotations

import functools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import torch

from dualprop.arguments import Count, CountOrZero, check_entries
from dualprop.errors import DualpropError
from dualprop.rules import RULES
from dualprop.runs.settings import Settings
from dualprop.training.resolved import make_net, net_arguments


@dataclass(frozen=True)
class Record:
    """What the folder of a cell says.

    Attributes:
        settings: what was asked for.
        used: what was made of it, as far as it is known: "net" and "rule", with all their settings; "own", what a
            caller has brought along; for a measurement, "measure" with its arguments.
        numbers: what was measured, by name; empty while it is not finished.
        complete: whether it came to its end.
        diverged: why it did not; empty where it did, or may yet.
        epochs: what was recorded at the end of each epoch, where there are some.
    """

    settings: Settings
    used: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    complete: bool = False
    diverged: str = ""
    epochs: Sequence[Mapping[str, Any]] = ()


class Maker(ABC):
    """Makes the cells of a table and reads them. Its own arguments are those of its constructor.

    Attributes:
        epochs: whether its cells are trained by epochs, which a shorter schedule has fewer of.
        timed: whether it measures time, which nothing else may run beside.
        immaterial: settings in which two cells of a row may differ.
    """

    epochs: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    immaterial: ClassVar[Sequence[str]] = (
        *(f.name for f in fields(Settings) if not f.metadata["identity"]),
        *("seed", "alignment", "log_every", "precision", "channels_last", "compile", "fused_update"),
    )

    @abstractmethod
    def check(self, settings: Settings) -> None:
        """Refuse settings that it cannot do, by their names alone; no data are read.

        Raises:
            DualpropError: for the first thing that is wrong.
        """

    @abstractmethod
    def make(self, settings: Settings, folder: Path, how: Mapping[str, Any]) -> None:
        """Make a cell, or go on with it.

        Args:
            settings: the cell's.
            folder: its record, which may be there.
            how: what `dualprop.train` is told of showing how it goes.

        Raises:
            DualpropError: for whatever is wrong, before the folder is made.
            DivergenceError: if it diverged; its record says so, too.
            Interrupted: on Ctrl-C or SIGTERM; what is there can be gone on with.
        """

    @abstractmethod
    def seconds(self, settings: Settings) -> float:
        """How long an epoch takes here, or all of it where there are no epochs, as a few steps show."""

    @classmethod
    @abstractmethod
    def read(cls, folder: Path) -> Record | None:
        """What a folder says, or None if it is no record of this kind.

        Raises:
            CheckpointError: if it is one, and damaged.
        """

    def differences(
        self, full: Settings, record: Record, classes: int | None = None
    ) -> dict[str, tuple[Any, Any]] | None:
        """How a record differs from the full setting of a row.

        Args:
            full: the row's settings.
            record: what `read` gave.
            classes: that the data are to have; None for any.

        Returns:
            For each name what the record has and what the table has, where schedule or data were shortened; {} for
            the full setting; None if the record is no cell of the row at all.
        """
        asked, used = record.settings, record.used
        left = [name for part, names in CHOICES.items() if part in used for name in names]
        told = {*self.immaterial, *SHORTENED, *left}
        if any(getattr(asked, name) != getattr(full, name) for name in NAMES if name not in told):
            return None
        if used.get("measure", {}) != self.arguments() or not _same(used, full):
            return None
        both = {name: (getattr(asked, name), getattr(full, name)) for name in SHORTENED}
        if classes is not None and "net" in used:
            both["classes"] = used["net"]["num_classes"], classes
        return {name: (ours, theirs) for name, (ours, theirs) in both.items() if ours != theirs}

    def arguments(self) -> dict[str, Any]:
        """Its own arguments, as JSON holds them."""
        return {}


SHORTENED = ("epochs", "warmup_epochs", "lr_epochs", "val_fraction")
"""Settings by which a schedule is shortened, or the data: such a cell is shown, and not compared."""

CHOICES = {"net": ("hidden", "activation", "init", "pool", "feedback", "net_settings"), "rule": ("rule_settings",)}
"""Settings that leave a choice to net and rule: where it is recorded, that is compared."""

NAMES = [f.name for f in fields(Settings)]


def _same(used: Mapping[str, Any], full: Settings) -> bool:
    """Whether net and rule are those of the full setting, as far as the record says what they are."""
    if "net" not in used or used.get("own"):
        return not used.get("own")
    try:
        check_entries(used["net"], {"in_shape": list[Count], "num_classes": CountOrZero})
        ours = _used(json.dumps(full.as_dict()), tuple(used["net"]["in_shape"]), used["net"]["num_classes"])
    except DualpropError:  # no net of a table's, or one that does not fit such data
        return False
    chosen = {"net": full.net_settings, "rule": full.rule_settings}
    return all(  # what a record does not have is a default, of before there was that setting
        used[part][name] == value if name in used[part] else name not in chosen[part]
        for part in ("net", "rule")
        if part in used
        for name, value in ours[part].items()
    )


@functools.cache
def _used(settings: str, in_shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
    """Every setting of net and rule, what is left to them included, as JSON holds them."""
    full = Settings.from_dict(json.loads(settings))
    arguments = net_arguments(full, in_shape, num_classes)
    method = RULES[full.rule]
    with torch.device("meta"):  # which has shapes and no numbers
        rule = method(make_net(full.net, arguments, 0), loss=full.loss, **full.rule_settings)
    values: dict[str, Any] = json.loads(
        json.dumps({"net": arguments, "rule": method.used(rule, full.rule_settings)}, default=repr)
    )
    return values


def least(work: Callable[[], object]) -> float:
    """The least time that some work takes, in seconds, of as often as it can be done in one.

    The first time does not count: libraries are imported then, and memory is made.

    Args:
        work: what is timed; it is done at least twice.
    """
    work()
    times: list[float] = []
    while not times or (sum(times) < 1 and len(times) < 5):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)
