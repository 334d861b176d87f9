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
from dualprop.settings import Settings


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
            given = {name: options.pop(name) for name in fields}
            command(**options, settings=_parsed(given, fields))

        parameters = [*own, *(_parameter(field, kinds[name]) for name, field in fields.items())]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parsed(given: Mapping[str, Any], fields: Mapping[str, dataclasses.Field[Any]]) -> dict[str, Any]:
    """The options that were given, words turned into values."""
    values = {}
    for name, value in given.items():
        if value is not None:
            parse = fields[name].metadata["parse"]
            values[name] = parse(value) if parse else value
    return values


Alpha = Annotated[float | None, typer.Option(help="The rule's α in [0, 1].", show_default="the rule's")]
Beta = Annotated[
    str | None, typer.Option(help="Its β, one number or one per layer as 1,1,0.5.", show_default="the rule's")
]
Schedule = Annotated[
    str | None,
    typer.Option(
        help="Its order of updates: sweep:N, parallel:TICKS or random:UPDATES.", show_default="the rule's"
    ),
]


def merged(
    settings: Mapping[str, Any], alpha: float | None, beta: str | None, schedule: str | None
) -> dict[str, Any]:
    """The given settings, with the short options taken into the rule's own.

    Raises:
        DualpropError: for a beta that is not numbers.
    """
    own = dict(settings.get("rule_settings", {}))
    if alpha is not None:
        own["alpha"] = alpha
    if beta is not None:
        own["beta"] = _beta(beta)
    if schedule is not None:
        own["schedule"] = schedule
    return {**settings, "rule_settings": own} if own else dict(settings)


def _beta(text: str) -> float | list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise DualpropError(f"beta={text!r}: expected a number, or one per layer as 1,1,0.5") from None
    return numbers if len(numbers) > 1 else numbers[0]


def run_folder(*words: str) -> Path:
    """A new folder's name under runs/: the words and the time."""
    name = "-".join(re.sub(r"[^\w.]+", "-", word).strip("-") for word in words)
    return Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
