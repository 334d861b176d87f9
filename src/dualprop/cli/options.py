"""Command-line options made from the fields of `Settings`, so that each is described once."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from dualprop.errors import DualpropError
from dualprop.runs.settings import Settings
from dualprop.training import recipes

RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help=f"Settings to start from: {', '.join(recipes.shipped())}, or the path of a TOML file. Options given "
        "here override it; its schedule scales with --epochs.",
        show_default=False,
    ),
]


def _shown(default: Any) -> str:
    """A default value as one would type it."""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return "none" if default in (None, {}) else str(default)


def _default(field: dataclasses.Field[Any]) -> Any:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _parameter(field: dataclasses.Field[Any], kind: Any) -> inspect.Parameter:
    """The option of one field. It is None unless given, which tells a choice from a default."""
    parse = field.metadata["parse"]
    flag = f"--{field.name.replace('_', '-')}"
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=field.metadata["help"],
        show_default=_shown(_default(field)),
    )
    word = str if parse else kind
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[word | None, option],
    )


def _beta(text: str) -> float | list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise DualpropError(f"beta={text!r}: expected a number, or one per layer as 1,1,0.5") from None
    return numbers if len(numbers) > 1 else numbers[0]


def _own(kind: Any, help: str) -> Any:
    return Annotated[kind | None, typer.Option(help=help, show_default="the rule's")]


_RULE_OPTIONS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "alpha": (_own(float, "The rule's α in [0, 1]."), float),
    "beta": (_own(str, "Its β, one number or one per layer as 1,1,0.5."), _beta),
    "schedule": (_own(str, "Its order of updates: sweep:N, parallel:TICKS or random:UPDATES."), str),
}
"""Short options for what `--rule-settings` could say as well."""


def with_settings(*omitted: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for every setting; it gets those that were given as `settings`.

    Args:
        omitted: settings that the command has no option for.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        kinds = get_type_hints(Settings)
        fields = {f.name: f for f in dataclasses.fields(Settings) if f.name not in omitted}
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "settings"]

        @functools.wraps(command)
        def run(**options: Any) -> None:
            short = {name: options.pop(name) for name in _RULE_OPTIONS}
            given = {name: options.pop(name) for name in fields}
            command(**options, settings=_parsed(given, short, fields))

        parameters = [
            *own,
            *(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
                for name, (annotation, _) in _RULE_OPTIONS.items()
            ),
            *(_parameter(field, kinds[name]) for name, field in fields.items()),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parsed(
    given: Mapping[str, Any], short: Mapping[str, Any], fields: Mapping[str, dataclasses.Field[Any]]
) -> dict[str, Any]:
    """The options that were given, words turned into values, the short ones taken into the rule's settings."""
    values = {}
    for name, value in given.items():
        if value is not None:
            parse = fields[name].metadata["parse"]
            values[name] = parse(name, value) if parse else value
    own = {name: _RULE_OPTIONS[name][1](value) for name, value in short.items() if value is not None}
    if own:
        values["rule_settings"] = {**values.get("rule_settings", {}), **own}
    return values


def run_folder(*words: str) -> Path:
    """A new folder's name under runs/: the words and the time."""
    name = "-".join(re.sub(r"[^\w.]+", "-", word).strip("-") for word in words)
    return Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
