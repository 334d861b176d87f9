"""Synapses: the affine maps between layers, their adjoints and their Hebbian gradients.

A synapse knows the states at its two ends and nothing else. `synapse(z)` is A(z) = W z + b, `adjoint` is A^T,
`add_grad` adds the gradient of <delta, A(z)>, that is the outer product of what lies at the two ends.
"""

from dualprop.nets.synapses.affine import Affine
from dualprop.nets.synapses.base import AffineMap, Synapse, product_dtype
from dualprop.nets.synapses.conv import Conv2d
from dualprop.nets.synapses.dense import Dense
from dualprop.nets.synapses.identity import Identity
from dualprop.nets.synapses.inits import INITS
from dualprop.nets.synapses.local import Local
from dualprop.nets.synapses.norms import spectral_norm
from dualprop.nets.synapses.pooled import Pooled
from dualprop.nets.synapses.pools import POOLS, AvgPool2d, Linearisation, MaxPool2d, Pool, SoftmaxPool2d, layout
from dualprop.nets.synapses.transposed import Transposed
from dualprop.nets.synapses.weighted import FEEDBACK, Weighted
from dualprop.nets.synapses.weights import (
    accumulate,
    buffers_kept,
    frozen_weights,
    has_hooks,
    is_computed,
    one_step,
    parameters_of,
    without_hooks,
)

__all__ = [
    "FEEDBACK",
    "INITS",
    "POOLS",
    "Affine",
    "AffineMap",
    "AvgPool2d",
    "Conv2d",
    "Dense",
    "Identity",
    "Linearisation",
    "Local",
    "MaxPool2d",
    "Pool",
    "Pooled",
    "SoftmaxPool2d",
    "Synapse",
    "Transposed",
    "Weighted",
    "accumulate",
    "buffers_kept",
    "frozen_weights",
    "has_hooks",
    "is_computed",
    "layout",
    "one_step",
    "parameters_of",
    "product_dtype",
    "spectral_norm",
    "without_hooks",
]
