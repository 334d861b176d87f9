"""Synapses: the affine maps between layers, their adjoints and their Hebbian gradients.

A synapse knows the states at its two ends and nothing else. `synapse(z)` is A(z) = W z + b, `adjoint` is A^T,
`add_grad` adds the gradient of <delta, A(z)>, that is the outer product of what lies at the two ends.
"""

from dualprop.synapses.affine import Affine
from dualprop.synapses.base import (
    FEEDBACK,
    AffineMap,
    Synapse,
    Weighted,
    accumulate,
    product_dtype,
    standing_still,
)
from dualprop.synapses.conv import Conv2d
from dualprop.synapses.dense import Dense
from dualprop.synapses.inits import INITS
from dualprop.synapses.pooled import Pooled
from dualprop.synapses.pools import POOLS, AvgPool2d, MaxPool2d, Pool, Seen, SoftmaxPool2d, layout

__all__ = [
    "FEEDBACK",
    "INITS",
    "POOLS",
    "Affine",
    "AffineMap",
    "AvgPool2d",
    "Conv2d",
    "Dense",
    "MaxPool2d",
    "Pool",
    "Pooled",
    "Seen",
    "SoftmaxPool2d",
    "Synapse",
    "Weighted",
    "accumulate",
    "layout",
    "product_dtype",
    "standing_still",
]
