"""What a rule keeps from batch to batch, written as plain containers and taken back from them.

A rule may keep tensors, numbers, words, random generators, modules, optimizers, whatever else has `state_dict` and
`load_state_dict`, and lists and dictionaries of these. What is written holds tensors, numbers, words and None, in
lists and in dictionaries by name: `torch.load(weights_only=True)` reads it, and so does JSON beside a file of
tensors.
"""

from __future__ import annotations

import copy
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from dualprop.errors import DualpropError


@singledispatch
def saved(kept: Any) -> Any:
    """A snapshot of something that a rule keeps.

    Args:
        kept: the thing itself.

    Returns:
        Plain containers that do not change with it.

    Raises:
        DualpropError: for a type that no rule can keep.

    Example:
        >>> saved([torch.zeros(2), 3])
        [tensor([0., 0.]), 3]
    """
    if not hasattr(kept, "state_dict") or not hasattr(kept, "load_state_dict"):
        raise DualpropError(
            f"state: of type {type(kept).__name__}, but a rule keeps tensors, numbers, generators, modules, "
            "optimizers, and lists and dictionaries of these"
        )
    return kept.state_dict()


@singledispatch
def restored(kept: Any, state: Any, at: str) -> Any:
    """The thing kept as it was when `state` was saved.

    Args:
        kept: the thing as it is now; modules, generators and optimizers are changed in place.
        state: what `saved` has made of it.
        at: where it is kept, for errors.

    Returns:
        What the rule is to keep from now on.

    Raises:
        DualpropError: if the state does not fit, naming the place.
    """
    kept.load_state_dict(state)
    return kept


@saved.register
def _(kept: Tensor) -> Any:
    return kept.detach().clone()


@restored.register
def _(kept: Tensor, state: Any, at: str) -> Any:
    shape = tuple(state.shape) if isinstance(state, Tensor) else type(state).__name__
    if shape != tuple(kept.shape):
        raise DualpropError(f"{at}: {shape}, but it must be a tensor of shape {tuple(kept.shape)}")
    return state.detach().clone().to(kept)


@saved.register(int)
@saved.register(float)
@saved.register(str)
def _(kept: Any) -> Any:
    return kept


@restored.register(int)
@restored.register(float)
@restored.register(str)
def _(kept: Any, state: Any, at: str) -> Any:
    if type(state) is not type(kept) and (type(kept), type(state)) != (float, int):
        raise DualpropError(f"{at}: of type {type(state).__name__}, but it must be of type {type(kept).__name__}")
    return type(kept)(state)


@saved.register
def _(kept: list) -> Any:  # type: ignore[type-arg]  # the dispatch is by the bare class
    return [saved(item) for item in kept]


@restored.register
def _(kept: list, state: Any, at: str) -> Any:  # type: ignore[type-arg]
    if not isinstance(state, list | tuple) or len(state) != len(kept):
        count = len(state) if isinstance(state, list | tuple) else type(state).__name__
        raise DualpropError(f"{at}: {count}, but it must be a list of {len(kept)}")
    return [restored(*pair, f"{at}.{number}") for number, pair in enumerate(zip(kept, state, strict=True))]


@saved.register
def _(kept: dict) -> Any:  # type: ignore[type-arg]
    return {name: saved(item) for name, item in kept.items()}


@restored.register
def _(kept: dict, state: Any, at: str) -> Any:  # type: ignore[type-arg]
    if not isinstance(state, dict):
        raise DualpropError(f"{at}: of type {type(state).__name__}, but it must be of type dict")
    if set(state) != set(kept):
        raise DualpropError(f"{at}: holds {sorted(state)}, but this rule keeps {sorted(kept)}")
    return {name: restored(item, state[name], f"{at}.{name}") for name, item in kept.items()}


@saved.register
def _(kept: torch.Generator) -> Any:
    return kept.get_state()


@restored.register
def _(kept: torch.Generator, state: Any, at: str) -> Any:
    try:
        kept.set_state(state.cpu())
    except (RuntimeError, TypeError, AttributeError):
        raise DualpropError(f"{at}: not the state of a random generator") from None
    return kept


@saved.register
def _(kept: nn.Module) -> Any:
    return saved(dict(kept.state_dict()))


@restored.register
def _(kept: nn.Module, state: Any, at: str) -> Any:
    kept.load_state_dict(restored(dict(kept.state_dict()), state, at))
    return kept


@saved.register
def _(kept: torch.optim.Optimizer) -> Any:
    return _plain(kept.state_dict())


@restored.register
def _(kept: torch.optim.Optimizer, state: Any, at: str) -> Any:
    try:
        state = copy.deepcopy(state)
        kept.load_state_dict({**state, "state": {int(number): of_it for number, of_it in state["state"].items()}})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DualpropError(f"{at}: not the state of this optimizer ({reason})") from None
    return kept


def _plain(value: Any) -> Any:
    """A copy with names for keys and lists for tuples."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.clone() if isinstance(value, Tensor) else value
