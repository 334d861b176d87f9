"""What a converted module's gradient is worth: its angle to back-propagation's, module by module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dualprop.convert._hooks import Part, part_of, root_of
from dualprop.convert._mode import Mode
from dualprop.errors import DualpropError


class ConvertedAlignment(NamedTuple):
    """A converted module's gradient beside back-propagation's.

    Attributes:
        cosine: cosine of the angle between the two, of each module's own parameters together, by its name; in
            [-1, 1], NaN where one of them is zero. Parameters that modules share are in each of them.
        norm_ratio: norm of the converted module's gradient divided by that of back-propagation's, likewise.
        total: the cosine of all parameters together.
    """

    cosine: dict[str, float]
    norm_ratio: dict[str, float]
    total: float


def converted_alignment(
    module: nn.Module, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any
) -> ConvertedAlignment:
    """Compare the gradient of a converted module with back-propagation's on the same batch.

    Touches no `.grad`, no parameter, buffer or hook; both passes draw the same random numbers. Feedback weights,
    which have no gradient under back-propagation, do not count.

    Args:
        module: a converted module, or one that holds it.
        loss_fn: from the module's output and y to the loss, a number.
        x: what the module takes; a tuple for several arguments, a mapping for named ones.
        y: what the loss compares the output with.

    Returns:
        Cosines and norm ratios of all modules with parameters that are trained.

    Raises:
        DualpropError: if the module is not converted, or no parameter of it gets a gradient.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.convert(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)))
        >>> loss = torch.nn.functional.cross_entropy
        >>> cosine, norm_ratio, total = dp.alignment(net, loss, torch.randn(5, 4), torch.arange(5) % 3)
        >>> list(cosine), total > 0.99
        (['0', '2'], True)
    """
    root = root_of(module)
    part = None if root is None else part_of(root)
    if root is None or part is None:
        raise DualpropError(f"module: this {type(module).__name__} is not converted")
    feedback = {m.feedback for m in root.modules() if (own := part_of(m)) is not None and own.feedback}
    every = dict(module.named_parameters(remove_duplicate=False))
    named = {p: name for name, p in every.items() if p.requires_grad and p not in feedback}
    ours = _gradients(module, loss_fn, x, y, named)
    with _ordinary(part, root):
        theirs = _gradients(module, loss_fn, x, y, named)
    if not theirs:
        raise DualpropError("module: no parameter gets a gradient from this loss")
    owners: dict[str, list[str]] = {}
    for name, p in every.items():
        if named.get(p) in theirs:
            owners.setdefault(name.rpartition(".")[0], []).append(named[p])
    pairs = {owner: (_flat(ours, names), _flat(theirs, names)) for owner, names in owners.items()}
    return ConvertedAlignment(
        {owner: _cosine(*pair) for owner, pair in pairs.items()},
        {owner: float(a.norm() / b.norm()) for owner, (a, b) in pairs.items()},
        _cosine(_flat(ours, list(theirs)), _flat(theirs, list(theirs))),
    )


def _ordinary(part: Part, module: nn.Module) -> Mode:
    """A mode in which the module is the ordinary one."""
    mode = Mode(part.conversion, None, None)
    mode.path.append((part, module))
    mode.excluded = 1
    return mode


def _gradients(
    module: nn.Module, loss_fn: Any, x: Any, y: Any, named: Mapping[nn.Parameter, str]
) -> dict[str, Tensor]:
    """The gradients by name, of those that get one; buffers and random states are left as they were."""
    args, kwargs = (x, {}) if isinstance(x, tuple) else ((), x) if isinstance(x, Mapping) else ((x,), {})
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    with torch.random.fork_rng(devices=sorted({p.device for p in named if p.device.type == "cuda"}, key=str)):
        loss = loss_fn(module(*args, **kwargs), y)
        grads = torch.autograd.grad(loss, list(named), allow_unused=True)
    with torch.no_grad():
        for buffer, before in kept:
            buffer.copy_(before)
    return {name: g.detach() for name, g in zip(named.values(), grads, strict=True) if g is not None}


def _flat(side: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([side[name].flatten().double().cpu() for name in names])


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))
