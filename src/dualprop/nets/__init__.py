"""What a net is made of: layers of synapses and potentials, losses, and nets to start from.

Example:
    >>> import torch
    >>> mlp([4, 8, 3])(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
"""

from dualprop.nets import devices, losses, potentials, synapses
from dualprop.nets.net import Layer, Net
from dualprop.nets.zoo import (
    NETS,
    NetKind,
    hopfield_cnn,
    hopfield_mlp,
    mlp,
    resnet8,
    vgg,
    vgg11,
    vgg16,
    vgg_like,
    vit_tiny,
)

__all__ = [
    "NETS",
    "Layer",
    "Net",
    "NetKind",
    "devices",
    "hopfield_cnn",
    "hopfield_mlp",
    "losses",
    "mlp",
    "potentials",
    "resnet8",
    "synapses",
    "vgg",
    "vgg11",
    "vgg16",
    "vgg_like",
    "vit_tiny",
]
