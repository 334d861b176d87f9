"""What a rule's gradient is worth: its angles to back-propagation's and to the one it approximates, by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, overload

import torch
from torch import Tensor, nn

from dualprop.arguments import check, checked
from dualprop.errors import DivergenceError
from dualprop.nets.net import Inputs, Net
from dualprop.nets.synapses import buffers_kept, one_step, parameters_of
from dualprop.rules.backprop import Backprop
from dualprop.rules.base import Rule

if TYPE_CHECKING:  # torch's compiler comes along, which takes a second
    from dualprop.convert.alignment import ConvertedAlignment

ByLayer = tuple[float, ...]
Average = Callable[[Iterable[Tensor]], None]


class _ToBackprop(NamedTuple):
    """What `cosine, norm_ratio = alignment(...)` unpacks."""

    cosine: ByLayer | None
    norm_ratio: ByLayer | None


class Alignment(_ToBackprop):
    """A rule's gradient beside true ones, for layers 1..L (so index 0 is layer 1). It unpacks as the first two.

    Attributes:
        cosine: of the angle to back-propagation's, in [-1, 1]; all parameters of a layer that the rule trains
            taken together, those that layers share in each of them. None on a net with cycles.
        norm_ratio: norm of the rule's gradient divided by that of back-propagation's; None on a net with cycles.
        own: of the angle to the gradient that the rule approximates, that of the loss at its own prediction (see
            `Rule.reference`): back-propagation's for dp, recurrent back-propagation's for ep, hep and chl, and for
            all on a net with cycles. None where the rule knows none.
    """

    own: ByLayer | None

    def __new__(cls, cosine: ByLayer | None, norm_ratio: ByLayer | None, own: ByLayer | None = None) -> Alignment:
        """All three."""
        alignment = super().__new__(cls, cosine, norm_ratio)
        alignment.own = own
        return alignment

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, own={self.own!r})"


class _Aligns(Protocol):
    @overload
    def __call__(self, rule: Rule, /, x: Inputs, y: Inputs, average: Average | None = ...) -> Alignment: ...
    @overload
    def __call__(
        self, module: nn.Module, /, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any
    ) -> ConvertedAlignment: ...


def _of_modules_too(of_rule: Callable[..., Alignment]) -> _Aligns:
    """The same for a converted module, by what the first argument is."""
    either = singledispatch(of_rule)
    either.register(nn.Module)(alignment_of_module)
    return cast("_Aligns", either)


@checked
def alignment_of_module(module: nn.Module, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any) -> Any:
    """See `dualprop.convert.alignment.converted_alignment`."""
    from dualprop.convert.alignment import converted_alignment

    return converted_alignment(module, loss_fn, x, y)


@_of_modules_too
def alignment(rule: Rule, x: Inputs, y: Inputs, average: Average | None = None) -> Alignment:
    """Compare the gradient that `rule.backward(x, y)` would add with back-propagation's, and with the rule's own.

    Touches no `.grad`, no parameter and none of the rule's kept states. Feedback weights, which have no
    gradient under back-propagation, do not count. Given a converted module, a loss and a batch, as in
    `alignment(module, loss_fn, x, y)`, it compares that module's gradient: see `dualprop.convert.alignment`.

    Args:
        rule: a rule bound to a net.
        x: inputs, shape (B, ...).
        y: class indices (B,) or float targets of the output's shape.
        average: makes gradients, in place, the mean over several processes that hold a part of the batch each.

    Returns:
        The cosines and norm ratios; NaN where one of the gradients is zero, the layer is frozen, or the rule does
        not train it; also where the equilibrium at which the own gradient is defined is not found.

    Example:
        >>> import torch, dualprop as dp
        >>> rule = dp.DualProp(dp.nets.mlp([4, 8, 8, 3]), beta=0.01)
        >>> cosine, norm_ratio = alignment(rule, torch.randn(5, 4), torch.randint(3, (5,)))
        >>> len(cosine), min(cosine) > 0.99
        (3, True)
    """
    check("rule", rule, Rule)
    average = average or (lambda gradients: None)
    found = rule.gradients(x, y)
    average(found.values())
    layers, reference = _parameters_by_layer(rule.net), rule.reference()
    cosine = norm_ratio = own = None
    if not rule.net.wiring.cyclic:
        true = Backprop(rule.net, loss=rule.losses).gradients(x, y)
        average(true.values())
        cosine, norm_ratio = _compared(found, true, layers)
    if isinstance(reference, Backprop):
        own = cosine
    elif reference is not None:
        try:
            true = reference.gradients(x, y)
        except DivergenceError:
            true = {name: torch.full_like(gradient, math.nan) for name, gradient in found.items()}
        average(true.values())
        own, _ = _compared(found, true, layers)
    return Alignment(cosine, norm_ratio, own)


def _parameters_by_layer(net: Net) -> list[list[str]]:
    """The names of the parameters that each layer learns: those that layers share are in each of them."""
    named: dict[Tensor, str] = {parameter: name for name, parameter in net.named_parameters()}
    with buffers_kept(net), one_step(net.synapses):
        learnt = [[w for synapse in layer.synapses for w in synapse.learnt()] for layer in net.stack]
    return [list({named[p]: None for weight in own for p in parameters_of(weight)}) for own in learnt]


def _compared(
    found: Mapping[str, Tensor], true: Mapping[str, Tensor], layers: Sequence[Sequence[str]]
) -> tuple[ByLayer, ByLayer]:
    """Cosines and norm ratios of two gradients."""
    cosines, ratios = [], []
    for own in layers:
        names = [name for name in own if name in true and name in found]
        ours, theirs = (
            torch.cat([g[name].flatten().double() for name in names] or [torch.zeros(0)]) for g in (found, true)
        )
        norms = float(ours.norm()), float(theirs.norm())
        cosines.append(float(ours @ theirs) / (norms[0] * norms[1]) if all(norms) else float("nan"))
        ratios.append(norms[0] / norms[1] if norms[1] else float("nan"))
    return tuple(cosines), tuple(ratios)


def feedback_cosines(net: Net) -> tuple[float, ...]:
    """cos(B, W) of every layer that has feedback weights B of its own, from the input up; empty if none has.

    Under Kolen-Pollack learning with weight decay B - W decays geometrically and the cosines grow to 1.

    Example:
        >>> import dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 3], feedback="kolen-pollack")
        >>> synapse = net.chain[1].synapse
        >>> _ = synapse.feedback.data.copy_(2 * synapse.weight)
        >>> [round(cosine, 4) for cosine in feedback_cosines(net)]
        [1.0]
    """
    pairs = [[pair for synapse in layer.synapses for pair in synapse.feedback_pairs()] for layer in net.stack]
    flat = [
        [torch.cat([w.detach().flatten() for w in side]) for side in zip(*own, strict=True)]
        for own in pairs
        if own
    ]
    return tuple(float(torch.cosine_similarity(b, w, dim=0)) for w, b in flat)


def first_nonfinite(rule: Rule, x: Inputs, y: Inputs) -> str:
    """Where NaN or infinity comes in first, from the input up: "layer k (name of what)".

    Where parameters and states are all finite it can only be the loss, at the last layer.

    Args:
        rule: a rule bound to a net; its parameters are looked at first, then the states it infers.
        x: inputs, shape (B, ...).
        y: targets, as for `Rule.backward`.
    """
    for k, layer in enumerate(rule.net.stack, 1):
        for name, parameter in layer.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                return f"layer {k} ({name.removeprefix('synapse.')})"
    state = rule.infer(x, y)
    for k in range(1, len(rule.net) + 1):
        if not bool(torch.isfinite(state.plus[k]).all() and torch.isfinite(state.minus[k]).all()):
            return f"layer {k} (states)"
    return f"layer {len(rule.net)} (loss)"
