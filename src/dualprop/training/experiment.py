"""From settings to the objects that train: data, net, rule and optimizer, or an error before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn import Parameter

from dualprop import data
from dualprop.data import Batches, Dataset, Form, ItemBatches, Part, batched
from dualprop.errors import DataError, DualpropError
from dualprop.nets import NETS
from dualprop.nets.losses import LOSSES
from dualprop.nets.net import Net
from dualprop.registry import Registry
from dualprop.rules import RULES, Rule
from dualprop.runs.settings import Settings
from dualprop.training import devices, threads, weights
from dualprop.training.callbacks import Alignment, AverageGradients, Callback, ClipGradients, FinalTest, Validation
from dualprop.training.optim.average import Average
from dualprop.training.optim.fused import FusedUpdate
from dualprop.training.optim.optimizers import LR_SCHEDULES, OPTIMIZERS, grouped, layer_factors
from dualprop.training.own import Own
from dualprop.training.processes import torchrun
from dualprop.training.processes.group import Alone
from dualprop.training.resolved import Resolved, make_net, net_arguments
from dualprop.training.trainer import Trainer

PRECISIONS: Registry[torch.dtype] = Registry("precision", {"float32": torch.float32, "bf16": torch.bfloat16})
EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Experiment:
    """What settings are made into.

    Attributes:
        settings: what was asked for.
        resolved: the values that are used.
        dataset: what is trained on.
        form: how its samples are made ready for the net.
        trainer: trains it, with all callbacks that need no run folder.
        validation: the one of them that keeps the best weights.
        test: the one of them that tests those.
    """

    settings: Settings
    resolved: Resolved
    dataset: Dataset
    form: Form
    trainer: Trainer
    validation: Validation
    test: FinalTest


def device(name: str) -> torch.device:
    """A device by name; "auto" is the accelerator if there is one, "cuda" each process's own under torchrun.

    Raises:
        DualpropError: for a name that is none, or a device that this machine lacks.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        name = str(found or "cpu")
    if torchrun.count() > 1 and name == "cuda":
        name = f"cuda:{torchrun.local_rank()}"
    try:
        chosen = torch.device(name)
        torch.zeros(1, device=chosen).item()  # no device to compute on, or none at all
    except (RuntimeError, AssertionError):
        raise DualpropError(f"device={name!r}: not a device of this machine; use auto, cpu, cuda or mps") from None
    return chosen


def autocast(device: torch.device, precision: torch.dtype) -> Callable[[], AbstractContextManager[object]]:
    """The products' precision, as a context; the states, weights and optimizer stay in float32."""
    return nullcontext if precision == torch.float32 else partial(torch.autocast, device.type, precision)


MakeOptimizer = Callable[[list[Parameter]], torch.optim.Optimizer]


def _plain_update(parameters: Iterable[Parameter], make: MakeOptimizer, _: Alone) -> torch.optim.Optimizer:
    """One optimizer over all parameters."""
    return make(list(parameters))


def _fused_update(parameters: Iterable[Parameter], make: MakeOptimizer, processes: Alone) -> FusedUpdate:
    """One for every parameter, whose gradient is averaged over the processes just before."""
    return FusedUpdate(parameters, make, before=lambda parameter: processes.average_gradients([parameter]))


def _loaded(settings: Settings, moved: bool) -> Dataset:
    """The data set that settings name; where it may have moved, an error says what to do."""
    try:
        return data.load(settings.data, settings.data_root, settings.image_size, settings.background)
    except DataError as error:
        if moved and settings.data.startswith("folder:"):
            raise DataError(f"{error}; if the folder has moved, say where by data=folder:PATH") from None
        raise


def _found(settings: Settings, recorded: Resolved | None, own: Own) -> tuple[Dataset, str]:
    """The data and their fingerprint, which is that of the record.

    Raises:
        DualpropError: if it is another.
    """
    dataset = _loaded(settings, recorded is not None) if own.data is None else data.own_dataset(own.data)
    before = recorded.data if recorded else ""
    fingerprint = data.fingerprint(dataset, settings.verify_data or before.startswith(data.ALL))
    if before and fingerprint.startswith(data.ALL) and not before.startswith(data.ALL):
        raise DualpropError(
            "verify_data: the run was started without it, and has kept nothing to compare all with"
        )
    if before not in ("", fingerprint):
        raise DualpropError(
            f"data={dataset.name!r}: contradicts the run, which was started with other content or in another order"
        )
    return dataset, fingerprint


def _bound(
    settings: Settings, recorded: Resolved | None, own: Own, dataset: Dataset, place: Callable[[Net], Net]
) -> tuple[Rule, dict[str, Any], dict[str, Any]]:
    """The rule, bound to its net; by name, the arguments that the net and the rule were made with.

    Raises:
        DualpropError: for a name or a setting that there is not, or a net that does not fit the data.
    """
    if own.rule is not None:
        _check_fits(own.rule.net, dataset)
        return own.rule, {}, {}
    method = RULES[settings.rule]
    arguments: Mapping[str, Any] = {}
    if own.net is not None:
        _check_fits(own.net, dataset)
        net = place(own.net)
    else:
        if len(dataset.train.target_shape) > 1:
            raise DualpropError(f"data: targets of shape {dataset.train.target_shape} need a net of one's own")
        arguments = recorded.net if recorded else net_arguments(settings, dataset.in_shape, dataset.outputs)
        net = place(make_net(settings.net, arguments, settings.seed))
    if settings.init_from is not None and recorded is None:
        weights.give(net, settings.init_from)
    chosen = recorded.rule if recorded else settings.rule_settings
    loss, channels = LOSSES[settings.loss].smoothed(settings.label_smoothing), devices.channels(settings)
    rule = method(net, loss=loss, **chosen, **channels)
    return rule, dict(arguments), method.used(rule, chosen)


def _check_fits(net: Net, dataset: Dataset) -> None:
    """Refuse samples or targets of another shape than a net's; with several outputs its losses know better."""
    output = net.shapes(dataset.in_shape)[net.wiring.outputs[0]]
    targets = dataset.train.target_shape
    fits = output == targets if targets else len(output) > 1 or output[0] >= dataset.num_classes
    if len(net.wiring.outputs) == 1 and not fits:
        wanted = f"targets of shape {targets}" if targets else f"{dataset.num_classes} classes"
        raise DualpropError(f"net: has outputs of shape {tuple(output)}, but the data has {wanted}")


def check_names(settings: Settings, own: Own | None = None) -> None:
    """Refuse what the settings name and there is not, or what an object of one's own has decided already.

    Raises:
        DualpropError: for the first such thing; no data are read.
    """
    own = own or Own()
    if own.data is None:
        data.find(settings.data, settings.image_size, settings.background)
    if own.trained is None:
        NETS[settings.net]
    if own.rule is None:
        RULES[settings.rule].check(settings.rule_settings)
    if "loss" in settings.rule_settings:
        raise DualpropError("loss: a setting of the run, not one of the rule's own settings")
    LR_SCHEDULES[settings.lr_schedule]
    OPTIMIZERS[settings.optimizer]
    PRECISIONS[settings.precision]
    devices.check_devices(settings)
    if settings.devices and own.rule is not None:
        raise DualpropError("devices: not with a rule of one's own, which has its channels")
    LOSSES[settings.loss].smoothed(settings.label_smoothing)
    if own.optimizer is not None:
        for name, left in (("lr_schedule", "constant"), ("lr_factors", None), ("fused_update", False)):
            if getattr(settings, name) != left:
                raise DualpropError(f"{name}: not with an optimizer of one's own, which has its learning rates")


def _named(settings: Settings, own: Own, dataset: Dataset, used: Mapping[str, Any]) -> Settings:
    """The settings as they are recorded: what was given as an object by its own name."""
    changes: dict[str, Any] = {"rule_settings": {name: used[name] for name in settings.rule_settings}}
    if own.rule is not None:
        changes = {"rule": type(own.rule).__name__, "rule_settings": {}}
    if own.data is not None:
        changes |= {"data": dataset.name, "batch_size": data.own_batch_size(dataset) or settings.batch_size}
    if settings.data.startswith("folder:") and own.data is None:
        changes["data"] = dataset.name  # by its absolute path
    return replace(settings, **changes)


def build(
    settings: Settings,
    processes: Alone | None = None,
    recorded: Resolved | None = None,
    callbacks: Sequence[Callback] = (),
    own: Own | None = None,
) -> Experiment:
    """Look up every name, read the data, draw the weights and bind the rule.

    Args:
        settings: what to train, on what, how.
        processes: those that train together; by default this one alone.
        recorded: what was resolved when the run was started; by default it is resolved now.
        callbacks: what else the trainer does.
        own: objects in place of what the settings name.

    Raises:
        DualpropError: for the first thing that is wrong, before anything is written.
    """
    own = own or Own()
    check_names(settings, own)
    precision = PRECISIONS[settings.precision]
    processes = processes or Alone()
    if settings.batch_size < processes.count:
        raise DualpropError(
            f"batch_size={settings.batch_size}: must be at least 1 for each of the {processes.count} processes"
        )
    chosen = device(settings.device)
    if own.rule is not None:
        chosen = next((p.device for p in own.rule.net.parameters()), chosen)  # where its states are, too
    if processes.count > 1 and chosen.type not in ("cpu", "cuda"):
        raise DualpropError(f"device={settings.device!r}: several processes train together on cpu or cuda only")
    dataset, fingerprint = _found(settings, recorded, own)
    form = Form.of(dataset, standardise=settings.standardise, std_scale=settings.std_scale)
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format

    def place(net: Net) -> Net:
        return net.to(device=chosen).to(memory_format=memory_format)

    rule, arguments, used = _bound(settings, recorded, own, dataset, place)
    net = rule.net.ideal
    settings = _named(settings, own, dataset, used)
    factors = None if settings.lr_factors is None else layer_factors(net, settings.lr_factors)
    update = _fused_update if settings.fused_update else _plain_update
    try:
        part, held_out = data.train_validation(dataset.train, settings.val_fraction, settings.seed)
    except DualpropError as error:
        raise DualpropError(f"val_fraction={settings.val_fraction!r}: {error}") from None

    def batches(
        part: Part, batch_size: int, augment: bool = False, seed: int | None = None
    ) -> Batches | ItemBatches:
        return batched(
            part,
            batch_size,
            mean=form.mean,
            std=form.std,
            augment=augment,
            seed=seed,
            device=chosen,
            memory_format=memory_format,
        )

    def make(parameters: list[Parameter]) -> torch.optim.Optimizer:
        return OPTIMIZERS[settings.optimizer](grouped(parameters, factors) if factors else parameters, settings)

    if settings.compile:
        rule.compile()
    optimizer = own.optimizer or update(net.parameters(), make, processes)
    resolved = Resolved(
        arguments,
        used,
        optimizer.defaults,
        chosen.type if settings.device == "auto" else settings.device,
        threads.choose(settings.threads, net, dataset.in_shape, settings.batch_size),
        fingerprint,
        own.described(),
    )
    average = Average(net, settings.ema) if settings.ema else None
    validation = Validation(
        net,
        batches(held_out, EVALUATION_BATCH) if len(held_out) else None,
        average.in_place if average else nullcontext,
    )
    test = FinalTest(validation, batches(dataset.test, EVALUATION_BATCH))
    ours = [
        AverageGradients(),
        ClipGradients(settings.clip_norm) if settings.clip_norm else None,
        average,
        validation,
        Alignment() if settings.alignment else None,
        test,
    ]
    trainer = Trainer(
        net,
        rule,
        optimizer,
        batches(part, settings.batch_size, settings.augment, settings.seed),
        [*filter(None, ours), *callbacks],
        rate=None if own.optimizer else partial(LR_SCHEDULES[settings.lr_schedule], settings),
        autocast=autocast(chosen, precision),
        processes=processes,
    )
    return Experiment(settings, resolved, dataset, form, trainer, validation, test)
