"""What a module's products cost, measured once for each shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dualprop.nets.counting import Kind, Work, listeners, report, report_forward
from dualprop.nets.synapses.weights import buffers_kept, gradients_by


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
            with buffers_kept(module):
                forward, drive = self._flops(lambda: module(one.detach())), module(one)
            feedback = self._flops(lambda: torch.autograd.grad(drive.sum(), one, retain_graph=True))
            gradient = 0
            if weights:
                gradient = self._flops(lambda: gradients_by(weights, drive, torch.ones_like(drive)))
            self._work[shape] = {"forward": forward, "feedback": feedback, "gradient": gradient}
        return self._work[shape]

    @staticmethod
    def _flops(call: Callable[[], object]) -> int:
        """The multiply-adds of what is called."""
        with FlopCounterMode(display=False) as counted:
            call()
        return int(counted.get_total_flops()) // 2
