"""What is public, a line for each name, argument, member, registry entry, command and option.

`python -m tests.public` writes `public.txt` anew: at a release, and where something goes as the changelog says.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from enum import EnumMeta
from pathlib import Path
from types import ModuleType
from typing import Any

from cyclopts import App

import dualprop as dp
from dualprop.cli import app
from dualprop.errors import MissingExtraError
from dualprop.registry import Registry

KEPT = Path(__file__).with_name("public.txt")
ADAPTERS = {
    "sklearn": ("DualPropClassifier", "DualPropRegressor"),
    "river": ("DualPropClassifier", "DualPropRegressor"),
    "lightning": ("DualPropModule",),
    "hub": ("save_pretrained", "push_to_hub", "from_pretrained"),
    "onnx": ("export",),
    "wandb": ("WandbCallback",),
    "mlflow": ("MlflowCallback",),
}


def things() -> Iterator[tuple[str, Any]]:
    """Everything public by its name."""
    for name in dp.__all__:
        thing = getattr(dp, name)
        yield name, thing
        if isinstance(thing, ModuleType):
            yield from ((f"{name}.{each}", getattr(thing, each)) for each in getattr(thing, "__all__", ()))
    for name, own in ADAPTERS.items():
        try:
            adapter = importlib.import_module(f"dualprop.{name}")
        except MissingExtraError:
            continue
        yield from ((f"{name}.{each}", getattr(adapter, each)) for each in own)


def lines() -> Iterator[str]:
    """All of it."""
    public = {thing for _, thing in things() if inspect.isclass(thing)}
    for name, thing in things():
        yield name
        if isinstance(thing, Registry):
            yield from (f"{name}[{entry}]" for entry in thing)
        elif callable(thing) and not isinstance(thing, EnumMeta):  # whose arguments are Python's
            yield from (f"{name}({argument})" for argument in inspect.signature(thing).parameters)
        if inspect.isclass(thing):
            kinds = [
                kind
                for kind in thing.__mro__
                if kind is thing or (kind.__module__.startswith("dualprop") and kind not in public)
            ]  # the members of the others stand under their own class
            own = {each for kind in kinds for each in (*vars(kind), *vars(kind).get("__annotations__", ()))}
            yield from (f"{name}.{each}" for each in sorted(own) if not each.startswith("_"))
    yield from commands(app, "dualprop")


def commands(group: App, called: str) -> Iterator[str]:
    """The commands of a group, and the options of each."""
    for name in (name for name in group if not name.startswith("-")):
        command, words = group[name], f"{called} {name}"
        yield words
        if command.default_command is None:
            yield from commands(command, words)
        else:
            arguments = command.assemble_argument_collection(parse_docstring=False)
            yield from (f"{words} {option}" for argument in arguments for option in argument.names)


def absent() -> tuple[str, ...]:
    """How the lines of adapters begin whose library is not installed."""
    there = {name.partition(".")[0] for name, _ in things()}
    return tuple(f"{name}." for name in ADAPTERS if name not in there)


if __name__ == "__main__":
    KEPT.write_text("\n".join(sorted(set(lines()))) + "\n", encoding="utf-8")
