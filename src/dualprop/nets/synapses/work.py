"""What a module's products cost, measured once for each shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dualprop.nets.counting import Kind, Work, listeners, report, report_forward
from dualprop.nets.synapses.weights import buffers_kept


class Measured:
    """The multiply-adds of one pass through a module, forward, back to its input or to its weights.

    PyTorch counts them on one sample, when somebody asks for the first time.
    """

    def __init__(self) -> None:
        self._work: dict[tuple[int, ...], Work] = {}

    def report(self, kind: Kind, module: nn.Module, z: Tensor) -> None:
        """Tell the open contexts of one pass over the samples of z."""
        if listeners():
            report(kind, len(z), len(z) * self._of(module, z)[kind])

    def report_forward(self, module: nn.Module, z: Tensor, drive: Tensor) -> None:
        """Tell them of the drive that the module has made of z, and of what autograd makes of that."""
        if listeners():
            learns = any(w.requires_grad for w in module.parameters())
            work: Work = {kind: len(z) * each for kind, each in self._of(module, z).items()}
            report_forward(drive, z, work, learns=learns)

    @torch.enable_grad()
    def _of(self, module: nn.Module, z: Tensor) -> Work:
        shape = tuple(z.shape[1:])
        if shape not in self._work:
            one, weights = z[:1].detach().requires_grad_(), [w for w in module.parameters() if w.requires_grad]
            with FlopCounterMode(display=False) as forward, buffers_kept(module):
                drive = module(one)
            with FlopCounterMode(display=False) as feedback:
                torch.autograd.grad(drive.sum(), one, retain_graph=True)
            with FlopCounterMode(display=False) as gradient:
                if weights:
                    with buffers_kept(module):
                        torch.autograd.grad(module(one.detach()).sum(), weights, allow_unused=True)
            passes = forward.get_total_flops(), feedback.get_total_flops(), gradient.get_total_flops()
            up, down, learnt = (flops // 2 for flops in passes)
            self._work[shape] = {"forward": up, "feedback": down, "gradient": max(learnt - up, 0)}
        return self._work[shape]
