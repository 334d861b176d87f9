"""What every module of a converted one gets: two hooks, which follow the calls. Nothing else of it changes."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.utils.hooks import RemovableHandle

from dualprop.convert._checkpoints import keep_for_recomputation
from dualprop.convert._inspection import Inspection
from dualprop.convert._mode import Mode, begin, current, drop_interrupted, end
from dualprop.convert.batch import check_learnable, counted, first_tensor
from dualprop.convert.feedback import follow_hooks
from dualprop.convert.record import Conversion, Place
from dualprop.errors import DualpropError

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
_KEPT = "_user_preserved_attributes"  # under this name in its meta, what a copy of a torch.fx.GraphModule keeps


class Part(Place):
    """A module's part in a conversion: its hooks, which copies and pickles keep.

    Attributes:
        positions: where the arguments of its forward stand, by name.
    """

    def __init__(
        self, conversion: Conversion, name: str, module: nn.Module, *, excluded: bool, feedback: bool
    ) -> None:
        super().__init__(conversion, name, type(module).__name__, excluded=excluded, feedback=feedback)
        self.positions = {name: k for k, name in enumerate(_arguments(type(module).forward))}
        self.handles: tuple[RemovableHandle, ...] = (
            module.register_forward_pre_hook(self.enter, prepend=True, with_kwargs=True),
            module.register_forward_hook(self.leave, prepend=True, with_kwargs=True, always_call=True),
        )
        self.traced = isinstance(module, GraphModule)
        if isinstance(module, GraphModule):
            module.meta.setdefault(_KEPT, {}).update({name: getattr(module, name) for name in _HOOKS})

    def remove(self, module: nn.Module) -> None:
        """Take the hooks away."""
        for handle in self.handles:
            handle.remove()
        if isinstance(module, GraphModule):
            kept = module.meta.pop(_KEPT)
            if rest := {name: value for name, value in kept.items() if name not in _HOOKS}:
                module.meta[_KEPT] = rest

    def __deepcopy__(self, memo: dict[int, Any]) -> Part:
        made = memo[id(self)] = object.__new__(Part)
        made.__dict__.update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return made

    def __getstate__(self) -> dict[str, Any]:
        if self.traced:
            raise DualpropError(f"module: {self.name or self.kind}: pickled, a GraphModule loses its hooks")
        return vars(self)

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the module's forward: a mode begins if this call is the outermost one.

        What is traced to be used elsewhere is traced as the ordinary module.
        """
        if torch._C._get_tracing_state() is not None or torch.compiler.is_exporting():
            return
        compiling = torch.compiler.is_compiling()
        if not compiling:
            drop_interrupted()
        mode = current(self.conversion)
        if mode is None:
            mode = self._first(args, kwargs, compiling)
            mode.fixed.update(dict.fromkeys(module.buffers()))
            begin(mode)
            if not compiling:
                mode.frame = sys._getframe(1)
        elif torch.is_grad_enabled():
            keep_for_recomputation(mode)
        if self.feedback and not compiling:
            follow_hooks(module)
        mode.given((*args, *kwargs.values()))
        mode.path.append((self, module))
        mode.excluded += self.excluded
        inspection = mode.looking()
        if inspection is not None:
            inspection.entered(len(mode.path), (args, kwargs))

    def leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        # torch.jit.script fails here and shows this line: give it dualprop.unconvert(copy.deepcopy(model))
        """After the module's forward, even where it has failed: the mode ends with the outermost call."""
        mode = current(self.conversion)
        if mode is None or not mode.path or mode.path[-1][0] is not self:
            return
        inspection = mode.looking()
        if inspection is not None:
            inspection.left(self, output, len(mode.path))
        mode.path.pop()
        mode.excluded -= self.excluded
        if not mode.path:
            end(mode)

    def _first(self, args: tuple[Any, ...], kwargs: dict[str, Any], compiling: bool) -> Mode:
        """The mode of a call that comes from outside.

        What is computed again for a backward pass keeps the samples and weights of the forward pass before.
        """
        c = self.conversion
        learning = torch.is_grad_enabled()
        if not compiling and torch._C._current_graph_task_id() != -1:
            mode = Mode(c, c.samples, None)
            mode.divided_by, mode.times = c.weights
            return mode
        if c.batch is None and first_tensor((args, kwargs)) is None:
            return Mode(c, None, None)  # refused where it is asked for
        batch, dim = counted(c.batch, self.name or self.kind, self.positions, args, kwargs)
        mode = Mode(c, batch, dim)
        if not compiling and learning:
            check_learnable(mode.samples(), (args, kwargs))
            c.arena.begin()
            c.samples, c.weights = mode.samples(), (mode.divided_by, mode.times)
            if self.name not in c.passed:
                guessed = c.batch is None and dim is not None
                name = self.name or self.kind
                mode.inspection = Inspection(c, name, (args, kwargs), mode.samples(), guessed=guessed)
        return mode


def part_of(module: nn.Module) -> Part | None:
    """A module's part in a conversion, if it has one."""
    hooks = (getattr(hook, "__self__", None) for hook in module._forward_pre_hooks.values())
    return next((owner for owner in hooks if isinstance(owner, Part)), None)


def root_of(module: nn.Module) -> nn.Module | None:
    """The converted module that a module is, is a part of, or holds, as one that torch.compile has wrapped does.

    Raises:
        DualpropError: if it holds several.
    """
    if part_of(module) is not None:
        return module
    found = [m for m in module.modules() if (part := part_of(m)) is not None and not part.name]
    if len(found) > 1:
        names = ", ".join(name for name, m in module.named_modules() if m in found)
        raise DualpropError(f"module: {type(module).__name__} holds several converted ones: {names}")
    return found[0] if found else None


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that torch.compile has put its wrapper around, whose own calls count; any other one as it is."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None or not isinstance(module, dynamo.OptimizedModule):
        return module
    inside: nn.Module = module._orig_mod
    return inside


def _arguments(forward: Callable[..., Any]) -> tuple[str, ...]:
    code = getattr(forward, "__code__", None)
    return () if code is None else code.co_varnames[1 : code.co_argcount]
