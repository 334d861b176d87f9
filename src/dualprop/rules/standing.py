"""A constructor whose arguments are known afterwards, and stand."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, get_args

from pydantic import with_config

from dualprop.arguments import Seed
from dualprop.errors import DualpropError
from dualprop.nets.devices.channels import Channel
from dualprop.nets.devices.places import Quantities

P = ParamSpec("P")


@with_config(strict=True, extra="forbid", arbitrary_types_allowed=True)
class Channels(Quantities, total=False):
    """What every constructor of a rule takes besides its own arguments."""

    device_seed: Seed


CHANNELS = {name: 0 if name == "device_seed" else None for name in Channels.__annotations__}
"""That with its defaults."""


def _remembered(init: Callable[Concatenate[Standing, P], None]) -> Callable[Concatenate[Standing, P], None]:
    """A constructor after which the rule knows the settings that it was given, and they stand.

    What is in `CHANNELS` goes past a constructor that has no place for it, to the next one that it calls.
    """
    signature = _read(init)
    takes_all = any(map(_is_channels, signature.parameters.values()))
    past = [name for name in CHANNELS if not takes_all and name not in signature.parameters]

    @functools.wraps(init)
    def constructor(self: Standing, /, *args: P.args, **settings: P.kwargs) -> None:
        outermost = vars(self).setdefault("_given", settings) is settings  # the one that was called
        own: Any = {**vars(self).pop("_passed_on", {}), **settings}
        if passed_on := {name: own.pop(name) for name in past if name in own}:
            vars(self)["_passed_on"] = passed_on
        init(self, *args, **own)
        if outermost:
            self._standing = frozenset(inspect.signature(type(self)).parameters)

    vars(constructor)["__signature__"] = _with_channels(signature)
    return constructor


def _as_table(setting: Any) -> dict[str, Any]:
    """A channel as JSON holds it."""
    if isinstance(setting, Channel):
        return setting.plain()
    raise TypeError(f"a {type(setting).__name__} is no number, word or list")


def _read(init: Callable[..., None]) -> inspect.Signature:
    try:
        return inspect.signature(init, eval_str=True)
    except NameError:  # of a class that is defined where its annotations mean nothing
        return inspect.signature(init)


def _is_channels(parameter: inspect.Parameter) -> bool:
    return parameter.kind is parameter.VAR_KEYWORD and get_args(parameter.annotation) == (Channels,)


def _with_channels(signature: inspect.Signature) -> inspect.Signature:
    """That of a constructor that takes what is in `CHANNELS`, each by its name."""
    KEYWORD = inspect.Parameter.KEYWORD_ONLY
    own = {name: p for name, p in signature.parameters.items() if not _is_channels(p)}
    ours = {
        name: inspect.Parameter(name, KEYWORD, default=default, annotation=Seed if default == 0 else Any)
        for name, default in CHANNELS.items()
        if name not in own
    }
    return signature.replace(parameters=sorted([*own.values(), *ours.values()], key=lambda p: p.kind))


class Standing:
    """What is made with settings that it knows afterwards, shows, and lets nobody change."""

    _kept: list[str]  # the attributes that are state, which are no settings
    _standing: frozenset[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            setattr(cls, "__init__", _remembered(cls.__init__))  # noqa: B010 - mypy lets no method be assigned

    def __setattr__(self, name: str, value: Any) -> None:
        """Settings stand once the rule is made, for what follows from them is worked out then.

        Raises:
            DualpropError: for one that is changed all the same, unless `add_state` has declared it.
        """
        if name in vars(self).get("_standing", ()) and name not in self._kept:
            raise DualpropError(f"{name}: a rule's settings stand once it is made; make another rule")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        """The rule's class and the settings that are not its defaults."""
        defaults = {name: p.default for name, p in inspect.signature(type(self)).parameters.items()}
        settings = {k: v for k, v in vars(self).get("_given", {}).items() if k != "net" and v != defaults.get(k)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"

    def plain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that this rule was made with as JSON holds them, from which the same rule is made again.

        Raises:
            DualpropError: for one that JSON cannot hold.
        """
        try:
            plain: dict[str, Any] = json.loads(json.dumps(dict(settings), allow_nan=False, default=_as_table))
        except (TypeError, ValueError) as error:
            raise DualpropError(f"settings: cannot be recorded ({error}); give numbers, words or lists") from None
        return plain
