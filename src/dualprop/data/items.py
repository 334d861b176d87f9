"""Samples that a torch `Dataset` makes when they are asked for: read from disk, or transformed at random."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from dualprop.data._arrays import is_dense, kind_of
from dualprop.data.batches import Batches, Normalisation, drawn
from dualprop.data.dataset import Part, Split
from dualprop.errors import DualpropError

SAMPLED = 1000
"""Samples that a fingerprint is of."""

Collate = Callable[[list[Any]], Any]


class Items:
    """The training, validation or test part of a data set whose samples are made one by one.

    Args:
        dataset: a torch `Dataset` with a length; a sample of it is (x, y), x uint8 pixels of shape (C, H, W) or
            floating-point numbers of any shape, y a label or floating-point numbers.
        collate: makes a batch of a list of samples.
        workers: processes that make samples; 0 for this one.
        rows: which samples are this part's, int64 of shape (N,); None for all.
        batch_size: of the `DataLoader` that it was; None for no choice.

    Raises:
        DualpropError: a data set without samples, or samples of another kind.
    """

    def __init__(
        self,
        dataset: Any,
        collate: Collate = default_collate,
        workers: int = 0,
        rows: Tensor | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.dataset, self.collate, self.workers, self.batch_size = dataset, collate, workers, batch_size
        self.rows = torch.arange(len(dataset)) if rows is None else rows
        self._first: tuple[Tensor, Tensor] | None = None

    def __repr__(self) -> str:
        """Return the kind and size."""
        return f"Items({len(self)} of {type(self.dataset).__name__})"

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.first[0].shape[1:])

    @property
    def target_shape(self) -> tuple[int, ...]:
        """The shape of one target: () of a label."""
        return tuple(self.first[1].shape[1:])

    @property
    def first(self) -> tuple[Tensor, Tensor]:
        """The first sample, as a batch of one."""
        if self._first is None:
            with torch.random.fork_rng(devices=[]):
                self._first = self._made_first()
        return self._first

    def take(self, indices: Tensor) -> Items:
        """Return the part of it at `indices`, int64 (B,), in that order."""
        part = Items(self.dataset, self.collate, self.workers, self.rows[indices], self.batch_size)
        part._first = self._first
        return part

    def targets(self) -> Tensor:
        """All targets, which takes making every sample."""
        return torch.cat([y for _, y in self.loaded(torch.split(self.rows, SAMPLED))])

    def loaded(self, batches: Any, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The samples of some batches.

        Args:
            batches: for each of them the rows of the data set.
            generator: what workers draw their seeds from.
        """
        lists = [rows.tolist() for rows in batches]
        for sample in DataLoader(
            self.dataset,
            batch_sampler=lists,
            collate_fn=self._collated,
            num_workers=self.workers,
            generator=generator or torch.Generator(),  # the global one is not drawn from
        ):
            yield _checked(sample)

    def fingerprint(self, every: bool = False) -> str:
        """A digest of the number of samples and of a thousand of them, drawn by a fixed seed.

        Where making a sample twice gives two, it is of their targets alone.

        Args:
            every: of all of them instead.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        rows = self.rows if every else self.rows[order[:SAMPLED]]
        digest = hashlib.blake2b(f"{len(self)} {self.shape} {self.target_shape}".encode(), digest_size=16)
        with torch.random.fork_rng(devices=[]):
            twice = [self._made_first()[0] for _ in range(2)]
            same = torch.equal(*twice)
            for x, y in self.loaded(torch.split(rows, 100)):
                for tensor in (x, y) if same else (y,):
                    digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _made_first(self) -> tuple[Tensor, Tensor]:
        return _checked(self._collated([self.dataset[int(self.rows[0])]]))

    def _collated(self, samples: list[Any]) -> Any:
        """A batch of samples.

        Raises:
            DualpropError: if they make none, as of unequal shapes.
        """
        try:
            return self.collate(samples)
        except (RuntimeError, TypeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise DualpropError(
                f"data: samples of a {type(self.dataset).__name__} make no batch ({said})"
            ) from None


class ItemBatches:
    """The batches of `Items`, in an order that is drawn from (seed, epoch).

    Args:
        items: the samples.
        batch_size: those in a batch; the last batch holds what is left.
        seed: an integer from 0 on; None for the order in which they are.
        device: where the batches go.
        memory_format: in which order their numbers lie in memory.
    """

    def __init__(
        self,
        items: Items,
        batch_size: int,
        *,
        seed: int | None = None,
        device: str | torch.device = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.items, self.batch_size, self.seed = items, batch_size, seed
        self.device = torch.device(device)
        self._normalised = Normalisation(
            items.shape,
            255 if items.first[0].dtype == torch.uint8 else 1,
            mean=(0.0,),
            std=(1.0,),
            device=self.device,
            dtype=torch.float32,
            memory_format=memory_format,
        )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self.items) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over epoch 0."""
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of one epoch from number `start` on; see `Batches.epoch`."""
        rows, generator = self.items.rows, drawn(self.seed or 0, epoch)
        if self.seed is not None:
            rows = rows[torch.randperm(len(rows), generator=generator)]
        for x, y in self.items.loaded(torch.split(rows, self.batch_size)[start:], generator):
            yield self._normalised(x.to(self.device)), y.to(self.device)


def _checked(sample: Any) -> tuple[Tensor, Tensor]:
    """A batch as rules take it: images or features, and int64 labels or floating-point targets."""
    if not isinstance(sample, (tuple, list)) or len(sample) != 2 or not all(map(torch.is_tensor, sample)):
        kind = type(sample).__name__
        raise DualpropError(f"data: a sample must be (x, y), numbers both; this data set's batches are {kind}")
    x, y = sample
    for name, tensor in (("x", x), ("y", y)):
        if not is_dense(tensor):
            raise DualpropError(f"data: {name} must be dense, not {kind_of(tensor)}")
    if x.ndim < 2 or not (x.is_floating_point() or x.dtype == torch.uint8):
        raise DualpropError(f"data: x must be uint8 or floating-point, with a dimension, not {x.dtype} {x.shape}")
    if y.is_floating_point():
        return x, y.float().view(len(y), -1) if y.ndim == 1 else y.float()
    if y.ndim != 1 or y.is_complex():
        raise DualpropError(f"data: y must be a label or floating-point numbers, not {y.dtype} {tuple(y.shape)}")
    return x, y.long()


def batched(
    part: Part,
    batch_size: int,
    *,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    augment: bool = False,
    seed: int | None = None,
    device: str | torch.device = "cpu",
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Batches | ItemBatches:
    """Return the batches of any part of a data set; the arguments are those of `Batches`.

    Raises:
        DualpropError: for what is left to the data set itself where it makes its samples one by one.
    """
    if isinstance(part, Split):
        return Batches(
            part,
            batch_size,
            mean=mean,
            std=std,
            augment=augment,
            seed=seed,
            device=device,
            memory_format=memory_format,
        )
    assert isinstance(part, Items), "there are two kinds of parts"
    if augment or list(mean) != [0.0] or list(std) != [1.0]:
        raise DualpropError(
            f"{'augment' if augment else 'standardise'}: not for a torch Dataset, whose own transform may do that"
        )
    return ItemBatches(part, batch_size, seed=seed, device=device, memory_format=memory_format)
