"""What a run has learnt, at work: its rule with the best weights, on samples made ready as in its training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualprop.arguments import check
from dualprop.data import Dataset, Form, batched
from dualprop.errors import CheckpointError, DualpropError
from dualprop.files import parse_json
from dualprop.nets.devices.places import CALIBRATION
from dualprop.nets.losses import LOSSES
from dualprop.rules import RULES, Rule
from dualprop.runs.folder import Run
from dualprop.runs.settings import Settings
from dualprop.training.callbacks.records import RANGES
from dualprop.training.devices import UPDATES, channels, check_devices
from dualprop.training.experiment import EVALUATION_BATCH, PRECISIONS, autocast, device
from dualprop.training.trainer import Trainer
from dualprop.training.weights import BEST, load_net, recorded


@dataclass(frozen=True)
class Predictor:
    """A run's rule with its best weights.

    Attributes:
        settings: the run's.
        rule: bound to the net with these weights.
        form: what samples are, and how they are made ready.
        epoch: after which the weights were the best.
        finished: whether the run is.
        fingerprint: of the data that it was trained on.
    """

    settings: Settings
    rule: Rule
    form: Form
    epoch: str
    finished: bool
    fingerprint: str

    @classmethod
    def open(cls, run: str | Path, on: str = "auto", devices: Mapping[str, Any] | None = None) -> Predictor:
        """That of a run folder, on the hardware that it was trained on.

        Args:
            run: the folder.
            on: the device: auto, cpu, cuda or mps.
            devices: what the hardware is like in place of the run's, see `Settings`; {} for ideal.

        Raises:
            DualpropError: if it is no run folder, has no weights yet, or needs a net or rule of one's own.
        """
        opened = Run.open(Path(run))
        settings, used = opened.settings, recorded(opened)
        if used is not None and (own := used.own.keys() & {"net", "rule"}):
            raise CheckpointError(
                f"{opened.path}: has a {min(own)} of one's own, which Python alone can load: load_net"
            )
        if not (opened.path / BEST).exists():
            raise CheckpointError(f"{opened.path}: has no weights yet; the first come with its first epoch")
        _, notes = opened.load_weights(BEST)
        if "form" not in notes:
            raise CheckpointError(
                f"{opened.path / BEST}: of a former version of dualprop; it does not say what its samples are"
            )
        try:
            form = Form.read(notes["form"])
        except DualpropError as error:
            raise CheckpointError(f"{opened.path / BEST}: damaged ({error})") from None
        net = load_net(run).to(device(on))
        chosen = used.rule if used is not None else settings.rule_settings
        if devices is not None:
            settings = replace(settings, devices={name: devices[name] for name in devices if name != UPDATES})
            check_devices(settings)
        rule = RULES[settings.rule](net, loss=LOSSES[settings.loss], **chosen, **channels(settings))
        if devices is None and rule.devices is not None and RANGES in notes:
            try:
                rule.devices.hold(check(RANGES, parse_json(notes[RANGES]), dict[str, list[float]]))
            except DualpropError as error:
                raise CheckpointError(f"{opened.path / BEST}: damaged ({error})") from None
        fingerprint = used.data if used is not None else ""
        return cls(settings, rule, form, notes.get("epoch", "?"), opened.result is not None, fingerprint)

    @property
    def _device(self) -> torch.device:
        return next(self.rule.net.parameters()).device

    def __call__(self, x: Tensor) -> Tensor:
        """The rule's prediction.

        Args:
            x: pixels or numbers of shape (B, ...), see `Form.ready`.

        Returns:
            The outputs, float32 of shape (B, ...).

        Raises:
            DualpropError: for samples of another size or kind.
            DivergenceError: if the rule's inference diverges.
        """
        with autocast(self._device, PRECISIONS[self.settings.precision])():
            output: Tensor = self.rule.predict(self.form.ready(x, self._device))
        return output.float()

    def scores(self, x: Tensor) -> Tensor:
        """Outputs, or with the loss cross_entropy probabilities of the classes, shape (B, ...)."""
        output = self(x)
        return torch.softmax(output, 1) if self.settings.loss == "cross_entropy" else output

    def _calibrate(self, dataset: Dataset) -> None:
        """Let channels that know no range yet see predictions on the first batches of the training part."""
        devices = self.rule.devices
        if devices is None or devices.batches or not devices.ranges:
            return
        size, mean, std = self.settings.batch_size, self.form.mean, self.form.std
        batches = batched(dataset.train, size, mean=mean, std=std, device=self._device)
        for x, _ in itertools.islice(batches, CALIBRATION):
            self.rule.predict(x)
        devices.hold(devices.ranges)

    def evaluate(self, dataset: Dataset) -> dict[str, float]:
        """Loss and accuracies on the test part of a data set.

        Args:
            dataset: with samples and classes as the run's own.

        Raises:
            DualpropError: for a data set of another form.
        """
        mine, theirs = (self.form.shape, len(self.form.classes)), (dataset.in_shape, dataset.num_classes)
        if mine != theirs:
            raise DualpropError(
                f"data={dataset.name!r}: samples of shape {theirs[0]} and {theirs[1]} classes, but the run was "
                f"trained on {mine[0]} and {mine[1]}"
            )
        where = self._device
        self._calibrate(dataset)
        batches = batched(dataset.test, EVALUATION_BATCH, mean=self.form.mean, std=self.form.std, device=where)
        net = self.rule.net
        optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
        amp = autocast(where, PRECISIONS[self.settings.precision])
        return Trainer(net, self.rule, optimizer, batches, autocast=amp).evaluate(batches)
