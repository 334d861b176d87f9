"""One net, one batch, one precision: what all rows of a table share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from dualprop.nets import NETS
from dualprop.nets.devices import Energy
from dualprop.nets.net import Net
from dualprop.rules import RULES, Method

CLASSES = 10
IMAGE = (3, 32, 32)
"""A sample's shape, CIFAR's, for nets that do not leave their sizes to the user."""

LR, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 5e-4  # a low rate: the same batch again and again must not diverge


class Workload:
    """What is learnt, from the same weights by every subject: random labels of random images.

    Args:
        name: the net, a name in `NETS`.
        features: of a sample, for a net that leaves its sizes to the user.
        hidden: neurons in the hidden layers of such a net.
        precision: of the products; weights and optimizer stay in float32.
        batch_size: samples in the batch.
        device: where it is computed.
        energy: what each thing costs, if that is counted.
    """

    def __init__(
        self,
        name: str,
        features: int,
        hidden: tuple[int, ...],
        precision: torch.dtype,
        batch_size: int,
        device: torch.device,
        energy: Energy | None = None,
    ) -> None:
        self.name, self.precision, self.batch_size, self.device = name, precision, batch_size, device
        self.hidden, self.energy = hidden, energy
        self.in_shape = in_shape(name, features)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(batch_size, *self.in_shape, generator=generator)
        self.x = x.to(device, memory_format=_layout(x))
        self.y = torch.randint(CLASSES, (batch_size,), generator=generator).to(device)

    def net(self, method: Method) -> Net:
        """The net with the rule's own activation and pool, in channels_last."""
        net = make_net(self.name, self.in_shape, self.hidden, method, torch.Generator().manual_seed(0))
        return net.to(self.device).to(memory_format=torch.channels_last)

    def plain(self) -> nn.Module:
        """The same net with the same weights as a plain `torch.nn.Sequential`, in channels_last."""
        return self.net(RULES["bp"]).plain()

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the products, as a context."""
        low = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision if low else torch.bfloat16, enabled=low)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of the paper's convolutional nets, PyTorch's own and fused."""
        return torch.optim.SGD(
            parameters, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=self.device.type != "mps"
        )


def in_shape(name: str, features: int) -> tuple[int, ...]:
    """The shape of a sample that a net in `NETS` gets."""
    return IMAGE if NETS[name].sizes is None else (features,)


def make_net(
    name: str,
    in_shape: tuple[int, ...],
    hidden: Sequence[int],
    method: Method,
    generator: torch.Generator | None = None,
) -> Net:
    """The net as `dualprop.NETS` makes it, with the rule's own activation and pool.

    Args:
        name: in `NETS`.
        in_shape: of a sample.
        hidden: neurons in the hidden layers of a net that leaves them to the user.
        method: the rule that is to train it.
        generator: where the initial weights come from.
    """
    kind = NETS[name]
    return kind(
        in_shape,
        CLASSES,
        hidden=None if kind.sizes is None else hidden,
        pool=method.pool if kind.pools else None,
        init=method.init,
        activation=kind.activation or method.activation,
        feedback=method.feedback,
        generator=generator,
    )


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.ndim == 4 else torch.contiguous_format
