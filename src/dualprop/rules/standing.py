"""A constructor whose arguments are known afterwards, and stand."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec

from dualprop.arguments import Seed
from dualprop.errors import DualpropError
from dualprop.nets.devices.channels import Channel
from dualprop.nets.devices.places import QUANTITIES

P = ParamSpec("P")

CHANNELS = dict.fromkeys(QUANTITIES) | {"device_seed": 0}
"""What every constructor of a rule takes besides its own arguments, with its defaults."""


def _remembered(init: Callable[Concatenate[Standing, P], None]) -> Callable[Concatenate[Standing, P], None]:
    """A constructor after which the rule knows the settings that it was given, and they stand.

    Those of `CHANNELS` it keeps to itself.
    """

    @functools.wraps(init)
    def constructor(self: Standing, /, *args: P.args, **settings: P.kwargs) -> None:
        outermost = vars(self).setdefault("_given", settings) is settings  # the one that was called
        own: Any = settings
        if not CHANNELS.keys().isdisjoint(settings):
            own = {name: value for name, value in settings.items() if name not in CHANNELS}
            vars(self)["_channels"] = {name: settings[name] for name in CHANNELS if name in settings}
        init(self, *args, **own)
        if outermost:
            self._standing = frozenset(inspect.signature(type(self)).parameters)

    vars(constructor)["__signature__"] = _with_channels(init)
    return constructor


def _as_table(setting: Any) -> dict[str, Any]:
    """A channel as JSON holds it."""
    if isinstance(setting, Channel):
        return setting.plain()
    raise TypeError(f"a {type(setting).__name__} is no number, word or list")


def _with_channels(init: Callable[..., None]) -> inspect.Signature:
    """The signature of a constructor that takes what is in `CHANNELS`, too."""
    try:
        signature = inspect.signature(init, eval_str=True)
    except NameError:  # of a class that is defined where its annotations mean nothing
        signature = inspect.signature(init)
    own, KEYWORD = signature.parameters, inspect.Parameter.KEYWORD_ONLY
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
