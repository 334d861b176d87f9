"""The nets of the benchmark as plain PyTorch modules: what back-propagation and `convert` are timed on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from dualprop.registry import Registry

CLASSES = 10


def mlp(in_shape: tuple[int, ...], hidden: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, as `dualprop.nets.mlp`."""
    return nn.Sequential(nn.Flatten(), *_dense([math.prod(in_shape), *hidden, CLASSES]))


def vgg(in_shape: tuple[int, ...], hidden: Sequence[int], groups: Sequence[Sequence[int]]) -> nn.Sequential:
    """Groups of 3 x 3 convolutions with ReLU, a max-pool after each group, then linear layers.

    Args:
        in_shape: channels, height and width.
        hidden: neurons of the linear layers but the last.
        groups: the convolutions' channels, group by group.
    """
    channels, height, width = in_shape
    modules: list[nn.Module] = []
    for group in groups:
        for below, above in pairwise([channels, *group]):
            modules += [nn.Conv2d(below, above, 3, padding=1), nn.ReLU()]
        modules.append(nn.MaxPool2d(2))
        channels, height, width = group[-1], height // 2, width // 2
    return nn.Sequential(*modules, *mlp((channels, height, width), hidden))


def hopfield_cnn(in_shape: tuple[int, ...], hidden: Sequence[int]) -> nn.Sequential:
    """3 x 3 convolutions, each with a max-pool and then ReLU behind it, and a linear layer.

    Args:
        in_shape: channels, height and width.
        hidden: the convolutions' channels.
    """
    channels, height, width = in_shape
    modules: list[nn.Module] = []
    for number, (below, above) in enumerate(pairwise([channels, *hidden]), 1):
        padding = int(number < len(hidden))
        modules += [nn.Conv2d(below, above, 3, padding=padding), nn.MaxPool2d(2), nn.ReLU()]
        height, width = ((side + 2 * padding - 2) // 2 for side in (height, width))
    return nn.Sequential(*modules, *mlp((hidden[-1], height, width), []))


def _dense(sizes: Sequence[int]) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for below, above in pairwise(sizes):
        modules += [nn.Linear(below, above), nn.ReLU()]
    return modules[:-1]


@dataclass(frozen=True)
class PlainNet:
    """A net of `dualprop.NETS` written with PyTorch's own modules.

    Args:
        in_shape: of one sample.
        make: the module, from that shape and the sizes of the hidden layers, or of the dense ones of a VGG.
        hidden: those sizes; None for those that the user chooses.
    """

    in_shape: tuple[int, ...]
    make: Callable[[tuple[int, ...], Sequence[int]], nn.Sequential]
    hidden: tuple[int, ...] | None = None


def _vgg(hidden: tuple[int, ...], *groups: Sequence[int]) -> PlainNet:
    return PlainNet((3, 32, 32), lambda in_shape, sizes: vgg(in_shape, sizes, groups), hidden)


PLAIN: Registry[PlainNet] = Registry(
    "net",
    {
        "mlp": PlainNet((784,), mlp),
        "vgg_like": _vgg((), [128], [128], [256], [256], [512]),
        "vgg16": _vgg((4096, 4096), [64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3),
        "hopfield_cnn": PlainNet((3, 32, 32), hopfield_cnn, (128, 256, 512, 512)),
    },
)
"""By the same names as in `dualprop.NETS`."""
