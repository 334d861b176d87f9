"""Recipes: settings in TOML files that ship with the package, and a reader for one's own.

A recipe is a table of settings by their names in `Settings`; a table `[rules.NAME]` in it is for one rule alone.
A warm-up, and where a cosine ends, is stated for the recipe's own number of epochs and moves with another, unless
`unscaled` names it: then it stays, and a run of fewer epochs is warmed up to its end.
This module imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualprop import files
from dualprop.arguments import check
from dualprop.errors import DualpropError
from dualprop.registry import Registry
from dualprop.runs.settings import Settings

LARGEST = 2**16
"""Bytes of a recipe."""

SCALED = ("warmup_epochs", "lr_epochs")
"""Settings that count epochs of a schedule."""

UNSCALED = "unscaled"
"""What a recipe calls the list of those of them that stay as they are."""

TABLES = ("net_settings", "rule_settings", "devices")
"""Settings that hold others by name: what is given is put into the recipe's."""


@dataclass(frozen=True)
class Recipe:
    """Settings of a published or one's own experiment.

    Args:
        settings: by name, for every rule.
        rules: for each rule by name the settings in which it differs.

    Raises:
        DualpropError: for a name that is not a setting, or a number out of range.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _settings(self.settings)
        for name, table in self.rules.items():
            try:
                _settings({**self.settings, **table})
            except DualpropError as error:
                raise DualpropError(f"rules.{name}: {error}") from None

    def settings_for(self, given: Mapping[str, Any]) -> Settings:
        """The settings of a run.

        Args:
            given: settings by name that override the recipe's; the rule's own settings are taken together.

        Raises:
            DualpropError: for a name that is not a setting, or a number out of range.

        Example:
            >>> recipe = Recipe({"epochs": 130, "warmup_epochs": 10}, {"kp-dp": {"warmup_epochs": 15}})
            >>> recipe.settings_for({"epochs": 26}).warmup_epochs
            2.0
            >>> recipe.settings_for({"rule": "kp-dp"}).warmup_epochs
            15.0
            >>> stays = Recipe({**recipe.settings, "unscaled": ["warmup_epochs"]})
            >>> stays.settings_for({"epochs": 26}).warmup_epochs
            10.0
        """
        own, _ = _settings(self.settings)
        table = {**self.settings, **self.rules.get(check("rule", given.get("rule", own.rule), str), {})}
        stated, unscaled = _settings(table)
        merged = {name: value for name, value in {**table, **given}.items() if name != UNSCALED}
        for name in SCALED:
            if name in table and name not in given:
                epochs = merged.get("epochs", stated.epochs)
                scale = min if name in unscaled else _scaled
                merged[name] = scale(getattr(stated, name), epochs, stated.epochs)
        for name in TABLES:
            if name in table and name in given:
                merged[name] = {**table[name], **given[name]}
        return Settings.from_dict(merged)


def _settings(table: Mapping[str, Any]) -> tuple[Settings, Sequence[str]]:
    """What a table of a recipe says, and what stays as it is for any number of epochs."""
    unscaled = check(UNSCALED, table.get(UNSCALED, []), list[str])
    if wrong := [name for name in unscaled if name not in SCALED]:
        raise DualpropError(f"{UNSCALED}={wrong[0]!r}: must be of {', '.join(SCALED)}")
    return Settings.from_dict({name: value for name, value in table.items() if name != UNSCALED}), unscaled


def _scaled(stated: float, epochs: int, own: int) -> float:
    """That many epochs for another number of them all; unchanged, to the bit, for the recipe's own."""
    return stated if epochs == own else stated * epochs / own


def shipped() -> Registry[Any]:
    """The files of the recipes that ship with the package, by name."""
    return files.shipped("recipe", __name__)


def read(recipe: str | Path) -> Recipe:
    """A recipe by its name, or by the path of a TOML file.

    Raises:
        DualpropError: for an unknown name, or a file that is missing or no recipe.

    Example:
        >>> read("cifar10-vgg16").settings["net"]
        'vgg16'
    """
    from dualprop.rules import RULES  # imports torch, which the names above need not wait for

    tables = files.read_toml(recipe, shipped(), LARGEST)
    try:
        rules = tables.pop("rules", {})
        if not isinstance(rules, dict) or not all(isinstance(table, dict) for table in rules.values()):
            raise DualpropError("rules: must hold a table for each rule, as [rules.kp-dp]")
        for name, table in rules.items():
            RULES[name]
            if "rule" in table:
                raise DualpropError(f"rules.{name}: may not name another rule")
        return Recipe(tables, rules)
    except DualpropError as error:
        raise DualpropError(f"{recipe}: not a recipe ({error})") from None


def load(recipe: str | Path, **settings: Any) -> Settings:
    """The settings of a recipe, with some of one's own.

    Args:
        recipe: the name of one that ships with the package, or the path of a TOML file.
        settings: override the recipe's; another number of epochs scales its warm-up.

    Raises:
        DualpropError: for an unknown name, a file that is no recipe, or a wrong setting.

    Example:
        >>> settings = load("cifar10-vgg16", rule="dp", epochs=26)
        >>> settings.lr, settings.warmup_epochs
        (0.025, 2.0)
    """
    return read(recipe).settings_for(settings)
