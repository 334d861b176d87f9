"""The settings of a training run: one dataclass behind the command line, the Python interface and the run record.

This module imports nothing heavy, so that `dualprop --help` is quick.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from dualprop.errors import DualpropError

Parser = Callable[[str, str], Any]
"""Reads a word of the command line: the option's name for its errors, and the word."""


def whole_numbers(name: str, text: str) -> tuple[int, ...]:
    """Whole numbers from a word like "1000,1000"; none from an empty word."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise DualpropError(f"{name}={text!r}: must be whole numbers, for example 1000,1000") from None


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Numbers from a word like "1,0.6,0.4"."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise DualpropError(f"{name}={text!r}: must be numbers, for example 1,0.6,0.4") from None


def thread_count(name: str, text: str) -> int | str:
    """A number of threads, or another word as it stands."""
    return int(text) if text.isdecimal() else text


def rule_settings(name: str, text: str) -> dict[str, Any]:
    """A rule's settings from a word like "alpha=0.25;beta=[1,1,0.5];schedule=random:50;lazy=true".

    Values are JSON, or else words. Settings are separated by semicolons.
    """
    settings: dict[str, Any] = {}
    for item in filter(None, text.split(";")):
        own, equals, value = item.partition("=")
        if not equals or not own.strip():
            raise DualpropError(f"{name}={item!r}: must be NAME=VALUE, for example beta=0.5")
        try:
            settings[own.strip()] = json.loads(value)
        except json.JSONDecodeError:
            settings[own.strip()] = value.strip()
    return settings


def _setting(default: Any, help: str, *, parse: Parser | None = None, identity: bool = True) -> Any:
    """A field: its help on the command line, how its word is read, and whether it is part of what is computed."""
    metadata = {"help": help, "parse": parse, "identity": identity}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes, and a few things that do not.

    Raises:
        DualpropError: for a number out of range. Names are looked up when the run is built.
    """

    rule: str = _setting("dp", "The learning rule: a name in `dualprop.RULES`.")
    data: str = _setting("digits", "The data set: a name in `dualprop data list`, or folder:PATH.")
    net: str = _setting("mlp", "The net: a name in `dualprop.NETS`.")
    hidden: tuple[int, ...] | None = _setting(
        None, "Neurons in each hidden layer, as 256,256; else the net's own.", parse=whole_numbers
    )
    activation: str | None = _setting(None, "The hidden layers' potential; else the rule's own, most often relu.")
    init: str | None = _setting(
        None, "Initial weights: glorot-uniform, lecun-normal or uniform-fan-in; else the rule's or the net's own."
    )
    pool: str | None = _setting(
        None, "A convolutional net's pooling: max, avg or softmax; else the rule's own, most often max."
    )
    loss: str = _setting("mse", "mse, mse-linearised or cross_entropy.")
    label_smoothing: float = _setting(
        0.0, "Part of each target spread evenly over the classes, in [0, 1); cross_entropy only."
    )
    rule_settings: Mapping[str, Any] = _setting(
        {}, "The rule's own settings, for example 'alpha=0.5;beta=0.5;schedule=sweep:2'.", parse=rule_settings
    )
    optimizer: str = _setting("adam", "adam, adamw or sgd.")
    lr: float = _setting(1e-3, "Learning rate.")
    lr_factors: tuple[float, ...] | None = _setting(
        None, "What it is multiplied by in each layer, as 1,0.6,0.4 from the input up; else 1.", parse=numbers
    )
    momentum: float = _setting(0.9, "Momentum of sgd, in [0, 1).")
    weight_decay: float = _setting(0.0, "Weight decay of the optimizer, at least 0.")
    lr_schedule: str = _setting("constant", "constant, or cosine (linear warm-up, then half a cosine to min_lr).")
    min_lr: float = _setting(0.0, "Learning rate that cosine ends at, at most lr.")
    lr_epochs: float | None = _setting(None, "Epochs after which cosine has ended and stays at min_lr; else all.")
    warmup_epochs: float = _setting(0.0, "Epochs of linear warm-up, for cosine.")
    warmup_lr: float = _setting(0.0, "Learning rate at the start of the warm-up.")
    clip_norm: float = _setting(0.0, "The largest norm that all gradients together may have; 0 for no limit.")
    fused_update: bool = _setting(
        False, "Step each parameter as soon as its gradient exists, and free that: less memory, the same weights."
    )
    ema: float = _setting(0.0, "Decay of averaged weights to validate and test, in [0, 1); 0 for none.")
    epochs: int = _setting(10, "Passes over the training data.")
    batch_size: int = _setting(100, "Samples in a batch.")
    val_fraction: float = _setting(0.1, "Part of the training data held out for validation, in [0, 1).")
    augment: bool = _setting(False, "Random crops with 4 px padding and horizontal flips.")
    standardise: bool = _setting(False, "Zero mean and unit variance per channel; else pixels in [0, 1].")
    std_scale: float = _setting(1.0, "Multiplies the standard deviations that standardise divides by.")
    image_size: int | None = _setting(None, "Side to which the images of a folder are resized.")
    precision: str = _setting("float32", "float32, or bf16 for autocast of the products.")
    channels_last: bool = _setting(False, "Keep images and convolutions' weights in channels-last order.")
    compile: bool = _setting(False, "Let torch.compile speed up what the rule can have compiled.")
    seed: int = _setting(0, "Of the initial weights, the split, the order of the data and the augmentation.")
    alignment: bool = _setting(True, "After each epoch, compare the rule's gradient with back-propagation's.")
    device: str = _setting("auto", "auto, cpu, cuda or mps.", identity=False)
    threads: int | str = _setting(
        "auto",
        "Threads of the products on a CPU: a number, or auto (1 where all products of a batch are small).",
        parse=thread_count,
        identity=False,
    )
    data_root: str | None = _setting(
        None, "Where the data is; else DUALPROP_DATA, else the user's cache folder.", identity=False
    )
    log_every: int = _setting(100, "Steps between two lines of training metrics.")
    checkpoint_every: float = _setting(60.0, "Seconds between checkpoints, besides every epoch's.", identity=False)

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            _check_kind(name, getattr(self, name), kind)
        for name, at_least in (("epochs", 1), ("batch_size", 1), ("log_every", 1), ("seed", 0)):
            value = getattr(self, name)
            if not at_least <= value < 2**63:
                raise DualpropError(
                    f"{name}={value!r}: must be a whole number of at least {at_least}, below 2**63"
                )
        if self.lr_factors is not None:
            object.__setattr__(self, "lr_factors", tuple(self.lr_factors))
            if not all(type(n) in (int, float) and 0 < n < math.inf for n in self.lr_factors):
                raise DualpropError(f"lr_factors={list(self.lr_factors)}: must be positive and finite numbers")
        if self.hidden is not None:
            object.__setattr__(self, "hidden", tuple(self.hidden))
            if not all(type(n) is int and n >= 1 for n in self.hidden):
                raise DualpropError(f"hidden={list(self.hidden)}: must be whole numbers of at least 1")
        checks = {
            "lr": (0 < self.lr < math.inf, "must be positive and finite"),
            "momentum": (0 <= self.momentum < 1, "must be in [0, 1)"),
            "min_lr": (0 <= self.min_lr <= self.lr, f"must be in [0, lr={self.lr:g}]"),
            "lr_epochs": (
                self.lr_epochs is None or self.warmup_epochs <= self.lr_epochs <= self.epochs,
                f"must be in [warmup_epochs={self.warmup_epochs:g}, epochs={self.epochs}]",
            ),
            "weight_decay": (0 <= self.weight_decay < math.inf, "must be at least 0"),
            "warmup_epochs": (0 <= self.warmup_epochs <= self.epochs, f"must be in [0, epochs={self.epochs}]"),
            "warmup_lr": (0 <= self.warmup_lr < math.inf, "must be at least 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "must be in [0, 1)"),
            "clip_norm": (0 <= self.clip_norm < math.inf, "must be at least 0 and finite"),
            "ema": (0 <= self.ema < 1, "must be in [0, 1)"),
            "val_fraction": (0 <= self.val_fraction < 1, "must be in [0, 1)"),
            "std_scale": (0 < self.std_scale < math.inf, "must be positive and finite"),
            "checkpoint_every": (self.checkpoint_every >= 0, "must be at least 0"),
            "threads": (
                self.threads == "auto" or (isinstance(self.threads, int) and 1 <= self.threads < 2**31),
                "must be auto or a whole number of at least 1",
            ),
        }
        for name, (holds, allowed) in checks.items():
            if not holds:
                raise DualpropError(f"{name}={getattr(self, name)!r}: {allowed}")
        if self.std_scale != 1 and not self.standardise:
            raise DualpropError(f"std_scale={self.std_scale:g}: goes with standardise")
        if self.fused_update and self.clip_norm:
            raise DualpropError(
                f"fused_update: not with clip_norm={self.clip_norm:g}, which needs every gradient at once"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from plain values.

        Raises:
            DualpropError: for a name that is not a setting.
        """
        check_names(values)
        return cls(**values)

    def replaced(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with some of them changed; for resuming only what does not change the result may be.

        Raises:
            DualpropError: for a name that is not a setting, or a change that contradicts the run's.
        """
        check_names(changes)
        new = dataclasses.replace(self, **changes)
        for f in dataclasses.fields(self):
            before, after = getattr(self, f.name), getattr(new, f.name)
            if f.metadata["identity"] and before != after:
                raise DualpropError(f"{f.name}={after!r}: contradicts the run, which was started with {before!r}")
        return new


def check_names(values: Mapping[str, Any]) -> None:
    """Refuse names that are not settings."""
    for name in values:
        if name not in _KINDS:
            raise DualpropError(f"{name}: no such setting. Known: {', '.join(_KINDS)}")


_KINDS: dict[str, Any] = get_type_hints(Settings)
"""The type of every setting."""

_ALLOWED: dict[Any, tuple[tuple[type, ...], str]] = {
    float: ((float, int), "a number"),
    int: ((int,), "a whole number"),
    bool: ((bool,), "true or false"),
    str: ((str,), "a word"),
    tuple[int, ...]: ((tuple, list), "whole numbers"),
    tuple[float, ...]: ((tuple, list), "numbers"),
    Mapping[str, Any]: ((Mapping,), "a table of settings"),
    types.NoneType: ((types.NoneType,), "none"),
}
"""For each type of a setting the types that a value may have, and what to call them."""


def _check_kind(name: str, value: object, kind: Any) -> None:
    """Refuse a value of another type than the setting's."""
    kinds = get_args(kind) if get_origin(kind) is types.UnionType else (kind,)
    allowed = [_ALLOWED[k] for k in kinds]
    if not any(isinstance(value, fits) and (bool in fits or not isinstance(value, bool)) for fits, _ in allowed):
        raise DualpropError(f"{name}={value!r}: must be {' or '.join(word for _, word in allowed)}")
