"""Training into run folders: starting a run, going on with one, and its best weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dualprop.errors import CheckpointError
from dualprop.nets.net import Net
from dualprop.runs.folder import ReadOnlyRun, Run, check_free
from dualprop.runs.settings import Settings
from dualprop.training.callbacks import BestWeights, Callback, Checkpoints, Display, Records, Result, Results
from dualprop.training.experiment import Experiment, build
from dualprop.training.processes.group import Alone, join
from dualprop.training.resolved import Resolved, make_net, net_arguments
from dualprop.training.threads import computing_in

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
    settings: Settings, run: str | Path, *, callbacks: Sequence[Callback] = (), progress: bool = True
) -> Result:
    """Train a net and write everything about it into a new run folder.

    Args:
        settings: what to train, on what, how.
        run: the folder to make; it must not exist.
        callbacks: what else is done, see `Callback`; what they add to `trainer.numbers` is recorded.
        progress: whether to show on stderr how it goes: a bar in a terminal, a line an epoch elsewhere.

    Returns:
        The test result of the weights with the best validation accuracy.

    Raises:
        DualpropError: for whatever is wrong with the settings, the data or the folder, before it is made.
        DivergenceError: if the loss or a weight becomes NaN or infinite, or the rule's inference diverges.
        Interrupted: on Ctrl-C or SIGTERM, after a checkpoint has been saved.

    Example:
        >>> import tempfile, dualprop as dp
        >>> settings = dp.Settings(rule="dp", data="digits", hidden=(64,), epochs=3, lr=0.01)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dp.train(settings, folder + "/run", progress=False).test_accuracy > 0.8
        True
    """
    processes = join()
    path = processes.on_leader(lambda: check_free(Path(run)))
    torch.manual_seed(settings.seed)  # for rules and losses that draw from torch's global generator
    experiment = build(settings, processes, callbacks=callbacks)
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
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """Continue a run from its last checkpoint, bit for bit as if it had not stopped.

    Args:
        run: the run folder.
        changes: settings that do not change what is computed, for example `data_root`.
        callbacks: as for `train`.
        progress: as for `train`.

    Returns:
        The result; at once if the run is finished.

    Raises:
        DualpropError: for a folder, checkpoint or setting that does not belong to the run.
    """
    processes = join()
    opened = _opened(Path(run), processes)
    recorded = _recorded(opened)
    kept = {"device": recorded.device, "threads": recorded.threads} if recorded else {}
    settings = opened.settings.replaced({**kept, **(changes or {})})
    if (finished := opened.result) is not None:
        try:
            return Result(**{**finished, "run": str(opened.path)})  # it may have moved
        except TypeError as error:
            raise CheckpointError(f"{opened.path / 'result.json'}: damaged ({error})") from None
    with _claimed(opened, processes):
        checkpoint = opened.load()
        experiment = build(settings, processes, recorded, callbacks)
        with computing_in(experiment.resolved.threads):
            try:
                experiment.trainer.load_state_dict(checkpoint)
            except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                reason = " ".join(str(error).split())[:200]
                path = opened.path / "checkpoint.pt"
                raise CheckpointError(f"{path}: not a checkpoint of this run ({reason})") from None
            return fit(experiment, opened, progress)


def fit(experiment: Experiment, run: Run, progress: bool = True) -> Result:
    """Train the epochs that are left, test once, and write it all into the run folder.

    Args:
        experiment: where it is now.
        run: the folder, which is there.
        progress: whether to show how it goes.

    Raises:
        DivergenceError: if the loss or a weight becomes NaN or infinite, or the rule's inference diverges.
        Interrupted: on Ctrl-C or SIGTERM, after a checkpoint has been saved.
    """
    s, trainer, validation = experiment.settings, experiment.trainer, experiment.validation
    dataset = experiment.dataset
    results = Results(run, validation)
    trainer.callbacks += [
        Records(run, s.log_every, validation),
        BestWeights(run, validation, in_shape=list(dataset.in_shape), num_classes=dataset.num_classes),
        results,
        *([Display(f"{s.rule} on {s.data}, seed {s.seed}")] if progress and trainer.processes.leads else []),
        Checkpoints(run, s.checkpoint_every),
    ]
    trainer.fit(s.epochs)
    assert results.result is not None, "the end of a run is its result"
    return results.result


def _opened(path: Path, processes: Alone) -> Run:
    """The run folder, for one process to write and for all to read."""
    return Run.open(path) if processes.leads else ReadOnlyRun.open(path)


def _recorded(run: Run) -> Resolved | None:
    """What a run uses, or None for one from before that was recorded.

    Raises:
        CheckpointError: if the record is damaged.
    """
    if (values := run.resolved) is None:
        logger.warning(
            "%s: has no resolved.json; what was left to the rule, the net or the machine is as it is today",
            run.path,
        )
        return None
    try:
        return Resolved.from_dict(values)
    except TypeError as error:
        raise CheckpointError(f"{run.path / 'resolved.json'}: damaged ({error})") from None


def load_net(run: str | Path) -> Net:
    """The net of a run with its best weights.

    Raises:
        DualpropError: if the folder is no run, or its weights are missing, damaged or another net's.
    """
    opened = Run.open(Path(run))
    weights, notes = opened.load_weights("best.safetensors")
    settings, recorded = opened.settings, _recorded(opened)
    try:
        if recorded is None:
            in_shape, num_classes = tuple(json.loads(notes["in_shape"])), int(notes["num_classes"])
            arguments = net_arguments(settings, in_shape, num_classes)
        else:
            arguments = dict(recorded.net)
        net = make_net(settings.net, arguments, settings.seed)
        net.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{opened.path}: weights of another net ({' '.join(str(error).split())})") from None
    return net
