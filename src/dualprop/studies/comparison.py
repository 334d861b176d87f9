"""Rules side by side: several seeds each on one setting, every run in a folder of its own."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dualprop.arguments import Portion, Seed, Several, check, check_entries
from dualprop.data.own import OWN
from dualprop.errors import CheckpointError, DivergenceError, DualpropError, Interrupted
from dualprop.nets.devices import Energy
from dualprop.nets.net import Net
from dualprop.rules import RULES
from dualprop.runs.documents import read_json, write_json
from dualprop.runs.folder import check_free
from dualprop.runs.settings import Settings
from dualprop.studies.report.side_by_side import Report
from dualprop.training.callbacks import Costs, RunLine
from dualprop.training.callbacks.display import stderr
from dualprop.training.experiment import build
from dualprop.training.interrupt import Interrupt
from dualprop.training.own import Own
from dualprop.training.processes import torchrun
from dualprop.training.recipes import Recipe
from dualprop.training.start import train

logger = logging.getLogger("dualprop")

PLAN = "comparison.json"
PLAIN = Recipe()


def plan(
    rules: Sequence[str], seeds: Sequence[int], common: Mapping[str, Any], recipe: Recipe = PLAIN
) -> list[Settings]:
    """The settings of every run, rule by rule.

    A rule's own setting in `common`, for example beta, goes to the rules that have it.

    Args:
        rules: names in `RULES`.
        seeds: a run of every rule for each.
        common: settings that all runs share.
        recipe: what they start from, which may differ from rule to rule.

    Raises:
        DualpropError: for an unknown name, a repetition, or a setting that none of the rules has.
    """
    for name, values, kind in (("rules", rules, Several[str]), ("seeds", seeds, Several[Seed])):
        check(name, values, kind)
        if not values or len(set(values)) != len(values):
            raise DualpropError(f"{name}={list(values)}: must name at least one, and each once")
    methods = {rule: RULES[rule] for rule in rules}
    for name in Settings.from_dict(common).rule_settings:
        if not any(name in method.known_settings for method in methods.values()):
            raise DualpropError(f"{name}: none of the rules {', '.join(rules)} has such a setting")
    settings = []
    for rule, method in methods.items():
        shared = recipe.settings_for({**common, "rule": rule})
        own = {k: v for k, v in shared.rule_settings.items() if k in method.known_settings}
        settings += [dataclasses.replace(shared, seed=seed, rule_settings=own) for seed in seeds]
    return settings


def able(
    seeds: Sequence[int], common: Mapping[str, Any], recipe: Recipe = PLAIN, own: Own | None = None
) -> tuple[list[str], dict[str, str]]:
    """The rules that can run on a setting.

    Args:
        seeds: as for `compare`.
        common: likewise.
        recipe: likewise.
        own: likewise, data and a net.

    Returns:
        Names in `RULES`, in its order, and for each of the others why not.

    Raises:
        DualpropError: if there are none, or if it is not the net but its own settings that a rule refuses.
    """
    left_out: dict[str, str] = {}
    refused, own = None, own or Own()
    for settings in plan(list(RULES), seeds[:1], common, recipe):
        try:
            build(settings, own=_copied(own))
        except DualpropError as error:
            if settings.rule_settings and _builds(dataclasses.replace(settings, rule_settings={}), own):
                raise
            refused = refused or error
            left_out[settings.rule] = str(error)
    if refused and len(left_out) == len(RULES):
        raise refused
    return [rule for rule in RULES if rule not in left_out], left_out


def _builds(settings: Settings, own: Own) -> bool:
    try:
        build(settings, own=_copied(own))
    except DualpropError:
        return False
    return True


def compare(
    rules: Sequence[str] | None,
    seeds: Sequence[int],
    common: Mapping[str, Any],
    folder: str | Path,
    recipe: Recipe = PLAIN,
    *,
    energy: Energy | Mapping[str, float] | None = None,
    to_accuracy: float | None = None,
    data: Any = None,
    net: Net | None = None,
) -> Report:
    """Train every rule from every seed, then write a table and plots into a new folder.

    Args:
        rules: names in `RULES`; None for all that can run on the net.
        seeds: whole numbers; a run of every rule for each.
        common: settings that all runs share, as for `Settings`.
        folder: where the runs and the report go; it must not exist.
        recipe: settings to start from, which may differ from rule to rule, as `dp.recipes.read` gives them.
        energy: what a thing costs, a `dp.devices.Energy` or its constants by name: then columns say what hardware
            would pay. None: nothing of that is measured.
        to_accuracy: of the validation, in (0, 1]: a column says what was paid until it was reached.
        data: of one's own, in place of the settings', as for `train`.
        net: one's own, a copy of which every run starts from.

    Returns:
        The report, already written, of the runs that came to their end; `diverged` says of the others why.

    Raises:
        DualpropError: for whatever is wrong, before any run is started.
        DivergenceError: if no run came to its end.
        Interrupted: on Ctrl-C or SIGTERM; `resume_comparison` goes on.
    """
    folder = Path(folder)
    _check_alone()
    check_free(folder)
    own, paid = Own(data, net), _paid(energy, to_accuracy)
    # the names, the data and every rule's own settings, before the first run takes its time
    left_out: dict[str, str] = {}
    if rules is None:
        rules, left_out = able(seeds, common, recipe, own)
        settings = plan(rules, seeds, common, recipe)
    else:
        settings = plan(rules, seeds, common, recipe)
        for first in settings[:: len(seeds)]:
            build(first, own=_copied(own))
    folder.mkdir(parents=True)
    intended = {"rules": list(rules), "seeds": list(seeds), "common": dict(common), "recipe": asdict(recipe)}
    write_json(folder / PLAN, {**intended, "paid": paid, "left_out": left_out, "own": own.described()})
    return _run(settings, folder, left_out, own, paid)


def resume_comparison(folder: str | Path, *, data: Any = None, net: Net | None = None) -> Report:
    """Go on with a comparison that was stopped: finished runs stay, the others are continued or started.

    Args:
        folder: that of the comparison.
        data: what it was started with, if that was of one's own.
        net: likewise, with the weights that it had then.

    Raises:
        DualpropError: if the folder is no comparison, or a run in it is damaged.
        DivergenceError: if no run came to its end.
        Interrupted: on Ctrl-C or SIGTERM.
    """
    folder = Path(folder)
    _check_alone()
    if not (folder / PLAN).is_file():
        raise CheckpointError(f"{folder}: not a comparison (it has no {PLAN})")
    intended = read_json(folder / PLAN)
    try:
        left_out = check("left_out", intended.pop("left_out", {}), dict[str, str])
        given = check("own", intended.pop("own", {}), dict[str, str])
        paid = _paid(**intended.pop("paid", {}))
        check_entries(intended, INTENDED)
        settings = plan(**{**intended, "recipe": Recipe(**intended["recipe"])})
    except (TypeError, DualpropError) as error:
        raise CheckpointError(f"{folder / PLAN}: damaged ({error})") from None
    own = Own(data, net)
    own.check_again(given)
    return _run(settings, folder, left_out, own, paid)


def _copied(own: Own) -> Own:
    """The same data, and a net for one run alone."""
    return Own(own.data, copy.deepcopy(own.net))


INTENDED: dict[str, Any] = {
    "rules": list[str],
    "seeds": list[Seed],
    "common": dict[str, Any],
    "recipe": dict[str, dict[str, Any]],
}
"""What a comparison keeps of what it was asked for."""


def _check_alone() -> None:
    """Refuse torchrun.

    Raises:
        DualpropError: if there are several processes.
    """
    if torchrun.count() > 1:
        raise DualpropError("compare: trains in one process; under torchrun there is train")


def _shown(settings: Settings, own: Own) -> dict[str, Any]:
    """How a run shows how it goes: as ever in a terminal, by one line elsewhere, if at all."""
    if stderr().is_terminal:
        return {"progress": True}
    data = settings.data if own.data is None else OWN
    line = RunLine(f"{settings.rule} on {data}, seed {settings.seed}")
    return {"progress": False, "callbacks": [line] if logger.level <= logging.INFO else []}


def _paid(energy: Energy | Mapping[str, float] | None = None, to_accuracy: float | None = None) -> dict[str, Any]:
    """What was asked for of costs, as JSON holds it; empty for nothing."""
    if energy is None:
        if to_accuracy is not None:
            raise DualpropError(f"to_accuracy={to_accuracy!r}: goes with energy, of which it is the sum")
        return {}
    made = energy if isinstance(energy, Energy) else Energy(**check("energy", energy, Mapping[str, Any]))
    reached = {} if to_accuracy is None else {"to_accuracy": check("to_accuracy", to_accuracy, Portion)}
    return {"energy": asdict(made), **reached}


def _run(
    settings: Sequence[Settings], folder: Path, left_out: Mapping[str, str], own: Own, paid: Mapping[str, Any]
) -> Report:
    paths = [folder / f"{s.rule}-seed{s.seed}" for s in settings]
    stopped = Interrupted(f"stopped; go on with: dualprop compare --resume {folder}")
    diverged: dict[str, str] = {}
    with Interrupt() as interrupt:
        for s, path in zip(settings, paths, strict=True):
            if interrupt.asked:
                raise stopped
            try:
                how, ours = _shown(s, own), _copied(own)
                if paid:
                    how["callbacks"] = [*how.get("callbacks", []), Costs(Energy(**paid["energy"]))]
                train(s, path, data=ours.data, net=ours.net, resume=True, **how)
            except Interrupted:
                raise stopped from None
            except DivergenceError as error:  # of this run alone
                diverged[path.name] = str(error)
                logger.warning("%s diverged: %s", path.name, error)
            except CheckpointError:  # which names the file
                raise
            except DualpropError as error:
                raise CheckpointError(f"{path}: {error}") from None
    finished = [path for path in paths if path.name not in diverged]
    if not finished:
        raise DivergenceError("; ".join(f"{name} diverged: {why}" for name, why in diverged.items()))
    report = Report.of(finished, diverged, left_out, **paid)
    report.write(folder)
    return report
