"""Training by workers into a run folder, and going on with it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from dualprop.arguments import Count, check, check_entries
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs.folder import CHECKPOINT, Run, check_free
from dualprop.runs.settings import Settings
from dualprop.training.callbacks import Callback
from dualprop.training.experiment import Experiment, build
from dualprop.training.processes.group import Alone
from dualprop.training.resolved import Resolved
from dualprop.training.result import Result, finished
from dualprop.training.start import fit
from dualprop.training.threads import computing_in
from dualprop.training.weights import recorded
from dualprop.training.workers.calls import RayCalls
from dualprop.training.workers.crew import Crew, SimulatedCrew
from dualprop.training.workers.display import Lines
from dualprop.training.workers.grouping import Group, costs, grouped, multiply_adds
from dualprop.training.workers.parts import check_rule, check_settings, part_of
from dualprop.training.workers.patient import PatientRun
from dualprop.training.workers.placement import Local, Placement
from dualprop.training.workers.processes import ProcessCrew
from dualprop.training.workers.simulated import Simulated
from dualprop.training.workers.trainer import WorkersTrainer
from dualprop.training.workers.ways import parsed, worded
from dualprop.training.workers.worker import Way, Worker
from dualprop.training.workers.zeromq import ZeroMQ

logger = logging.getLogger("dualprop")

Carrier = Simulated | ZeroMQ | RayCalls
"""What carries messages between workers."""


def train(
    settings: Settings,
    run: str | Path,
    *,
    workers: int = 2,
    way: Way | str = "in-flight",
    carrier: Carrier | None = None,
    address: str | None = None,
    imports: Sequence[Path] = (),
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """Train a net by workers, each of which has some of its layers, into a run folder.

    Layers are grouped onto the workers by their cost. Each worker has its own weights, its own optimizers and its
    own pace; there is no clock, no lock and no global step. An epoch is over when as many batches have been begun
    as it has; the weights are then evaluated as they are, and training goes on meanwhile.

    Args:
        settings: what to train, on what, how: a rule that workers can run (dp, kp-dp; in flight also bp), on a
            chain.
        run: the folder to make.
        workers: how many, at most the number of layers.
        way: how they work: `InFlight(4)`, `Held()`, or a word as "in-flight:4" or "held".
        carrier: `ZeroMQ()` between processes, `RayCalls()` between those of a Ray cluster without ZeroMQ, or
            `Simulated(...)` in one process on a virtual clock.
        address: of a Ray cluster on which workers are placed: its own, "auto", or "local" for one of this machine;
            by default they are processes of this machine, and no Ray.
        imports: Python files that a worker's process runs first, for what they register.
        callbacks: as of `dualprop.train`; those that act on gradients are not called.
        progress: as of `dualprop.train`.

    Returns:
        The test result of the weights with the best validation accuracy.

    Raises:
        DualpropError: for whatever is wrong with the settings or the folder, before it is made; if the workers do
            not start, it is gone again.
        DivergenceError: if the loss or a weight becomes NaN or infinite.
        Interrupted: on Ctrl-C or SIGTERM, after the workers have saved where they are.

    Example:
        >>> import tempfile, dualprop as dp
        >>> settings = dp.Settings(data="digits", hidden=(64, 64), epochs=5, lr=0.003, batch_size=50)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     carrier = dp.distributed.Simulated(loss=0.1)
        ...     result = dp.distributed.train(settings, folder + "/run", carrier=carrier, progress=False)
        >>> result.test_accuracy > 0.8
        True
    """
    if not isinstance(settings, Settings):
        raise DualpropError(f"settings: of type {type(settings).__name__}, but it must be a dualprop.Settings")
    path, workers = Path(check("run", run, str | Path)), check("workers", workers, Count)
    way = parsed(way if isinstance(way, str) else worded(way))
    placement = _placement(carrier, address)
    carrier = carrier or ZeroMQ()
    carrier.check(workers, address)
    placement.check()
    check_free(path)
    check_settings(settings)
    torch.manual_seed(settings.seed)
    experiment = build(settings, Alone(), callbacks=callbacks)
    check_rule(experiment.trainer.rule, way)
    groups = grouped(costs(experiment.trainer.net, experiment.dataset.in_shape), workers)
    resolved = replace(
        experiment.resolved,
        threads=1 if settings.threads == "auto" else experiment.resolved.threads,
        workers={
            "groups": [list(group) for group in groups],
            "way": worded(way),
            "carrier": {"kind": type(carrier).__name__, **asdict(carrier)},
        },
    )
    experiment = _manned(experiment, resolved, groups, way, carrier, path, placement, imports)
    if progress:
        _show(experiment, groups)
    with computing_in(resolved.threads):
        state = experiment.trainer.state_dict()
        opened = PatientRun.open(Run.create(path, experiment.settings, resolved.as_dict(), state).path)
        opened.claim()
        try:
            return fit(experiment, opened, progress, display=_display(experiment))
        finally:
            opened.release()
            if not _crew(experiment).begun:  # nothing has been computed, and nothing is to go on with
                shutil.rmtree(path, ignore_errors=True)


def resume(
    run: str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    workers: int | None = None,
    carrier: Carrier | None = None,
    address: str | None = None,
    imports: Sequence[Path] = (),
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """Go on with a run that workers have trained, from their last snapshots; arguments as of `train`.

    Batches that were on their way are lost.

    Args:
        run: its folder.
        changes: settings that do not change what has been computed, as of `dualprop.resume`.
        workers: how many from now on; as before by default.
        carrier: what carries messages from now on; of a run on the virtual clock `Simulated(...)`, by default as
            before, else `ZeroMQ()`.
        address: where workers are from now on.
        imports: as of `train`.
        callbacks: as of `train`.
        progress: as of `train`.

    Raises:
        DualpropError: for a folder that is none of workers, or whose checkpoint is damaged.
    """
    opened = PatientRun.open(Path(check("run", run, str | Path)))
    used, before = recorded(opened), opened.settings
    if used is None or not used.workers:
        raise CheckpointError(f"{opened.path}: not a run of workers; go on with it by dualprop.resume")
    settings = before.replaced({"device": used.device, "threads": used.threads, **(changes or {})})
    result = finished(opened)
    if result is not None and settings.epochs == before.epochs:
        return result
    kept = _kept(used, opened)
    way, carrier = parsed(kept["way"]), _carrier(kept["carrier"], carrier, opened)
    placement = _placement(carrier, address)
    carrier.check(workers or len(kept["groups"]), address)
    placement.check()
    check_settings(settings)
    opened.claim()
    try:
        experiment = build(settings, Alone(), used, callbacks)
        check_rule(experiment.trainer.rule, way)
        groups = [(first, last) for first, last in kept["groups"]]
        if workers is not None and workers != len(groups):
            groups = grouped(costs(experiment.trainer.net, experiment.dataset.in_shape), workers)
        experiment = _manned(experiment, used, groups, way, carrier, opened.path, placement, imports)
        try:
            experiment.trainer.load_state_dict(opened.load())
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{opened.path / CHECKPOINT}: not a checkpoint of this run ({error})") from None
        if progress:
            _show(experiment, groups)
        with computing_in(used.threads):
            if settings.epochs != before.epochs:
                opened.reopen(replace(before, epochs=settings.epochs))
            return fit(experiment, opened, progress, display=_display(experiment))
    finally:
        opened.release()


def _placement(carrier: Carrier | None, address: str | None) -> Placement:
    """Where workers are to be.

    Raises:
        DualpropError: if that cannot be.
    """
    if not isinstance(carrier, Carrier | None):
        raise DualpropError(f"carrier={carrier!r}: must be ZeroMQ(...), RayCalls(...) or Simulated(...)")
    if address is None:
        return Local()
    if isinstance(carrier, Simulated):
        raise DualpropError(f"address={address!r}: not with Simulated, which is one process")
    from dualprop.training.workers.on_ray import OnRay

    return OnRay(address)


def _kept(used: Resolved, run: Run) -> Mapping[str, Any]:
    """How workers were made, as it is recorded."""
    try:
        check_entries(used.workers, {"groups": list[list[Count]], "way": str, "carrier": dict[str, Any]})
    except DualpropError as error:
        raise CheckpointError(f"{run.path / 'resolved.json'}: damaged ({error})") from None
    return used.workers


def _carrier(before: Mapping[str, Any], given: Carrier | None, run: Run) -> Carrier:
    """What carries messages of a run that goes on.

    Args:
        before: what has, as it is recorded.
        given: what is asked for.
        run: the run.

    Raises:
        DualpropError: for processes in place of the virtual clock, or the other way round: they keep other things.
    """
    simulated = before.get("kind") == Simulated.__name__
    if given is None and simulated:
        try:
            return Simulated(**{name: value for name, value in before.items() if name != "kind"})
        except DualpropError as error:
            raise CheckpointError(f"{run.path / 'resolved.json'}: damaged ({error})") from None
    if given is not None and isinstance(given, Simulated) is not simulated:
        raise DualpropError(
            f"carrier={type(given).__name__}(...): the run was made by {before.get('kind')}, "
            "whose checkpoints are others; leave it out"
        )
    return given or ZeroMQ()


def _manned(
    experiment: Experiment,
    resolved: Resolved,
    groups: Sequence[Group],
    way: Way,
    carrier: Carrier,
    path: Path,
    placement: Placement,
    imports: Sequence[Path],
) -> Experiment:
    """The experiment with a trainer that waits for workers."""
    if isinstance(carrier, Simulated):
        crew: Crew = simulated_crew(experiment, groups, way, carrier)
    else:
        crew = ProcessCrew(experiment, resolved, groups, way, path, carrier, placement, imports)
    trainer = WorkersTrainer(experiment.trainer, crew, experiment.dataset.num_classes)
    return replace(experiment, resolved=resolved, trainer=trainer)


def simulated_crew(experiment: Experiment, groups: Sequence[Group], way: Way, carrier: Simulated) -> SimulatedCrew:
    """The workers of an experiment in this process, on the virtual clock."""
    net = experiment.trainer.net
    work = multiply_adds(net.synapses, net.shapes(experiment.dataset.in_shape))
    workers = [Worker(part_of(experiment, group, groups), way) for group in groups]
    return SimulatedCrew(workers, carrier, [sum(work[first - 1 : last]) for first, last in groups])


def _crew(experiment: Experiment) -> Crew:
    assert isinstance(experiment.trainer, WorkersTrainer)
    return experiment.trainer.crew


def _display(experiment: Experiment) -> Callback:
    settings = experiment.settings
    return Lines(f"{settings.rule} on {settings.data}, seed {settings.seed}", _crew(experiment))


def _show(experiment: Experiment, groups: Sequence[Group]) -> None:
    """Say which worker has which layers, and how much of the work that is."""
    each = costs(experiment.trainer.net, experiment.dataset.in_shape)
    for number, (first, last) in enumerate(groups, 1):
        share = sum(each[first - 1 : last]) / sum(each)
        layers = f"layer {first}" if first == last else f"layers {first}-{last}"
        logger.info("worker %d: %s, %.0f %% of the work", number, layers, 100 * share)
