"""What a rule's gradient is worth: its angle to back-propagation's, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dualprop.convert.alignment import converted_alignment
from dualprop.nets.net import Net
from dualprop.rules.backprop import Backprop
from dualprop.rules.base import Rule


class Alignment(NamedTuple):
    """A rule's gradient beside back-propagation's, for layers 1..L (so index 0 is layer 1).

    Attributes:
        cosine: cosine of the angle between the two, in [-1, 1]; all parameters of a layer that the rule trains
            taken together.
        norm_ratio: norm of the rule's gradient divided by that of back-propagation's.
    """

    cosine: tuple[float, ...]
    norm_ratio: tuple[float, ...]


@singledispatch
def alignment(
    rule: Rule, x: Tensor, y: Tensor, average: Callable[[Iterable[Tensor]], None] = lambda gradients: None
) -> Alignment:
    """Compare the gradient that `rule.backward(x, y)` would add with back-propagation's.

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
        not train it.

    Example:
        >>> import torch, dualprop as dp
        >>> rule = dp.DualProp(dp.nets.mlp([4, 8, 8, 3]), beta=0.01)
        >>> cosine, norm_ratio = alignment(rule, torch.randn(5, 4), torch.randint(3, (5,)))
        >>> len(cosine), min(cosine) > 0.99
        (3, True)
    """
    own = rule.gradients(x, y)
    true = Backprop(rule.net, loss=rule.loss).gradients(x, y)
    for gradients in (own, true):
        average(gradients.values())
    cosines, ratios = [], []
    for k in range(len(rule.net)):
        names = [name for name in true if name.startswith(f"layers.{k}.") and name in own]
        ours, theirs = (torch.cat([x.new_zeros(0), *(g[name].flatten() for name in names)]) for g in (own, true))
        ours, theirs = ours.double(), theirs.double()
        norms = float(ours.norm()), float(theirs.norm())
        cosines.append(float(ours @ theirs) / (norms[0] * norms[1]) if all(norms) else float("nan"))
        ratios.append(norms[0] / norms[1] if norms[1] else float("nan"))
    return Alignment(tuple(cosines), tuple(ratios))


alignment.register(nn.Module, converted_alignment)  # type: ignore[arg-type]


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


def first_nonfinite(rule: Rule, x: Tensor, y: Tensor) -> str:
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
