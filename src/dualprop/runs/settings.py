"""The settings of a training run: one dataclass behind the command line, the Python interface and the run record.

This module imports nothing heavy, so that `dualprop --help` is quick.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from dualprop.arguments import Count, Fraction, Grey, NotNegative, Positive, Seed, Several, checked
from dualprop.errors import DualpropError

_Threads = Annotated[Count, Field(le=1024)]


def _setting(group: str, default: Any, *, identity: bool = True) -> Any:
    """A field: its group on the command line, its default, and whether it is part of what is computed."""
    metadata = {"group": group, "identity": identity}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@checked
@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes, and a few things that do not.

    What is chosen by name is looked up when the run is built: rules in `dualprop.RULES`, nets in `dualprop.NETS`,
    data sets in `dualprop.data.DATASETS`, and so on; `dualprop train --help` lists all names.

    Args:
        rule: the learning rule.
        data: the data set, or folder:PATH.
        net: the net.
        hidden: neurons in each hidden layer, as 256,256; else the net's.
        activation: of the hidden layers; else the net's or the rule's, most often relu.
        init: initial weights; else the rule's or the net's.
        init_from: a run folder, whose best weights are the initial ones.
        pool: pooling in a convolutional net; else the rule's.
        feedback: how the error comes down; else as the rule needs it.
        loss: the loss.
        label_smoothing: part of each target spread over all classes, in [0, 1); for cross_entropy.
        net_settings: the net's own, for example 'top_down=skew;strength=0.2'.
        rule_settings: the rule's own, for example 'alpha=0.5;schedule=sweep:2'.
        devices: what the hardware is like, in training and in tests: a TOML file with channels by what they act
            on, and with updates for pulsed-sgd; else ideal.
        optimizer: the optimizer.
        lr: learning rate, positive.
        lr_factors: for each layer from the input up, what multiplies lr, as 1,0.6,0.4.
        momentum: momentum of sgd, in [0, 1).
        weight_decay: weight decay, at least 0.
        lr_schedule: of lr; cosine is a linear warm-up, then half a cosine to min_lr.
        min_lr: learning rate that cosine ends at.
        lr_epochs: epochs after which cosine stays at min_lr; else all.
        warmup_epochs: epochs of linear warm-up, for cosine.
        warmup_lr: learning rate at the start of the warm-up.
        clip_norm: the largest norm of all gradients together; 0 for no limit.
        fused_update: step each parameter as soon as its gradient exists, and free that: less memory, the same
            weights.
        ema: decay of averaged weights to test, in [0, 1); 0 for none.
        epochs: passes over the training data.
        batch_size: samples in a batch.
        val_fraction: part of the training data that is held out, in [0, 1).
        augment: random crops with 4 px padding and horizontal flips.
        standardise: zero mean and unit variance per channel; else pixels in [0, 1].
        std_scale: multiplies the deviations that standardise divides by.
        image_size: side to which the images of a folder are brought.
        background: grey level, 0..255, behind transparent images of a folder.
        verify_data: read all data before training, imagenet32's pixels and all samples of a torch Dataset, too.
        precision: of the products; bf16 by autocast.
        channels_last: keep images and their weights in channels-last order.
        compile: let torch.compile speed up what the rule can have compiled.
        seed: of initial weights, split, order of the data and augmentation.
        alignment: compare gradients with back-propagation's after each epoch.
        device: auto, cpu, cuda or mps.
        threads: of the products on a CPU: a number, or auto (1 if all are small).
        data_root: where the data is; else DUALPROP_DATA, else your cache folder.
        log_every: steps between two lines of training metrics.
        checkpoint_every: seconds between checkpoints, besides every epoch's.

    Raises:
        DualpropError: for a number out of range.
    """

    rule: str = _setting("what", "dp")
    data: str = _setting("what", "digits")
    net: str = _setting("what", "mlp")
    hidden: Several[Count] | None = _setting("what", None)
    activation: str | None = _setting("what", None)
    init: str | None = _setting("what", None)
    init_from: str | None = _setting("what", None)
    pool: str | None = _setting("what", None)
    feedback: str | None = _setting("what", None)
    loss: str = _setting("what", "mse")
    label_smoothing: Fraction = _setting("what", 0.0)
    net_settings: Mapping[str, Any] = _setting("what", {})
    rule_settings: Mapping[str, Any] = _setting("rule", {})
    devices: Mapping[str, Any] = _setting("rule", {})
    optimizer: str = _setting("optimizer", "adam")
    lr: Positive = _setting("optimizer", 1e-3)
    lr_factors: Several[Positive] | None = _setting("optimizer", None)
    momentum: Fraction = _setting("optimizer", 0.9)
    weight_decay: NotNegative = _setting("optimizer", 0.0)
    lr_schedule: str = _setting("schedule", "constant")
    min_lr: NotNegative = _setting("schedule", 0.0)
    lr_epochs: NotNegative | None = _setting("schedule", None)
    warmup_epochs: NotNegative = _setting("schedule", 0.0)
    warmup_lr: NotNegative = _setting("schedule", 0.0)
    clip_norm: NotNegative = _setting("optimizer", 0.0)
    fused_update: bool = _setting("optimizer", False)
    ema: Fraction = _setting("optimizer", 0.0)
    epochs: Count = _setting("schedule", 10)
    batch_size: Count = _setting("data", 100)
    val_fraction: Fraction = _setting("data", 0.1)
    augment: bool = _setting("data", False)
    standardise: bool = _setting("data", False)
    std_scale: Positive = _setting("data", 1.0)
    image_size: Count | None = _setting("data", None)
    background: Grey = _setting("data", 255)
    verify_data: bool = _setting("data", False, identity=False)
    precision: str = _setting("precision", "float32")
    channels_last: bool = _setting("precision", False)
    compile: bool = _setting("precision", False)
    seed: Seed = _setting("run", 0)
    alignment: bool = _setting("run", True)
    device: str = _setting("run", "auto", identity=False)
    threads: Literal["auto"] | _Threads = _setting("run", "auto", identity=False)
    data_root: str | None = _setting("data", None, identity=False)
    log_every: Count = _setting("run", 100)
    checkpoint_every: NotNegative = _setting("run", 60.0, identity=False)

    def __post_init__(self) -> None:
        if self.init_from is not None:
            if self.init is not None:
                raise DualpropError(
                    f"init={self.init!r}: not with init_from, which is where the weights come from"
                )
            object.__setattr__(self, "init_from", os.path.abspath(self.init_from))
        least = self.warmup_epochs
        between = {
            "min_lr": (self.min_lr <= self.lr, f"must be in [0, lr={self.lr:g}]"),
            "warmup_epochs": (least <= self.epochs, f"must be in [0, epochs={self.epochs}]"),
            "lr_epochs": (
                self.lr_epochs is None or least <= self.lr_epochs <= self.epochs,
                f"must be in [warmup_epochs={least:g}, epochs={self.epochs}]",
            ),
        }
        for name, (holds, allowed) in between.items():
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
            DualpropError: for a name that is not a setting, or a value out of range.
        """
        return cls(**values)

    def replaced(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with some of them changed: for resuming, what the run has not yet depended on.

        Raises:
            DualpropError: for a name that is not a setting, or a change that contradicts the run's.
        """
        new = dataclasses.replace(self, **changes)
        fixed = self.fixed()
        for name, before in fixed.items():
            if (after := getattr(new, name)) != before:
                ends = "; its learning rate ends with them" if name == "epochs" else ""
                raise DualpropError(
                    f"{name}={after!r}: contradicts the run, which was started with {before!r}{ends}"
                )
        return new

    def fixed(self) -> dict[str, Any]:
        """The settings that every step depends on.

        The number of epochs is one of them if the learning rate's way to its end is measured by it.
        """
        fixed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["identity"]}
        del fixed["data"]  # what they hold is compared, not where they are
        if self.lr_schedule == "constant" or self.lr_epochs is not None:
            del fixed["epochs"]
        return fixed
