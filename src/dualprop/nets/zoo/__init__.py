"""Nets to start from, by name in `NETS`.

Example:
    >>> [len(NETS[name]((3, 32, 32), 10)) for name in ("mlp", "vgg_like", "hopfield_cnn")]
    [3, 6, 5]
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from dualprop.nets.net import Net
from dualprop.nets.zoo.hopfield import hopfield_cnn
from dualprop.nets.zoo.kind import NetKind
from dualprop.nets.zoo.perceptron import mlp
from dualprop.nets.zoo.residual import resnet8
from dualprop.nets.zoo.settling import hopfield_mlp
from dualprop.nets.zoo.transformer import vit_tiny
from dualprop.nets.zoo.vggs import vgg, vgg11, vgg16, vgg_like
from dualprop.registry import Registry

__all__ = [
    "NETS",
    "NetKind",
    "hopfield_cnn",
    "hopfield_mlp",
    "mlp",
    "resnet8",
    "vgg",
    "vgg11",
    "vgg16",
    "vgg_like",
    "vit_tiny",
]


def _mlp(num_classes: int, in_shape: tuple[int, ...], hidden: Sequence[int], **options: Any) -> Net:
    return mlp([math.prod(in_shape), *hidden, num_classes], **options)


def _hopfield_mlp(num_classes: int, in_shape: tuple[int, ...], hidden: Sequence[int], **options: Any) -> Net:
    return hopfield_mlp([math.prod(in_shape), *hidden, num_classes], **options)


def _defaults(make: Callable[..., Net], *names: str) -> dict[str, Any]:
    """The default values of a function's arguments."""
    parameters = inspect.signature(make).parameters
    return {name: parameters[name].default for name in names}


_VGG = _defaults(vgg, "init", "pool")

NETS: Registry[NetKind] = Registry(
    "net",
    {
        "mlp": NetKind(_mlp, sizes=(256, 256), options=_defaults(mlp, "init", "output")),
        "vgg_like": NetKind(vgg_like, pools=True, options=_VGG),
        "vgg11": NetKind(vgg11, pools=True, options=_VGG),
        "vgg16": NetKind(vgg16, pools=True, options=_VGG),
        "hopfield_cnn": NetKind(
            hopfield_cnn,
            pools=True,
            options=_defaults(hopfield_cnn, "channels", "pool", "padding", "output", "init"),
        ),
        "hopfield_mlp": NetKind(
            _hopfield_mlp,
            sizes=(256, 256),
            activation="tanh",  # bounded, as states must be that drive each other
            options=_defaults(hopfield_mlp, "top_down", "strength", "damping", "output", "init"),
        ),
        "resnet8": NetKind(resnet8, options=_defaults(resnet8, "width", "stages", "init")),
        "vit_tiny": NetKind(vit_tiny, options=_defaults(vit_tiny, "depth", "width", "heads", "patch", "init")),
    },
)
