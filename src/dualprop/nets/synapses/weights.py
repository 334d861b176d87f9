"""The weights of a net as one step of a rule reads them: each is computed once, and gets its gradient once.

A weight is a parameter, or computed from parameters: by `torch.nn.utils.parametrize`, or by a hook of
`torch.nn.utils`, as pruning does. Drive, feedback and gradient see the same one. Its gradient goes on to the
parameters by a vector-Jacobian product that spans this computation alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from dualprop.errors import DualpropError
from dualprop.nets.kernels.arena import converted

if TYPE_CHECKING:
    from dualprop.nets.synapses.base import Synapse

_COMPUTING = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
"""The forward pre-hooks that compute a weight from parameters."""


class Weights:
    """The weights of some edges during one step.

    Args:
        synapses: one for each edge; the same one twice where two edges are tied.
    """

    def __init__(self, synapses: Iterable[Synapse]) -> None:
        self._synapses = list(synapses)
        self._held = {part for synapse in self._synapses for part in synapse.parts}
        self._tokens: list[Token[Weights | None]] = []
        self._computed: dict[tuple[nn.Module, str], Tensor] = {}
        self._in_type: dict[tuple[nn.Module, str, torch.dtype], Tensor] = {}
        self._left: dict[int, int] = {}  # gradients still to come, by the weight's id
        self._followers: dict[int, list[Tensor]] = {}
        self._sums: dict[int, tuple[Tensor, Tensor]] = {}
        self._learns = False
        self._buffers: dict[nn.Module, list[_Kept]] = {}
        self._moved: list[_Kept] = []
        for part in self._held:
            if part._forward_pre_hooks:
                for hook in part._forward_pre_hooks.values():
                    if (name := _computed_by(hook)) is not None:
                        self.of(part, name)  # before the synapse is called as a module, where the hook acts again

    def __enter__(self) -> Weights:
        """The step begins, or a part of it."""
        self._tokens.append(_STEP.set(self))
        if len(self._tokens) == 1:
            torch.clear_autocast_cache()  # an optimizer may have changed the weights inside one autocast context
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """The step ends, if this is not a part of it."""
        try:
            if len(self._tokens) == 1 and kind is None:
                self.finish()
        finally:
            _STEP.reset(self._tokens.pop())
            if not self._tokens:
                torch.clear_autocast_cache()  # the weights' low-precision copies have served

    def holds(self, synapses: Iterable[Synapse]) -> bool:
        """Whether these are among its own."""
        return self._held.issuperset(synapses)

    def __contains__(self, synapse: Synapse) -> bool:
        """Whether this is among its own."""
        return synapse in self._held

    def of(self, synapse: Synapse, name: str) -> Any:
        """A weight by the name that its synapse has for it, None where it has none."""
        if name in synapse._parameters:
            return synapse._parameters[name]
        if synapse not in self._held:
            return getattr(synapse, name)
        key = synapse, name
        if key not in self._computed:
            self._computed[key] = _compute(synapse, name)
            self._moved += _kept(synapse.buffers())
        return self._computed[key]

    def in_type(self, synapse: Synapse, name: str, dtype: torch.dtype) -> Tensor:
        """A weight in a type; converted once."""
        weight: Tensor = self.of(synapse, name)
        if synapse not in self._held:
            return weight.to(dtype)
        key = synapse, name, dtype
        if key not in self._in_type:
            self._in_type[key] = converted(weight, dtype)
        return self._in_type[key]

    def release(self, synapse: Synapse) -> None:
        """Forget a synapse's weights in other types: it learns, and they may change."""
        if not self._in_type:
            return
        for key in [key for key in self._in_type if key[0] is synapse]:
            del self._in_type[key]

    def run(self, module: nn.Module, z: Tensor) -> Tensor:
        """module(z), from the same buffers at every call, so that spectral norm's vectors move once."""
        if module in self._buffers:
            _put_back(self._buffers[module])
        else:
            self._buffers[module] = _kept(module.buffers())
        made: Tensor = module(z)
        return made

    def add(self, weight: Tensor, gradient: Tensor) -> None:
        """Take a gradient by a weight; it goes on once those of all edges that learn this weight have come."""
        if not self._learns:
            self._expect()
        gradient = converted(gradient, weight.dtype)
        key = id(weight)
        if key in self._sums:
            gradient = self._sums.pop(key)[1] + gradient
        left = self._left.get(key, 1) - 1
        if left > 0:
            self._left[key], self._sums[key] = left, (weight, gradient)
        else:
            self._pass_on(weight, gradient)

    def finish(self) -> None:
        """The step ends: gradients that wait for others wait no longer, and what was moved twice moves back."""
        while self._sums:
            first = min(self._sums, key=lambda key: self._sums[key][0].is_leaf)
            self._pass_on(*self._sums.pop(first))
        for (synapse, name), weight in self._computed.items():
            if name in vars(synapse):  # with its graph, no copy of the synapse could be made
                setattr(synapse, name, weight.detach())
        _put_back(self._moved)

    def _expect(self) -> None:
        """See which weights will get a gradient from several edges, and which others follow one."""
        self._learns = True
        coming = list[Tensor]()
        for synapse in self._synapses:
            coming += synapse.learnt()
            for weight, follower in synapse.followers():
                followers = self._followers.setdefault(id(weight), [])
                if all(follower is not other for other in followers):
                    followers.append(follower)
                    coming.append(follower)
        computed = {id(weight): weight for weight in coming if not weight.is_leaf}
        for weight in computed.values():
            coming += parameters_of(weight)
        keys = [id(weight) for weight in coming]
        if len(set(keys)) < len(keys):
            self._left = {key: count for key, count in Counter(keys).items() if count > 1}

    def _pass_on(self, weight: Tensor, gradient: Tensor) -> None:
        """A weight's gradient: to the parameter that it is and its followers, or to those that it is made of."""
        if not weight.is_leaf:
            parameters = parameters_of(weight)
            parts = gradients_by(parameters, weight, gradient, retain_graph=True)
            for parameter, part in zip(parameters, parts, strict=True):
                if part is not None:
                    self.add(parameter, part)
            return
        if weight._backward_hooks:
            gradient = _hooked(weight, gradient)
        for follower in self._followers.get(id(weight), ()):
            self.add(follower, converted(gradient, follower.dtype, copy=True))  # clipping scales them in place
        if weight.requires_grad:
            _accumulate(weight, gradient)
        elif not isinstance(weight, nn.Parameter):
            raise DualpropError(
                f"weight: of shape {tuple(weight.shape)}, computed without autograd's graph, so that nothing "
                "that it is made of can learn; compute it under torch.enable_grad"
            )


_STEP: ContextVar[Weights | None] = ContextVar("step", default=None)


def current() -> Weights | None:
    """The step that this thread is in; torch.compile knows of none."""
    return None if torch.compiler.is_compiling() else _STEP.get()


def one_step(synapses: Iterable[Synapse]) -> Weights:
    """One step of a rule on these edges, a context: their weights are read once, whatever is computed from them.

    Example:
        >>> import torch, dualprop as dp
        >>> dense = torch.nn.utils.parametrizations.spectral_norm(dp.Dense(4, 3))
        >>> with one_step([dense]) as weights:
        ...     weights.of(dense, "weight") is weights.of(dense, "weight")
        True
    """
    return Weights(synapses)


def frozen_weights(synapses: Iterable[Synapse]) -> Weights:
    """An inference, in which weights do not change: part of the step that these edges are in, or its own step."""
    held, step = list(synapses), _STEP.get()
    return Weights(held) if step is None or not step.holds(held) else step


def accumulate(weight: Tensor, gradient: Tensor) -> None:
    """Add `gradient` to the `.grad` of a parameter, or of those that a weight is made of, as autograd does.

    The parameter's hooks are called, once a step with the sum over all edges that share it. So
    `register_post_accumulate_grad_hook` can update and free a parameter's gradient as soon as it is there, before
    those of the layers below are computed.
    """
    (current() or Weights(())).add(weight, gradient)


def gradients_by(
    parameters: Sequence[Tensor], made: Tensor, gradient: Tensor, *, retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """The vector-Jacobian products of what is made of parameters, None for one that it is not made of.

    Their hooks are not called: `accumulate` does that, with the sum over all edges.
    """
    with without_hooks(parameters, "_backward_hooks"):
        return torch.autograd.grad(made, parameters, gradient, retain_graph=retain_graph, allow_unused=True)


@contextmanager
def without_hooks(parameters: Iterable[Tensor], *kinds: str) -> Iterator[None]:
    """Autograd calls no hooks of these kinds meanwhile.

    Args:
        parameters: whose.
        kinds: "_backward_hooks", those of `register_hook`, or "_post_accumulate_grad_hooks".
    """
    found = [hooks for parameter in parameters for kind in kinds if (hooks := getattr(parameter, kind))]
    kept = [(hooks, dict(hooks)) for hooks in found]
    for hooks in found:
        hooks.clear()  # the very dictionary that autograd reads
    try:
        yield
    finally:
        for hooks, before in kept:
            hooks.update(before)


def run(module: nn.Module, z: Tensor) -> Tensor:
    """module(z), in a step as `Weights.run`."""
    step = current()
    made: Tensor = module(z) if step is None else step.run(module, z)
    return made


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Puts a module's buffers back afterwards: what runs meanwhile moves none of spectral norm's vectors."""
    kept = _kept(module.buffers())
    try:
        yield
    finally:
        _put_back(kept)


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has hooks, apart from those that compute its weights."""
    if module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
        return True
    before = module._forward_pre_hooks
    return bool(before) and any(_computed_by(hook) is None for hook in before.values())


def is_computed(module: nn.Module) -> bool:
    """Whether a module has a weight that is computed from parameters."""
    return is_parametrized(module) or any(map(_computed_by, module._forward_pre_hooks.values()))


def is_pruned(module: nn.Module, name: str) -> bool:
    """Whether a weight is a mask times a parameter."""
    hooks = module._forward_pre_hooks.values()
    return any(isinstance(hook, prune.BasePruningMethod) and _computed_by(hook) == name for hook in hooks)


def parameters_of(weight: Tensor) -> list[Tensor]:
    """The parameters that a weight is made of, the leaves of autograd's graph; itself if it is one."""
    if weight.is_leaf:
        return [weight]
    found: dict[Tensor, None] = {}
    seen, todo = set[Any](), [weight.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found[leaf] = None
        todo += [before for before, _ in node.next_functions]
    return list(found)


@torch.enable_grad()
def _compute(synapse: nn.Module, name: str) -> Tensor:
    """A weight from the parameters that it is made of, with autograd's graph."""
    if not is_parametrized(synapse, name):
        hooks = [hook for hook in synapse._forward_pre_hooks.values() if _computed_by(hook) == name]
        if not hooks:
            raise DualpropError(
                f"net: the {name} of a {type(synapse).__name__} is no parameter, and nothing of torch.nn.utils "
                "makes it of parameters"
            )
        for hook in hooks:
            hook(synapse, ())
    weight: Tensor = getattr(synapse, name)
    return weight


def _computed_by(hook: Any) -> str | None:
    """The name of the weight that a forward pre-hook computes, if it does."""
    if not isinstance(hook, _COMPUTING):
        return None
    name: str = hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name
    return name


class _Kept:
    """A buffer as it was."""

    def __init__(self, buffer: Tensor) -> None:
        self.buffer, self.value, self.version = buffer, buffer.clone(), buffer._version


def _kept(buffers: Iterable[Tensor]) -> list[_Kept]:
    return [_Kept(buffer) for buffer in buffers]


@torch.no_grad()
def _put_back(kept: Iterable[_Kept]) -> None:
    for each in kept:
        if each.buffer._version != each.version:
            each.buffer.copy_(each.value)
            each.version = each.buffer._version


def _hooked(parameter: Tensor, gradient: Tensor) -> Tensor:
    """A gradient as the parameter's hooks make it."""
    for hook in list((parameter._backward_hooks or {}).values()):
        made = hook(gradient)
        gradient = gradient if made is None else made
    return gradient


def add_to_grad(parameter: Tensor, gradient: Tensor) -> None:
    """Add to `.grad`; where there is none this becomes it, and has to lie in memory as the parameter does."""
    grad = parameter.grad
    if grad is None:
        parameter.grad = gradient
    else:
        grad.add_(gradient)


def _accumulate(parameter: Tensor, gradient: Tensor) -> None:
    """Add to `.grad`, and call the hooks for that."""
    if gradient.stride() != parameter.stride():  # fused optimizers read both as they lie in memory
        gradient = torch.empty_like(parameter).copy_(gradient)
    add_to_grad(parameter, gradient)
    if parameter._post_accumulate_grad_hooks:
        for hook in list(parameter._post_accumulate_grad_hooks.values()):
            hook(parameter)
