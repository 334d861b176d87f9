"""What runs while a converted module does: every call of a known activation sends finite differences back.

A mode is made by the call that comes first and ends with it; PyTorch keeps it for this thread alone. It knows the
batch of the call, which modules the call is inside of, and which tensors do not depend on the batch.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode

from dualprop.convert._checkpoints import keep_for_recomputation
from dualprop.convert._inspection import Inspection
from dualprop.convert.activations import CALLS, SIZED, TABLES, UNKNOWN, ZEROS, FiniteDifference
from dualprop.convert.batch import scaled_loss
from dualprop.convert.feedback import PRODUCTS, check_parameter
from dualprop.convert.record import REDUCTIONS, Conversion, Place
from dualprop.errors import DualpropError


class Mode(TorchFunctionMode):
    """One call of a converted module.

    Attributes:
        conversion: whose.
        path: the modules that the call is inside of just now, from the outermost one on, each with its place in
            the conversion.
        excluded: how many of them are excluded.
        divided_by: how the loss is weighted, as in `scaled_loss`.
        times: likewise.
        inspection: looks at what this call leaves ordinary, if it is the first one of its kind.
    """

    def __init__(self, conversion: Conversion, batch: Any, dim: int | None) -> None:
        super().__init__()
        self.conversion = conversion
        self.batch = batch
        self.dim = dim
        self.path: list[tuple[Place, nn.Module]] = []
        self.excluded = 0
        self.fixed: dict[Tensor, None] = {}
        self.zeros: dict[Tensor, None] = {}
        self.inspection: Inspection | None = None
        self.frame: FrameType | None = None
        self.divided_by: float | None = None
        self.times = 1.0
        for mode in _modes():
            if isinstance(mode, scaled_loss):
                self.divided_by, self.times = mode.divided_by, mode.times

    def again(self) -> Mode:
        """A mode for what is computed again, outside of this call and without anything that the call holds."""
        mode = Mode(self.conversion, None if self.batch is None else self.samples(), None)
        mode.path, mode.excluded = list(self.path), self.excluded
        mode.divided_by, mode.times = self.divided_by, self.times
        return mode

    def looking(self) -> Inspection | None:
        """The inspection, unless torch.compile looks, whose graphs are to hold for other calls."""
        return None if torch.compiler.is_compiling() else self.inspection

    def samples(self) -> int:
        """B of this call."""
        if self.batch is None:
            name = self.conversion.name
            raise DualpropError(f"{name}: no batch among its arguments, so the number of samples is not known")
        samples: int = self.batch if self.dim is None else self.batch.size(self.dim)
        return samples

    def strength(self, has_batch: bool) -> float:
        """s: what makes the incoming gradient of an activation its nudge.

        A gradient that comes to something without samples is a sum over all terms of the loss, of which there are
        no fewer than samples; its nudge is that of their mean.
        """
        unit = self.divided_by or REDUCTIONS[self.conversion.reduction](self.samples())
        strength = self.conversion.beta * unit / self.times
        return strength if has_batch else strength / max(self.divided_by or 1, self.samples())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = self._called(func, args, kwargs)
        if isinstance(out, Tensor):
            self._follow(func, args, kwargs, (out,))
        elif isinstance(out, list | tuple) and out and isinstance(out[0], Tensor):
            self._follow(func, args, kwargs, out)
        elif func is Tensor.__setitem__:
            self.zeros.pop(args[0], None)
            if self._on_batch(args[2:]):
                self.fixed.pop(args[0], None)
        if self.path and (inspection := self.looking()) is not None:
            inspection.called(self.path[-1][0], func, (args, kwargs), args[0] if out is None and args else out)
        return out

    def _called(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of a call, with the backward pass that it is to have."""
        if self.excluded or not torch.is_grad_enabled() or not self.path:
            return func(*args, **kwargs)
        part, module = self.path[-1]
        if part.feedback and func in PRODUCTS:
            check_parameter(part.name, module)
            return PRODUCTS[func](module, *args, **kwargs)
        activation = CALLS.get(func)
        call = None if activation is None else activation.read(args, kwargs, self.zeros)
        if call is None or not _learns(call.drive) or not _running(self.frame):
            if func in UNKNOWN:
                _warn_of_unknown(self.conversion, func.__name__, UNKNOWN[func], part.name)
            return func(*args, **kwargs)
        keep_for_recomputation(self)
        a, c = call.drive, self.conversion
        has_batch = self._on_batch((a,))
        _note(c, part.name, call.kind, has_batch)
        strength = self.strength(has_batch)
        drive = a.clone() if call.in_place else a
        arena = None if torch.compiler.is_compiling() else c.arena
        z = FiniteDifference.apply(drive, call.f, c.alpha, strength, call.settings, arena)
        if has_batch and (inspection := self.looking()) is not None:
            inspection.activation(part.name, call.kind, drive, z, self.samples(), strength)
        return a.copy_(z) if call.in_place else z

    def _follow(self, func: Any, args: Any, kwargs: Any, results: Iterable[Any]) -> None:
        """Keep in mind what is the same for every batch, computed from parameters and buffers alone; and zeros."""
        value = 0 if not ZEROS.get(func, True) else kwargs.get("data", args[-1] if args else None)
        zeros = func in ZEROS and isinstance(value, int | float) and value == 0
        on_batch = self._on_batch(args) or self._on_batch(kwargs.values())
        made = func not in TABLES and not _any_tensor((*args, *kwargs.values()))
        sized = not on_batch and (func in SIZED or made)
        for result in results:
            if not isinstance(result, Tensor):
                continue
            if zeros:
                self.zeros[result] = None
            elif result in self.zeros:
                del self.zeros[result]
            if not on_batch and not (sized and self._fits(result)):
                self.fixed[result] = None
            elif result in self.fixed:
                del self.fixed[result]

    def given(self, values: Iterable[Any]) -> None:
        """Keep in mind which parameters and buffers the module that runs gives to one of its submodules."""
        for value in values:
            if isinstance(value, Tensor) and self._registered(value):
                self.fixed[value] = None

    def _fits(self, t: Tensor) -> bool:
        """Whether a tensor made to some size has a dimension for the samples."""
        if self.batch is None or not t.dim():
            return False
        return t.size(0) % self.samples() == 0 or self.samples() in t.shape

    def _on_batch(self, values: Iterable[Any]) -> bool:
        """Whether any tensor among some values depends on the batch."""
        for value in values:
            if isinstance(value, Tensor):
                if not isinstance(value, nn.Parameter) and value not in self.fixed and not self._registered(value):
                    return True
            elif isinstance(value, list | tuple) and self._on_batch(value):
                return True
        return False

    def _registered(self, t: Tensor) -> bool:
        """Whether a tensor is a parameter or buffer of the module that runs."""
        if not self.path:
            return False
        module = self.path[-1][1]
        return any(t is own for own in (*module._parameters.values(), *module._buffers.values()))


def current(conversion: Conversion) -> Mode | None:
    """The mode of the call of a converted module that this thread is inside of."""
    for mode in reversed(_modes()):
        if isinstance(mode, Mode) and mode.conversion is conversion:
            return mode
    return None


def begin(mode: Mode) -> None:
    """Put a mode in force in this thread.

    The conversion refers to it meanwhile, from where torch.compile takes it again after a break of its graph.
    """
    mode.conversion.entered = mode
    _push_mode(mode)  # type: ignore[no-untyped-call]


def end(mode: Mode) -> None:
    """End the mode that began last."""
    mode.conversion.entered = None
    _pop_mode()  # type: ignore[no-untyped-call]


def drop_interrupted() -> None:
    """End the modes of calls that were left without a word, as an interrupt from the keyboard does."""
    while (stack := _modes()) and isinstance(stack[-1], Mode):
        if _running(stack[-1].frame):
            return
        end(stack[-1])


def _modes() -> list[TorchFunctionMode]:
    """The modes in force in this thread, the innermost one last."""
    modes: list[TorchFunctionMode] = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return modes


def _running(frame: FrameType | None) -> bool:
    """Whether a frame is one of those that this thread is inside of; torch.compile has none."""
    if frame is None or torch.compiler.is_compiling():
        return True
    here: FrameType | None = sys._getframe()
    while here is not None and here is not frame:
        here = here.f_back
    return here is not None


def _learns(a: Any) -> bool:
    """Whether anything goes back through a drive."""
    return isinstance(a, Tensor) and a.requires_grad and a.is_floating_point()


def _any_tensor(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, Tensor) or (isinstance(value, list | tuple) and _any_tensor(value)):
            return True
    return False


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _note(conversion: Conversion, name: str, kind: str, has_batch: bool) -> bool:
    """Note an activation that was met; torch.compile does so too, when it sees the call."""
    conversion.meets(name, kind, has_batch)
    return True


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _warn_of_unknown(conversion: Conversion, function: str, kind: str, name: str) -> bool:
    """Warn once of an unknown function; torch.compile does so too, when it sees the call."""
    if kind not in conversion.warned:
        conversion.warned.add(kind)
        where = ", ".join(conversion.unknown.get(function, [name or conversion.name]))
        said = f"{where}: `{function}` is not known to `convert`; it keeps its ordinary derivative"
        warnings.warn(said, stacklevel=2)
    return True
