"""What a rule keeps from batch to batch, written as plain containers and taken back from them.

A rule may keep tensors, numbers, words, random generators, modules, optimizers, whatever else has `state_dict` and
`load_state_dict`, and lists and dictionaries of these. What is written holds tensors, numbers, words and None, in
lists and in dictionaries by name, as checkpoints do. What is taken back has the shapes, types and layouts of what
is kept: nothing of them is taken from what was written.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
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
    if not isinstance(state, Tensor) or state.shape != kept.shape or state.dtype != kept.dtype:
        raise DualpropError(f"{at}: {_described(state)}, but it must be {_described(kept)}")
    return torch.empty_like(kept, requires_grad=False).copy_(state)


@saved.register(int)
@saved.register(float)
@saved.register(str)
@saved.register(type(None))
def _(kept: Any) -> Any:
    return kept


@restored.register(int)
@restored.register(float)
@restored.register(str)
@restored.register(type(None))
def _(kept: Any, state: Any, at: str) -> Any:
    if type(state) is not type(kept) and (type(kept), type(state)) != (float, int):
        raise DualpropError(f"{at}: of type {type(state).__name__}, but it must be of type {type(kept).__name__}")
    return state if kept is None else type(kept)(state)


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
        raise DualpropError(f"{at}: holds {sorted(map(str, state))}, but it must hold {sorted(kept)}")
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
    """The learning rate of every group, and what is known of every parameter; all else is as it was made."""
    known = kept.state
    return {
        "lr": [float(group["lr"]) for group in kept.param_groups],
        "state": [saved(dict(known[p])) if p in known else {} for p in _parameters(kept)],
    }


@restored.register
def _(kept: torch.optim.Optimizer, state: Any, at: str) -> Any:
    parameters = _parameters(kept)
    known = [dict(kept.state.get(p, {})) for p in parameters]
    written = state.get("state") if isinstance(state, dict) else None
    if isinstance(written, list) and len(written) == len(known):
        if any(of_it and not own for own, of_it in zip(known, written, strict=True)):
            known = [own or made for own, made in zip(known, _after_a_step(kept), strict=True)]
        known = [own if of_it else {} for own, of_it in zip(known, written, strict=True)]
    rates = [float(group["lr"]) for group in kept.param_groups]
    fitting = restored({"lr": rates, "state": known}, state, at)
    for number, of_it in enumerate(fitting["state"]):
        for name in NOT_NEGATIVE & of_it.keys():
            if bool((torch.as_tensor(of_it[name]) < 0).any()):
                raise DualpropError(f"{at}.state.{number}.{name}: below 0")
    for group, lr in zip(kept.param_groups, fitting["lr"], strict=True):
        if not 0 <= lr < math.inf:
            raise DualpropError(f"{at}.lr: {lr}, but it must be a finite number of at least 0")
        group["lr"] = lr
    for p, of_it in zip(parameters, fitting["state"], strict=True):
        kept.state[p] = of_it
    return kept


def astray(state: Any, at: str = "") -> Iterator[str]:
    """The places of numbers that are NaN or infinite in what `saved` gave.

    Example:
        >>> list(astray({"a": [1.0, math.nan], "b": torch.tensor([1.0, math.inf])}))
        ['a.1', 'b']
    """
    if isinstance(state, dict | list):
        for name, item in state.items() if isinstance(state, dict) else enumerate(state):
            yield from astray(item, f"{at}.{name}" if at else str(name))
    elif isinstance(state, Tensor | float) and not bool(torch.isfinite(torch.as_tensor(state)).all()):
        yield at


NOT_NEGATIVE = {"step", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "exp_inf"}
"""What the optimizers of PyTorch count and what they sum squares in, by name."""


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _after_a_step(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What it will know of every parameter: of what shapes and types, not of what values."""
    twin = copy.deepcopy(optimizer)
    for p in _parameters(twin):
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    twin.step()
    return [dict(twin.state.get(p, {})) for p in _parameters(twin)]


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    return f"of type {type(value).__name__}"
