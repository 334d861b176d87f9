"""Training into run folders: starting a run, and going on with one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from dualprop.arguments import check
from dualprop.errors import CheckpointError, DualpropError
from dualprop.nets.net import Net
from dualprop.rules import Rule
from dualprop.runs.folder import CHECKPOINT, ReadOnlyRun, Run, check_free
from dualprop.runs.settings import Settings
from dualprop.training.callbacks import BestWeights, Callback, Checkpoints, Display, KeptPictures, Records, Results
from dualprop.training.experiment import Experiment, build
from dualprop.training.own import Own
from dualprop.training.processes.group import Alone, join
from dualprop.training.resolved import Resolved
from dualprop.training.result import Result, finished
from dualprop.training.threads import computing_in
from dualprop.training.weights import check_fit, recorded

logger = logging.getLogger("dualprop")


@contextmanager
def _claimed(run: Run, processes: Alone) -> Iterator[None]:
    """A run that nobody else trains meanwhile."""
    processes.on_leader(run.claim)
    try:
        yield
    finally:
        run.release()


def train(
    settings: Settings,
    run: str | Path,
    *,
    data: Any = None,
    net: Net | None = None,
    rule: Rule | None = None,
    optimizer: Optimizer | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """Train a net and write everything about it into a run folder.

    Args:
        settings: what to train, on what, how.
        run: the folder to make; it must not exist, unless with `resume`.
        data: of one's own, in place of the settings': arrays (X, y), a torch `Dataset` or a `DataLoader`, or two
            of them, to train and to test on; see `dualprop.data.own_dataset`.
        net: one's own, trained where it is.
        rule: one's own, bound to its net, which is the one that is trained.
        optimizer: one's own, of the net's parameters; it keeps its learning rate.
        resume: go on with the run that is there, if there is one, for a job that is started again and again. Its
            settings must be these; a finished one answers at once.
        callbacks: what else is done, see `Callback`; what they add to `trainer.numbers` is recorded.
        progress: whether to show on stderr how it goes: a bar in a terminal, a line an epoch elsewhere. Nothing is
            shown where `logging.getLogger("dualprop")` has a level above INFO.

    Returns:
        The test result of the weights with the best validation accuracy.

    Raises:
        DualpropError: for whatever is wrong with the settings, the data or the folder, before it is made.
        DivergenceError: if the loss or a weight becomes NaN or infinite, the loss grows beyond all bounds, or the
            rule's inference diverges.
        Interrupted: on Ctrl-C, SIGTERM or SIGUSR1, after a checkpoint has been saved.

    Example:
        >>> import tempfile, dualprop as dp
        >>> settings = dp.Settings(rule="dp", data="digits", hidden=(64,), epochs=3, lr=0.01)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dp.train(settings, folder + "/run", progress=False).test_accuracy > 0.8
        True
    """
    if not isinstance(settings, Settings):
        raise DualpropError(f"settings: of type {type(settings).__name__}, but it must be a dualprop.Settings")
    path, own = Path(check("run", run, str | Path)), Own(data, net, rule, optimizer)
    processes = join()
    if resume and processes.on_leader(path.exists):
        opened = _opened(path, processes)
        return _go_on(opened, _same(opened, settings, processes, own), processes, callbacks, progress, own)
    processes.on_leader(lambda: check_free(path))
    torch.manual_seed(settings.seed)  # for rules and losses that draw from torch's global generator
    experiment = build(settings, processes, callbacks=callbacks, own=own)
    with computing_in(experiment.resolved.threads):
        state, resolved = experiment.trainer.state_dict(), experiment.resolved.as_dict()
        processes.on_leader(lambda: Run.create(path, experiment.settings, resolved, state).path)
        opened = _opened(path, processes)
        with _claimed(opened, processes):
            return fit(experiment, opened, progress)


def resume(
    run: str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    net: Net | None = None,
    rule: Rule | None = None,
    optimizer: Optimizer | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """Continue a run from its last checkpoint, bit for bit as if it had not stopped.

    Args:
        run: the run folder.
        changes: settings that do not change what has been computed, for example `data_root`, or more `epochs`
            where the learning rate does not end with them: then a finished run goes on, too. `data` may name the
            same content elsewhere.
        data: what the run was started with, if that was of one's own; the content must be the same.
        net: likewise, of the same weights by name and shape; it is given those of the checkpoint.
        rule: likewise, of the same class.
        optimizer: likewise.
        callbacks: as for `train`.
        progress: as for `train`.

    Returns:
        The result; at once if the run is finished.

    Raises:
        DualpropError: for a folder, checkpoint, result or setting that does not belong to the run.
    """
    processes = join()
    opened = _opened(Path(check("run", run, str | Path)), processes)
    own = Own(data, net, rule, optimizer)
    return _go_on(opened, dict(changes or {}), processes, callbacks, progress, own)


def _same(run: Run, settings: Settings, processes: Alone, own: Own) -> dict[str, Any]:
    """What settings given anew say to a run that is there: all but what it is to choose itself."""
    if own.described() or settings.rule_settings != run.settings.rule_settings:
        settings = build(settings, processes, own=own).settings  # which has them as they are recorded
    said = {f.name: getattr(settings, f.name) for f in fields(Settings)}
    return {name: value for name, value in said.items() if (name, value) not in CHOSEN.items()}


CHOSEN = {"device": "auto", "threads": "auto"}
"""Settings that leave a choice to the machine; a run that goes on keeps the one that was made."""


def _go_on(
    run: Run,
    changes: dict[str, Any],
    processes: Alone,
    callbacks: Sequence[Callback],
    progress: bool,
    own: Own,
) -> Result:
    """Continue a run, or say how it ended."""
    used, before = recorded(run), run.settings
    if used and used.workers:
        raise CheckpointError(
            f"{run.path}: trained by workers; go on by dualprop.distributed.resume, or dualprop train --resume"
        )
    kept = {"device": used.device, "threads": used.threads} if used else {}
    settings = before.replaced({**kept, **changes})
    result = finished(run)
    if result is not None and settings.epochs == before.epochs:
        if not (run.path / CHECKPOINT).exists():
            logger.warning("%s: finished; its %s is gone, so it cannot be trained on", run.path, CHECKPOINT)
        return result
    own.check_again(used.own if used else {})
    with _claimed(run, processes):
        experiment = _at(run, settings, used, processes, callbacks, own)
        with computing_in(experiment.resolved.threads):
            if settings.epochs != before.epochs:
                processes.on_leader(lambda: run.reopen(replace(before, epochs=settings.epochs)))
            return fit(experiment, run, progress)


def _at(
    run: Run,
    settings: Settings,
    used: Resolved | None,
    processes: Alone,
    callbacks: Sequence[Callback],
    own: Own,
) -> Experiment:
    """The experiment of a run where its checkpoint has left it."""
    path, checkpoint = run.path / CHECKPOINT, run.load()
    try:
        if used is not None and used.net:  # one's own is there already
            check_fit(settings.net, used.net, checkpoint.get("net"))
    except DualpropError as error:
        raise CheckpointError(f"{path}: not a checkpoint of this run ({error})") from None
    experiment = build(settings, processes, used, callbacks, own)
    trainer, best = experiment.trainer, experiment.validation
    try:
        trainer.load_state_dict(checkpoint)
        if best.best is not None and best.best.epoch > trainer.epoch:
            raise DualpropError(f"best.epoch: {best.best.epoch}, but {trainer.epoch} have been trained")
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:  # a callback's own
        raise CheckpointError(f"{path}: not a checkpoint of this run ({error})") from None
    begun = trainer.epoch + (trainer.batch > 0)
    if begun > settings.epochs:
        raise CheckpointError(f"{path}: of epoch {begun}, but the run is to have {settings.epochs}")
    return experiment


def fit(experiment: Experiment, run: Run, progress: bool = True, display: Callback | None = None) -> Result:
    """Train the epochs that are left, test once, and write it all into the run folder.

    Args:
        experiment: where it is now.
        run: the folder, which is there.
        progress: whether to show how it goes.
        display: what shows it; a bar by default.

    Raises:
        DivergenceError: see `train`.
        Interrupted: likewise.
    """
    s, trainer, validation = experiment.settings, experiment.trainer, experiment.validation
    dataset = experiment.dataset
    results = Results(run, validation)
    display = display or Display(f"{s.rule} on {s.data}, seed {s.seed}")
    shown = progress and logger.level <= logging.INFO  # which is NOTSET unless somebody wants quiet
    trainer.callbacks += [
        Records(run, s.log_every, validation),
        BestWeights(
            run,
            validation,
            in_shape=list(dataset.in_shape),
            num_classes=dataset.num_classes,
            form=experiment.form.written(),
        ),
        KeptPictures(run, experiment.test.batches),
        results,
        *([display] if shown and trainer.processes.leads else []),
        Checkpoints(run, s.checkpoint_every),
    ]
    trainer.fit(s.epochs)
    assert results.result is not None, "the end of a run is its result"
    return results.result


def _opened(path: Path, processes: Alone) -> Run:
    """The run folder, for one process to write and for all to read."""
    return Run.open(path) if processes.leads else ReadOnlyRun.open(path)
