"""Command-line options derived from declarations: those of `Settings`, and those of every rule in `RULES`.

A type and a range come from the annotation, the help from the docstring's `Args:`, names from their registry.
Importing this loads the rules, and torch with them.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, Union

import docstring_parser
from cyclopts import Group, Parameter, Token

from dualprop import files
from dualprop.arguments import Count, NotNegative, check, declared, read
from dualprop.cli._help import ByRule
from dualprop.data import DATASETS
from dualprop.errors import DualpropError
from dualprop.nets import NETS
from dualprop.nets.losses import LOSSES
from dualprop.nets.potentials import POTENTIALS
from dualprop.nets.synapses import FEEDBACK, POOLS
from dualprop.nets.synapses.inits import INITS
from dualprop.registry import Registry
from dualprop.rules import RULES
from dualprop.rules.standing import CHANNELS
from dualprop.runs.settings import Settings
from dualprop.runs.streams import StreamSettings
from dualprop.training import recipes
from dualprop.training.experiment import PRECISIONS
from dualprop.training.optim.optimizers import LR_SCHEDULES, OPTIMIZERS

GROUPS = ("what", "rule", "optimizer", "schedule", "data", "precision", "run")
"""In the order of the help."""

LARGEST = 2**16
"""Bytes of a file with settings."""

NAMES: dict[str, Iterable[str]] = {
    "rule": RULES,
    "data": DATASETS,
    "net": NETS,
    "activation": POTENTIALS,
    "init": INITS,
    "pool": POOLS,
    "feedback": FEEDBACK,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "lr_schedule": LR_SCHEDULES,
    "precision": PRECISIONS,
}
"""What the settings that are names may be."""

LONGEST = 40
"""Characters of a word in the name of a folder."""


def _one_of(names: Iterable[str]) -> Any:
    """The type of a word that completion in a shell knows; others are read, too."""
    return Union[str, Literal[tuple(names)]]  # noqa: UP007 - of as many as there are


def _help(described: Callable[..., Any]) -> dict[str, str]:
    """The help of every argument of a class or function, from its docstring."""
    parsed = docstring_parser.parse(described.__doc__ or "", style=docstring_parser.DocstringStyle.GOOGLE)
    return {p.arg_name: " ".join((p.description or "").split()) for p in parsed.params if p.args[0] == "param"}


def _option(name: str, kind: Any, group: Group, help: str, default: str) -> Any:
    """An option of one word, or two flags for true and false."""
    names = NAMES.get(name, ())
    parameter = Parameter(
        name=f"--{name.replace('_', '-')}",
        help=f"{help} Names: {', '.join(names)}." if names else help,
        group=group,
        show_default=default,
        show_choices=False,
    )
    if kind is bool:
        return Annotated[bool, parameter]

    def value(_: Any, tokens: Sequence[Token]) -> Any:
        return read_table(name, tokens[0].value) if kind == Mapping[str, Any] else read(tokens[0].value, kind)

    word = _one_of(names) if names else Any
    return Annotated[word, Parameter(converter=value, allow_leading_hyphen=True, metavar="VALUE"), parameter]


def _shown(default: Any) -> str:
    """A default value as one would type it."""
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, list | tuple):
        return ",".join(map(str, default))
    return "none" if default in (None, {}) else str(default).lower()


def read_table(option: str, text: str) -> dict[str, Any]:
    """Settings by name from a word like "alpha=0.25;beta=[1,1,0.5];schedule=random:50", or from a TOML file."""
    if text.endswith(".toml"):
        return files.read_toml(Path(text), Registry(f"table of {option}"), LARGEST)
    settings = {}
    for item in filter(None, text.split(";")):
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise DualpropError(f"{option}={item!r}: must be NAME=VALUE, for example beta=0.5")
        settings[name.strip()] = read(value.strip(), Any)
    return settings


DEVICES: dict[str, tuple[Any, str, str, str]] = {
    "noise": (NotNegative, "states", "sigma", "Standard deviation of noise on all hidden states."),
    "state_bits": (Count, "states", "bits", "Bits of all hidden states, from 1 to 16."),
    "weight_bits": (Count, "weights", "bits", "Bits of weights as they are read, from 1 to 16."),
}
"""Short for a channel of `--devices`: its kind, what it is on, the channel's argument, the help."""


def _own(rule: str) -> dict[str, str]:
    """The settings that a rule has and a run has not, and their help."""
    kind = RULES[rule].rule
    helps, ours = _help(kind), {"net", *declared(Settings), *CHANNELS, *DEVICES}
    return {name: helps.get(name, "") for name in declared(kind) if name not in ours}


_RULES = {rule: _own(rule) for rule in RULES}
_GROUPS = {
    (kind, name): Group(
        name, sort_key=key, help_formatter=ByRule(_RULES) if (kind, name) == (Settings, "rule") else None
    )
    for kind in (Settings, StreamSettings)
    for key, name in enumerate(GROUPS)
}


def _of_settings(*omitted: str, kind: type[Settings] | type[StreamSettings] = Settings) -> dict[str, Any]:
    """An option for every setting."""
    kinds, helps, defaults = declared(kind), _help(kind), kind().as_dict()
    return {
        f.name: _option(
            f.name, kinds[f.name], _GROUPS[kind, f.metadata["group"]], helps[f.name], _shown(defaults[f.name])
        )
        for f in dataclasses.fields(kind)
        if f.name not in omitted
    }


def _of_rules() -> dict[str, Any]:
    """An option for every setting that some rule has, unless the run has one of the same name."""
    having: dict[str, list[str]] = {}
    for rule, own in _RULES.items():
        for name in own:
            having.setdefault(name, []).append(rule)
    kinds = {rule: declared(method.rule) for rule, method in RULES.items()}
    return {
        name: _option(
            name,
            Union[tuple(kinds[rule][name] for rule in rules)],  # noqa: UP007 - of as many as there are
            _GROUPS[Settings, "rule"],
            f"of {', '.join(rules)}",
            "the rule's",
        )
        for name, rules in having.items()
    }


def _of_devices() -> dict[str, Any]:
    """The options of `DEVICES`."""
    return {
        name: _option(name, kind, _GROUPS[Settings, "rule"], help, "none")
        for name, (kind, _, _, help) in DEVICES.items()
    }


if TYPE_CHECKING:
    DeviceOptions = dict[str, Any]
    RecipeOption = str | None
    SettingOptions = dict[str, Any]
    CommonOptions = dict[str, Any]
    StreamOptions = dict[str, Any]
    RuleOptions = dict[str, Any]
else:
    Every = Parameter(name="*")
    RecipeOption = Annotated[
        _one_of(recipes.shipped()) | None,
        Parameter(
            help="Settings to start from, which options override, by name or as a TOML file. "
            f"Names: {', '.join(recipes.shipped())}.",
            show_choices=False,
        ),
    ]
    """The name of a recipe, or the path of one."""
    SettingOptions = Annotated[TypedDict("SettingOptions", _of_settings(), total=False), Every]
    """Settings by name, those alone that were given."""
    CommonOptions = Annotated[TypedDict("CommonOptions", _of_settings("rule", "seed"), total=False), Every]
    """The same for several rules and seeds."""
    StreamOptions = Annotated[
        TypedDict("StreamOptions", _of_settings("source", kind=StreamSettings), total=False), Every
    ]
    """The settings of a stream."""
    RuleOptions = Annotated[TypedDict("RuleOptions", _of_rules(), total=False), Every]
    """A rule's own settings."""
    DeviceOptions = Annotated[TypedDict("DeviceOptions", _of_devices(), total=False), Every]
    """What is short for a channel."""


def merged(
    settings: Mapping[str, Any] | None,
    own: Mapping[str, Any] | None,
    devices: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings that were given, a rule's own among them, and channels after those of `--devices`."""
    given = dict(settings or {})
    for name, value in (devices or {}).items():
        kind, on, argument, _ = DEVICES[name]
        check(name, value, kind)
        channel = {"channel": "noise" if argument == "sigma" else "quantised", argument: value}
        table = given["devices"] = dict(given.get("devices", {}))
        before = table.get(on, [])
        table[on] = [*(before if isinstance(before, list) else [before]), channel]
    if own:
        together = given.setdefault("rule_settings", {})
        if isinstance(together, dict) and (twice := next((name for name in own if name in together), None)):
            raise DualpropError(f"{twice}: given both by an option of its own and in --rule-settings")
        given["rule_settings"] = {**together, **own}
    return given


def constants(text: str | None) -> dict[str, Any] | None:
    """The constants of the energy model from the word after `--energy`; none if it is "default"."""
    return None if text is None else {} if text == "default" else read_table("energy", text)


def names(option: str, text: str) -> tuple[str, ...]:
    """Names from a word like "dp,bp" after an option."""
    listed = tuple(name.strip() for name in text.split(","))
    if not all(listed):
        raise DualpropError(f"{option}={text!r}: must be names with commas between them, for example dp,bp")
    return listed


def run_folder(*words: str) -> Path:
    """A new folder's name under runs/: the ends of the words, and the time to the microsecond."""
    name = "-".join(re.sub(r"[^\w.]+", "-", word)[-LONGEST:].strip("-") for word in words)
    return Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"
