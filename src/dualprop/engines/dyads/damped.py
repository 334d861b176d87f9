"""Damped block updates, which settle under repeated passes wherever the objective is bounded.

References:
    Høier, Zach, *Two Tales of Single-Phase Contrastive Hebbian Learning*, ICML 2024.
"""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from dualprop.engines.dyads.blocks import Batch, Blocks, Call
from dualprop.engines.dyads.neurons import Neurons
from dualprop.nets.potentials import Potential
from dualprop.nets.synapses import spectral_norm


class Damped(Blocks):
    """z_k^± = f_k((a_k + L_k z_k^± ± {α, ᾱ} r_k d_k)/(1 + L_k)) for the layers that something comes down to.

    L_k = max(0, Σ_m r_km ‖W_km‖² - 1)/2 over the edges out of layer k, r_km = β_k/β_m: in a chain of one β it is
    max(0, ‖W_k‖² - 1)/2. Where nothing comes down, z_k^± = f_k(a_k) solves the layer at once; outputs are as ever.
    The potentials project.
    """

    damped = True

    @override
    def begin(self, batch: Batch) -> None:
        super().begin(batch)
        self._strengths: dict[int, float] = {}  # with the weights as they are in this batch

    @override
    def _nudged(self, n: Neurons, spend: bool, keep: bool) -> Call:
        f, (up, down) = n.potential, self._nudge.steps(self._wiring, n.number)
        assert f is not None

        def update() -> None:
            assert n.total is not None
            assert n.pull is not None
            a, d, strength = n.total.to(self.batch.full), n.pull.to(self.batch.full), self.strength(n)
            old_plus, old_minus = self.pair(n)
            plus = _kept(f, a.add(d, alpha=up), old_plus, strength)
            self._move(n, plus, _kept(f.minus, a.sub(d, alpha=down), old_minus, strength), mean=True)

        return update

    def strength(self, n: Neurons) -> float:
        """L_k."""
        k, beta = n.number, self._nudge.beta
        if k not in self._strengths:
            z = self.zeros(k)
            gains = [
                beta[k - 1] / beta[link.above.number - 1] * spectral_norm(link.synapse, z) ** 2 for link in n.out
            ]
            self._strengths[k] = max(0.0, sum(gains) - 1) / 2
        return self._strengths[k]


def _kept(f: Potential, nudged: Tensor, old: Tensor, strength: float) -> Tensor:
    return f.over(nudged.add_(old, alpha=strength).div_(1 + strength))
