"""The first forward pass to learn from, looked at closely: what it left ordinary, and whether B fits.

What sends an ordinary derivative back stands in the graph that autograd made, however it came there: by a function
that `convert` does not know, by a scripted one or by an `autograd.Function` of its own.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from dualprop.convert.batch import disagreement, is_wrapped, tensors_in
from dualprop.convert.record import Conversion, Place

_NAMES = ("gt", "ge", "lt", "le", "greater", "greater_equal", "less", "less_equal")

ORDINARY = {
    "ReluBackward0": "ReLU",
    "LeakyReluBackward0": "LeakyReLU",
    "HardtanhBackward0": "Hardtanh",
    "HardsigmoidBackward0": "Hardsigmoid",
    "HardswishBackward0": "Hardswish",
    "SigmoidBackward0": "Sigmoid",
    "TanhBackward0": "Tanh",
    "SiluBackward0": "SiLU",
    "GeluBackward0": "GELU",
    "EluBackward0": "ELU",
    "SoftplusBackward0": "Softplus",
    "CeluBackward0": "CELU",
    "MishBackward0": "Mish",
    "PreluKernelBackward0": "PReLU",
    "RreluWithNoiseBackward0": "RReLU",
    "GluBackward0": "GLU",
    "LogSigmoidBackward0": "LogSigmoid",
    "HardshrinkBackward0": "Hardshrink",
    "SoftshrinkBackward0": "Softshrink",
    "ThresholdBackward0": "Threshold",
    "ClampBackward0": "clamp",
    "ClampBackward1": "clamp",
    "ClampMinBackward0": "clamp",
    "ClampMaxBackward0": "clamp",
    "MaximumBackward0": "maximum",
    "MinimumBackward0": "minimum",
    "FmaxBackward0": "maximum",
    "FminBackward0": "minimum",
    "AbsBackward0": "abs",
    "AtanBackward0": "atan",
    "CosBackward0": "cos",
    "ErfBackward0": "erf",
    "ExpBackward0": "exp",
    "LogaddexpBackward0": "logaddexp",
    "SinBackward0": "sin",
}
"""The nodes of autograd's graph that are activations with their ordinary derivative, or may be."""

COMPARISONS = frozenset(
    getattr(place, name)
    for place in (torch, Tensor)
    for name in (*(f"{each}" for each in _NAMES), *(f"__{each}__" for each in _NAMES), "sign", "signbit", "sgn")
    if hasattr(place, name)
)
"""The functions that say on which side of something a number is."""

ROUNDINGS = 10
"""Nudges below this many rounding errors of their drives are warned of."""


_LARGER = "take a larger beta, or say by `dualprop.scaled_loss` what the loss is divided by"
_SAY = "say where B comes from: convert(..., batch=...)"


class Inspection:
    """One forward pass of a converted module and the backward pass after it."""

    def __init__(self, conversion: Conversion, name: str, arguments: Any, samples: int, *, guessed: bool) -> None:
        self.conversion = conversion
        self.name = name
        self.seen: set[Any] = set()
        self.inputs: dict[int, set[Any]] = {}  # by how many modules the call is inside of
        self.compared: dict[Tensor, None] = {}
        self.guessed = guessed
        if guessed and (why := disagreement(arguments, samples)):
            self._warn("batch", f"{name}: B = {samples}, of the first tensor, but {why}; {_SAY}")

    def entered(self, depth: int, arguments: Any) -> None:
        """Before a module runs: where the graph of what it will compute begins."""
        self.inputs[depth] = {t.grad_fn for t in tensors_in(arguments)}

    def called(self, part: Place, func: Any, arguments: Any, out: Any) -> None:
        """After a function: whether a comparison decides what it lets through, as in an activation by hand.

        It may be the very result of a comparison of what learns, or something that was made of one.
        """
        given, results = list(tensors_in(arguments)), list(tensors_in((out,)))
        new = func in COMPARISONS and any(t.requires_grad for t in given)
        if not new and not any(t in self.compared for t in given):
            return
        if func in COMPARISONS or not any(t.requires_grad for t in results):
            self.compared.update(dict.fromkeys(results))
        elif not part.excluded:
            what = f"{func.__name__.strip('_')} (by a comparison, ordinary derivative)"
            self.conversion.leaves(part.name, what)
            self._warn(what, f"{part.name or self.name}: `{what}`: an activation that `convert` does not know")

    def activation(self, name: str, kind: str, drive: Tensor, z: Tensor, samples: int, strength: float) -> None:
        """A converted activation: whether its drive fits B, and in the backward pass whether its nudges count."""
        where = f"{name or self.name} ({kind})"
        if drive.is_nested:  # it has no one shape
            return
        if self.guessed and not (drive.size(0) % samples == 0 or samples in drive.shape):
            shape = tuple(drive.shape)
            self._warn("batch", f"{where}: a drive of shape {shape} has no dimension for B = {samples}; {_SAY}")
        if is_wrapped(z):
            return
        rounding = torch.finfo(torch.promote_types(drive.dtype, torch.float32)).eps
        size = float(drive.detach().norm())

        def look(g: Tensor) -> None:
            nudge = strength * float(g.norm())
            if 0 < nudge < ROUNDINGS * rounding * size:
                told = f"{where}: nudges of {nudge / size:.1g} of the drives, whose rounding is {rounding:.1g}"
                self._warn("rounding", f"{told}: this is back-propagation; {_LARGER}")

        z.register_hook(look)  # type: ignore[no-untyped-call]

    def left(self, part: Place, output: Any, depth: int) -> None:
        """After a module has run: what of the graph that it has made keeps its ordinary derivative."""
        if (inputs := self.inputs.pop(depth, None)) is None:  # torch.compile saw it begin
            return
        nodes = _between(inputs, {t.grad_fn for t in tensors_in((output,))})
        for node in nodes - self.seen:
            what = _ordinary(node)
            if what and not part.excluded:
                self.conversion.leaves(part.name, what)
                if "(own" in what or "(scripted" in what:
                    self._warn(what, f"{part.name or self.name}: `{what}` keeps its ordinary derivative")
        self.seen |= nodes
        if depth == 1:
            self.conversion.passed.add(part.name)
            again = any("CheckpointFunction" in node.name() for node in nodes)  # what it meets comes later
            if not part.name and nodes and not self.conversion.met and not again:
                self._warn("nothing", f"{self.name}: its forward pass met no activation to convert")

    def _warn(self, of: str, text: str) -> None:
        """Once of each matter."""
        if of not in self.conversion.warned:
            self.conversion.warned.add(of)
            warnings.warn(text, stacklevel=2)


def _between(inputs: set[Any], outputs: set[Any]) -> set[Any]:
    """The nodes of the graph from the outputs down to the inputs, without these."""
    found: set[Any] = set()
    todo = list(outputs - inputs)
    while todo:
        node = todo.pop()
        if node is None or node in found or node in inputs:
            continue
        found.add(node)
        todo += [before for before, _ in node.next_functions]
    return found


def _ordinary(node: Any) -> str | None:
    """What kind of activation with its ordinary derivative a node is, if it is one."""
    if kind := ORDINARY.get(node.name()):
        return f"{kind} (ordinary derivative)"
    if "DifferentiableGraph" in node.name():
        return "a function (scripted)"
    function = getattr(type(node), "_forward_cls", None)
    if function is None or function.__module__.startswith(("torch.", "dualprop.")):
        return None
    return f"{function.__name__} (own autograd function)"
