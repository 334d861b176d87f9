"""The weights that a run has left: its net, and a start for another run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from dualprop.arguments import Count, Several, check
from dualprop.errors import CheckpointError, DualpropError
from dualprop.files import parse_json
from dualprop.nets.net import Net
from dualprop.rules.state import astray, restored
from dualprop.runs.folder import Run
from dualprop.runs.settings import Settings
from dualprop.training.resolved import Resolved, make_net, net_arguments

logger = logging.getLogger("dualprop")

BEST = "best.safetensors"


def check_fit(name: str, arguments: Mapping[str, Any], weights: Any) -> None:
    """Refuse weights of another net, before one is made in memory.

    Args:
        name: of the net, in `NETS`.
        arguments: that it is made with.
        weights: by their names in it.

    Raises:
        DualpropError: if they are not all, of the shapes and types of the net.
    """
    made: set[int] = set()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        made.add(id(parameter))
        if len(made) > len(weights):
            raise DualpropError(f"net: has more parameters than the {len(weights)} tensors of the weights")

    check("net", weights, dict[str, Tensor])
    counted = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):  # where tensors have shapes and no numbers
            shapes = make_net(name, arguments, 0).state_dict()
    finally:
        counted.remove()
    restored({key: value.to("meta") for key, value in shapes.items()}, weights, "net")


def give(net: Net, run: str | Path) -> None:
    """Give a net the best weights of a run.

    Raises:
        CheckpointError: if the folder is no run, or its weights are missing, damaged or another net's.
    """
    opened = Run.open(Path(run))
    weights, _ = opened.load_weights(BEST)
    _take(net, weights, opened)


def _take(net: Net, weights: Mapping[str, Tensor], run: Run) -> None:
    """Give a net these weights."""
    if bad := next(astray(dict(weights)), None):
        raise CheckpointError(f"{run.path / BEST}: {bad} is NaN or infinite")
    try:
        restored(net, dict(weights), "net")
    except DualpropError as error:
        raise CheckpointError(f"{run.path}: weights of another net ({error})") from None


def recorded(run: Run) -> Resolved | None:
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
    except (TypeError, DualpropError) as error:
        raise CheckpointError(f"{run.path / 'resolved.json'}: damaged ({error})") from None


def load_net(run: str | Path, net: Net | None = None) -> Net:
    """The net of a run with its best weights.

    Args:
        run: the run folder.
        net: one's own, where the run was started with it; it is given the weights.

    Raises:
        DualpropError: if the folder is no run, or its weights are missing, damaged or another net's.
    """
    if net is not None:
        give(net, run)
        return net
    opened = Run.open(Path(run))
    weights, notes = opened.load_weights(BEST)
    settings, used = opened.settings, recorded(opened)
    if used is not None and "net" in used.own:
        raise CheckpointError(f"{opened.path}: its net is one of its own; give it one: load_net(run, net=...)")
    try:
        arguments = _by_notes(settings, notes) if used is None else used.net
        check_fit(settings.net, arguments, weights)
        net = make_net(settings.net, arguments, settings.seed)
    except (DualpropError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{opened.path}: weights of another net ({error})") from None
    _take(net, weights, opened)
    return net


def _by_notes(settings: Settings, notes: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of a net from before they were recorded."""
    shape = check("in_shape", parse_json(notes["in_shape"]), Several[Count])
    return net_arguments(settings, shape, check("num_classes", parse_json(notes["num_classes"]), Count))
