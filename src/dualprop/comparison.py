"""Rules side by side: several seeds each on one setting, every run in a folder of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dualprop.errors import CheckpointError, DualpropError
from dualprop.experiment import build
from dualprop.report import Report
from dualprop.rules import RULES
from dualprop.runs import check_free
from dualprop.settings import Settings
from dualprop.training import resume, train


def plan(rules: Sequence[str], seeds: Sequence[int], common: Mapping[str, Any]) -> list[Settings]:
    """The settings of every run, rule by rule.

    A rule's own setting in `common`, for example beta, goes to the rules that have it.

    Args:
        rules: names in `RULES`.
        seeds: a run of every rule for each.
        common: settings that all runs share.

    Raises:
        DualpropError: for an unknown name, a repetition, or a setting that none of the rules has.
    """
    for name, values in (("rules", rules), ("seeds", seeds)):
        if not values or len(set(values)) != len(values):
            raise DualpropError(f"{name}={list(values)}: must name at least one, and each once")
    shared = Settings.from_dict(common)
    methods = {rule: RULES[rule] for rule in rules}
    for name in shared.rule_settings:
        if not any(name in method.known_settings for method in methods.values()):
            raise DualpropError(f"{name}: none of the rules {', '.join(rules)} has such a setting")
    settings = []
    for rule, method in methods.items():
        own = {k: v for k, v in shared.rule_settings.items() if k in method.known_settings}
        settings += [dataclasses.replace(shared, rule=rule, seed=seed, rule_settings=own) for seed in seeds]
    return settings


def compare(
    rules: Sequence[str], seeds: Sequence[int], common: Mapping[str, Any], folder: Path, *, go_on: bool = False
) -> Report:
    """Train every rule from every seed, then write a table and plots into `folder`.

    Args:
        rules: names in `RULES`.
        seeds: whole numbers; a run of every rule for each.
        common: settings that all runs share, as for `Settings`.
        folder: where the runs and the report go.
        go_on: continue a comparison that was stopped: finished runs stay, the others go on.

    Returns:
        The report, already written.

    Raises:
        DualpropError: for whatever is wrong, before any run is started.
    """
    settings = plan(rules, seeds, common)
    if not go_on:
        check_free(folder)
    elif not folder.is_dir():
        raise CheckpointError(f"{folder}: no comparison to go on with")
    for first in settings[:: len(seeds)]:
        build(first)  # the names, the data and every rule's own settings, before the first run takes its time
    for s in settings:
        path = folder / run_name(s)
        if path.exists():
            resume(path, vars(s))
        else:
            train(s, path)
    report = Report.of([folder / run_name(s) for s in settings])
    report.write(folder)
    return report


def run_name(settings: Settings) -> str:
    """The folder of one run within a comparison."""
    return f"{settings.rule}-seed{settings.seed}"
