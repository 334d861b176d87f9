"""Several copies of a batch side by side in one tensor, nudged by different, perhaps complex, strengths.

A real affine map acts on a complex state through its real and its imaginary part. So the copies are rows of one
real tensor, first the real ones, then the real parts of the complex ones, then their imaginary parts, and one
matrix product serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualprop.nets import crossing
from dualprop.nets.kernels.arena import room
from dualprop.nets.potentials import Potential
from dualprop.nets.synapses import Linearisation, Pool, Synapse, Weighted, layout

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Copies:
    """How many copies of a batch lie in the rows of a tensor.

    Args:
        batch: samples in a copy.
        reals: real copies.
        complexes: complex ones, two rows a sample each.
    """

    batch: int
    reals: int
    complexes: int = 0

    @classmethod
    def of(cls, batch: int, numbers: Sequence[complex]) -> Copies:
        """A copy for each of these numbers, the real ones first."""
        real = sum(not isinstance(n, complex) for n in numbers)
        return cls(batch, real, len(numbers) - real)

    def spread(self, z: Tensor) -> Tensor:
        """Every copy the same real z, of shape (batch, ...)."""
        if self.reals == 1 and not self.complexes:
            return z
        return torch.cat([z] * (self.reals + self.complexes) + [torch.zeros_like(z)] * self.complexes)

    def _blocks(self, z: Tensor) -> list[Tensor]:
        """The rows of the real copies, of the others' real parts and of their imaginary parts, as views."""
        return list(torch.split(z, [self.reals * self.batch, *[self.complexes * self.batch] * 2]))

    def parts(self, z: Tensor) -> list[Tensor]:
        """The real copies and the complex ones, whichever there are."""
        if not self.complexes:
            return [z]
        real, re, im = self._blocks(z)
        return [*([real] if self.reals else []), torch.complex(re, im, out=room(re, dtype=re.dtype.to_complex()))]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `parts`."""
        if not self.complexes:
            return parts[0]
        return torch.cat([*parts[:-1], parts[-1].real, parts[-1].imag])

    @property
    def doubled(self) -> Copies:
        """Twice as many."""
        return Copies(self.batch, 2 * self.reals, 2 * self.complexes)

    def beside(self, z: Tensor, other: Tensor) -> Tensor:
        """The copies of both, as `doubled` has them."""
        parts = zip(self.parts(z), self.parts(other), strict=True)
        return self.doubled.joined([torch.cat(pair) for pair in parts])

    def apply(self, f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """f of every copy."""
        return self.joined([f(part) for part in self.parts(z)])

    def activate(self, f: Potential, a: Tensor) -> Tensor:
        """The activation of every copy; a is given up."""
        if not self.complexes:
            return f.over(a)
        real, re, im = self._blocks(a)
        active = f.over(real)
        if active is not real:
            real.copy_(active)
        f.over_parts(re, im)
        return a

    def scaled(self, z: Tensor, by: Sequence[complex]) -> Tensor:
        """Every copy times a number of its own, in new memory.

        Args:
            z: the copies.
            by: one number each; the first `reals` of them are real.
        """
        blocks = z.view(-1, self.batch, *z.shape[1:])
        if not self.complexes:
            return torch.stack([c.mul(float(n.real)) for c, n in zip(blocks, by, strict=True)]).view_as(z)
        real, re, im = torch.split(blocks, [self.reals, self.complexes, self.complexes])
        numbers = by[self.reals :]
        new = [c.mul(float(n.real)) for c, n in zip(real, by[: self.reals], strict=True)]
        new += [c.mul(n.real).sub_(d, alpha=n.imag) for c, d, n in zip(re, im, numbers, strict=True)]
        new += [d.mul(n.real).add_(c, alpha=n.imag) for c, d, n in zip(re, im, numbers, strict=True)]
        return torch.stack(new).view_as(z)

    def total(self, z: Tensor) -> Tensor:
        """The sum over the copies of their real parts, shape (batch, ...)."""
        return z.view(-1, self.batch, *z.shape[1:])[: self.reals + self.complexes].sum(0)

    def imaginary(self, z: Tensor) -> Tensor:
        """The rows of the imaginary parts, as a view."""
        return z[(self.reals + self.complexes) * self.batch :]

    def on(self, synapse: Synapse) -> CopiedSynapse:
        """This synapse, acting on these copies."""
        return ComplexSynapse(synapse, self) if self.complexes else CopiedSynapse(synapse)


class CopiedSynapse:
    """A synapse that acts on real copies of a batch: on all rows alike."""

    def __init__(self, synapse: Synapse) -> None:
        self.synapse = synapse

    def linearise(self, z: Tensor) -> tuple[Tensor, Any]:
        """What `drive` reads of the states z, and what `down` needs to know of them."""
        return self.synapse.linearise(z)

    def drive(self, p: Tensor) -> Tensor:
        """The drives A(z)."""
        return self.synapse.affine(p)

    def down(self, delta: Tensor, linearised: Any) -> Tensor:
        """The feedback A^T delta, linearised at the state read."""
        return self.synapse.adjoint_at(delta, linearised)

    def learn(self, delta: Tensor, z: Tensor) -> None:
        """Add the gradient of Σ <delta, A(z)> over all rows to `.grad`."""
        self.synapse.add_grad(delta, z)


class ComplexSynapse(CopiedSynapse):
    """A synapse that acts on complex copies: its affine map on all rows, its pools on complex states.

    The real map is W p + b; the imaginary parts take no b. Pools must be holomorphic. It serves as long as the
    weights stand still.
    """

    def __init__(self, synapse: Synapse, copies: Copies) -> None:
        super().__init__(synapse)
        self.copies, self.core = copies, synapse.core
        self.front, self.behind = synapse.core.pool, synapse.behind
        self._offset: Tensor | None = None  # b, at every neuron

    def linearise(self, z: Tensor) -> tuple[Tensor, Any]:
        """What `drive` reads: with a pool behind the map, the drives themselves."""
        p, front = self._pooled(self.front, z)
        if self.behind is None:
            return p, (p.shape, front, layout(z), [])
        drive, behind = self._pooled(self.behind, self._affine(p))
        return drive, (p.shape, front, layout(z), behind)

    def drive(self, p: Tensor) -> Tensor:
        """The drives A(z), their imaginary parts without the bias."""
        return self._affine(p) if self.behind is None else p

    def down(self, delta: Tensor, linearised: Any) -> Tensor:
        """The feedback A^T delta, without conjugation."""
        shape, front, form, behind = linearised

        def sent(delta: Tensor) -> Tensor:
            return self.core.transposed(delta, torch.Size((len(delta), *shape[1:])))

        delta = self._made(sent, sent, self._unpooled(self.behind, delta, behind))
        return self._unpooled(self.front, delta.contiguous(memory_format=form), front)

    def learn(self, delta: Tensor, z: Tensor) -> None:
        """The gradient of the real part of Σ <delta, A(z)>.

        Re δ Re p - Im δ Im p for W and Re δ for b: the product over all rows would give Im δ to b as well, so one
        more row, with p = 0, takes it away.
        """
        p, _ = self._pooled(self.front, z)
        if self.behind is not None:
            delta = self._unpooled(self.behind, delta, self._pooled(self.behind, self._affine(p))[1])
        rows = delta.clone()
        imaginary = self.copies.imaginary(rows).neg_()
        rows = torch.cat([rows, -imaginary.sum(0, keepdim=True)])
        self.core.hebbian(rows, torch.cat([p, torch.zeros_like(p[:1])]))

    def _made(self, real: Product, imaginary: Product, z: Tensor) -> Tensor:
        """A product of all rows at once; on devices imaginary parts by themselves, for they are heard apart."""
        if crossing.here() is None:
            return real(z)
        parts = self.copies.imaginary(z)
        with crossing.imaginary():
            heard = imaginary(parts)
        return torch.cat([real(z[: len(z) - len(parts)]), heard])

    def _affine(self, p: Tensor) -> Tensor:
        if crossing.here() is not None and isinstance(self.core, Weighted):
            return self._made(self.core.affine, self.core.linear_part, p)
        drive = self.core.affine(p)
        if self._offset is None:
            self._offset = self.core.affine(torch.zeros_like(p[:1]))
        self.copies.imaginary(drive).sub_(self._offset)
        return drive

    def _pooled(self, pool: Pool | None, z: Tensor) -> tuple[Tensor, list[Linearisation]]:
        """The pooled copies and, part by part, what the pool saw."""
        if pool is None:
            return z, []
        if pool.linear:  # and real, so that rows are as good as complex numbers
            p, rows = pool.linearise(z)
            return p, [rows]
        pooled, linearised = zip(*map(pool.linearise, self.copies.parts(_wide(z))), strict=True)
        return self.copies.joined(pooled).to(z.dtype), list(linearised)

    def _unpooled(self, pool: Pool | None, delta: Tensor, linearised: list[Linearisation]) -> Tensor:
        """What goes back through the pool to the copies that it saw."""
        if pool is None:
            return delta
        if pool.linear:
            return pool.adjoint(delta, linearised[0])
        parts = zip(self.copies.parts(_wide(delta)), linearised, strict=True)
        return self.copies.joined([pool.adjoint(d, s) for d, s in parts]).to(delta.dtype)


def _wide(z: Tensor) -> Tensor:
    """The same numbers in a type that complex numbers are made of, float32 at least."""
    return z.to(torch.promote_types(z.dtype, torch.float32))
