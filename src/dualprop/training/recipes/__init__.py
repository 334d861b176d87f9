"""Recipes: settings in TOML files that ship with the package, and a reader for one's own.

A recipe is a table of settings by their names in `Settings`; a table `[rules.NAME]` in it is for one rule alone.
A warm-up, and where a cosine ends, is stated for the recipe's own number of epochs and moves with another.
This module imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualprop import files
from dualprop.errors import DualpropError
from dualprop.registry import Registry
from dualprop.runs.settings import Settings

LARGEST = 2**16
"""Bytes of a recipe."""

SCALED = ("warmup_epochs", "lr_epochs")
"""Settings that count epochs of a schedule."""

TABLES = ("net_settings", "rule_settings")
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
        Settings.from_dict(self.settings)
        for name, table in self.rules.items():
            try:
                Settings.from_dict({**self.settings, **table})
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
        """
        own = Settings.from_dict(self.settings)
        table = {**self.settings, **self.rules.get(given.get("rule", own.rule), {})}
        merged = {**table, **given}
        for name in SCALED:
            if name in table and name not in given:
                merged[name] = _scaled(name, table, merged.get("epochs", own.epochs))
        for name in TABLES:
            if name in table and name in given:
                merged[name] = {**table[name], **given[name]}
        return Settings.from_dict(merged)


def _scaled(name: str, table: Mapping[str, Any], epochs: int) -> float:
    """That many epochs for another number of them all; unchanged, to the bit, for the recipe's own."""
    own = Settings.from_dict(table)
    stated: float = getattr(own, name)
    return stated if epochs == own.epochs else stated * epochs / own.epochs


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
        >>> settings = load("cifar10-vgg16", rule="kp-dp", epochs=26)
        >>> settings.lr, settings.warmup_epochs
        (0.025, 3.0)
    """
    return read(recipe).settings_for(settings)
