"""How far a synapse can stretch a state."""

from __future__ import annotations

import torch
from torch import Tensor

from dualprop.nets.synapses.base import Synapse

ITERATIONS = 50


@torch.no_grad()
def spectral_norm(synapse: Synapse, z: Tensor, iterations: int = ITERATIONS) -> float:
    """‖W‖, the largest singular value of the affine map, by power iteration from a fixed random vector.

    Pools are left out: those whose windows do not overlap stretch nothing.

    Args:
        synapse: with an affine map.
        z: a state that it reads, shape (B, ...), for its shape and type alone.
        iterations: products with W and with W^T.

    Raises:
        DualpropError: for a synapse without an affine map.

    Example:
        >>> import dualprop as dp
        >>> dense = dp.Dense(4, 3)
        >>> norm = spectral_norm(dense, torch.zeros(1, 4))
        >>> abs(norm - float(torch.linalg.matrix_norm(dense.weight, 2))) < 1e-3
        True
    """
    core = synapse.core
    p = z[:1] if core.pool is None else core.pool(z[:1])
    drawn = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    v, nothing, norm = drawn.to(p), torch.zeros_like(p), 0.0
    for _ in range(iterations):
        length = float(torch.linalg.vector_norm(v))
        if not length:
            return 0.0
        v = v / length
        wv, bias = core.affine(torch.cat([v, nothing])).chunk(2)
        norm = float(torch.linalg.vector_norm(wv - bias))
        v = core.transposed(wv - bias, p.shape)
    return norm
