"""From an experiment to the parts of its net that workers take, or an error before any work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from torch.nn import Parameter
from torch.optim import Optimizer

from dualprop.arguments import per_layer
from dualprop.data import Batches, ItemBatches
from dualprop.engines.dyads.schedules import Sweep
from dualprop.engines.dyads.states import Nudge
from dualprop.errors import DualpropError
from dualprop.rules import Backprop, DualProp, Rule
from dualprop.runs.settings import Settings
from dualprop.training.devices import PULSED
from dualprop.training.experiment import Experiment
from dualprop.training.optim.optimizers import FACTOR, LR_SCHEDULES, OPTIMIZERS
from dualprop.training.workers.differences import Derivative, Difference, Finite
from dualprop.training.workers.grouping import Group, costs
from dualprop.training.workers.pairs import Pairs
from dualprop.training.workers.worker import Part, Way


def check_settings(settings: Settings) -> None:
    """Refuse what workers, each of which knows its own layers, cannot do.

    Raises:
        DualpropError: naming the setting.
    """
    for name, left, why in (
        ("clip_norm", 0.0, "each worker knows its own gradients alone"),
        ("ema", 0.0, "each worker has its own updates"),
        ("fused_update", False, "workers step as soon as they have learnt anyway"),
        ("compile", False, "their products are called one by one"),
        ("precision", "float32", "their states are float32"),
        ("channels_last", False, "messages have the order of their indices"),
    ):
        if getattr(settings, name) != left:
            raise DualpropError(f"{name}={getattr(settings, name)!r}: not with workers: {why}")
    if settings.devices or settings.optimizer == PULSED:
        name = "devices" if settings.devices else f"optimizer={PULSED!r}"
        raise DualpropError(f"{name}: not with workers: they run on ideal devices alone")
    if settings.device not in ("auto", "cpu"):
        raise DualpropError(f"device={settings.device!r}: workers compute on cpu")


def check_rule(rule: Rule, way: Way) -> None:
    """Refuse a rule that asynchronous workers cannot run.

    Raises:
        DualpropError: saying why.
    """
    name = type(rule).__name__
    if not rule.net.wiring.is_chain:
        raise DualpropError(f"net: workers run chains, but {rule.net.wiring.unlike_a_chain}")
    owners: dict[int, int] = {}
    for k, layer in enumerate(rule.net.stack, 1):
        for parameter in layer.parameters():
            if owners.setdefault(id(parameter), k) != k:
                raise DualpropError(
                    f"net: layers {owners[id(parameter)]} and {k} share a weight, but each worker has its own"
                )
    if isinstance(rule, Backprop):
        if not way.one_by_one:
            raise DualpropError("rule: Backprop has no states that could be held; it runs in flight")
        return
    if not isinstance(rule, DualProp):
        raise DualpropError(
            f"rule: {name} cannot run as workers, for all its layers go from phase to phase together; "
            "dp, kp-dp and, in flight, bp can"
        )
    for setting, refused, why in (
        ("lazy", rule.lazy, "states belong to the batch that stands"),
        ("rounds", rule.rounds > 1, "a batch is learnt from once; held:N makes N updates of states"),
        ("damped", rule.damped, "its norms are those of neighbours"),
        (
            "transpose",
            rule.nudge.transpose and way.one_by_one,
            "in flight the mean is f(a), which it leaves alone",
        ),
    ):
        if refused:
            raise DualpropError(f"{setting}: {name} with {setting} cannot run as workers: {why}")
    if rule.schedule != Sweep():
        raise DualpropError(f"schedule={rule.schedule!r}: workers have no order of updates; leave it out")


def part_of(experiment: Experiment, group: Group, groups: Sequence[Group] = ()) -> Part:
    """The part of an experiment that a worker takes.

    Args:
        experiment: whose net, rule, data and settings.
        group: its first and last layer.
        groups: those of all workers, by which it knows how much of the work it has.
    """
    settings, trainer, first, last = experiment.settings, experiment.trainer, *group
    net, rule, data = trainer.net, trainer.rule, trainer.data
    assert isinstance(data, Batches | ItemBatches)
    depth = len(net)
    factors: Sequence[float] = settings.lr_factors or (1.0,) * depth
    factors = per_layer("lr_factors", factors, depth)

    def optimizer(k: int, parameters: Iterable[Parameter]) -> Optimizer:
        group = {"params": list(parameters), FACTOR: factors[k - 1]}
        return OPTIMIZERS[settings.optimizer]([group], settings)

    difference: Difference
    if isinstance(rule, DualProp):
        nudge, difference = rule.nudge, Finite(rule.loss, rule.nudge)
    else:
        nudge, difference = Nudge(0.5, (1.0,) * depth), Derivative(rule.loss, depth)
    return Part(
        layers=net.stack[first - 1 : last],
        first=first,
        depth=depth,
        shapes=net.shapes(experiment.dataset.in_shape),
        dtype=next(net.parameters()).dtype,
        batch_size=settings.batch_size,
        samples=len(data.split if isinstance(data, Batches) else data.items),
        loss=rule.loss,
        nudge=nudge,
        difference=difference,
        pairs=Pairs(data),
        optimizer=optimizer,
        rate=partial(LR_SCHEDULES[settings.lr_schedule], settings),
        lead=_lead(costs(net, experiment.dataset.in_shape), group, groups),
    )


def _lead(costs: Sequence[float], group: Group, groups: Sequence[Group]) -> float:
    """A group's work beside that of whoever has most of it among the others, at least 1."""
    others = [sum(costs[first - 1 : last]) for first, last in groups if first != group[0]]
    return max(1.0, sum(costs[group[0] - 1 : group[1]]) / max(others)) if others else 1.0
