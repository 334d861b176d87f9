"""Images and labels in memory or on disk, and what the two parts of a data set have in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import InstanceOf
from torch import Tensor

from dualprop.arguments import Fraction, Seed, checked
from dualprop.errors import DualpropError


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels: the training, validation or test part of a data set.

    A part of a split (`take`) shares the image store of the whole and only remembers which rows of it are
    its own, so nothing is copied and a memory map stays on disk. Read images with `batch`, never from the
    store directly.

    Args:
        images: the image store, uint8 of shape (M, C, H, W).
        labels: the label of each image of this split, int64 of shape (N,).
        rows: the row of each image of this split in the store, int64 of shape (N,); None when the split is
            the whole store in its order (N = M).

    Raises:
        DualpropError: a wrong dtype, shape or length, or a row outside the store.

    Example:
        >>> split = Split(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0]))
        >>> part = split.take(torch.tensor([2, 1]))
        >>> len(part), part.labels.tolist()
        (2, [0, 1])
    """

    images: Tensor
    labels: Tensor
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        """Check what the fields must have in common."""
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DualpropError(f"images must be uint8 of shape (N, C, H, W), not {_described(self.images)}")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise DualpropError(f"labels must be int64 of shape (N,), not {_described(self.labels)}")
        if self.rows is not None:
            _check_indices("rows", self.rows, len(self.images))
        count = len(self.images) if self.rows is None else len(self.rows)
        if len(self.labels) != count:
            raise DualpropError(f"labels must be as many as the images: {len(self.labels)} != {count}")

    def __repr__(self) -> str:
        """Return the size and shape, not the pixels."""
        return f"Split({len(self)} images of {tuple(self.images.shape[1:])})"

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images, uint8 (B, C, H, W), and labels, int64 (B,), at `indices`, int64 (B,)."""
        indices = indices.to(self.labels.device)
        rows = indices if self.rows is None else self.rows[indices]
        return self.images.index_select(0, rows), self.labels[indices]

    def between(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Return the images and labels from number `first` up to, but without, `last`."""
        labels = self.labels[first:last]
        if self.rows is None:
            return self.images[first:last], labels
        return self.images.index_select(0, self.rows[first:last]), labels

    def take(self, indices: Tensor) -> Split:
        """Return the part of this split at `indices`, int64 (B,), in that order, without copying images.

        Raises:
            DualpropError: an index of another type or outside 0..N-1.
        """
        _check_indices("indices", indices, len(self))
        return Split(self.images, self.labels[indices], indices if self.rows is None else self.rows[indices])

    def to(self, device: str | torch.device) -> Split:
        """Return this split with its own rows, and only those, held on `device`."""
        images = self.images if self.rows is None else self.images.index_select(0, self.rows)
        return Split(images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set: what to train on, what to test on, and what its labels mean.

    Args:
        name: the name it was loaded by.
        train: the training images.
        test: the test images, of the same shape.
        classes: the name of each class; a label is an index into them.
        mean: per channel, the mean of the training pixels scaled to [0, 1].
        std: per channel, their standard deviation.
        fingerprint: a digest of all that was read, to tell it from other content; "" where there is none.

    Raises:
        DualpropError: an empty part, images of two shapes, a label that is no class, or a mean or std that
            is not one finite number per channel (std at least 0).
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Check what the fields must have in common."""
        for part, split in (("train", self.train), ("test", self.test)):
            if len(split) == 0:
                raise DualpropError(f"{self.name}: the {part} part is empty")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.num_classes:
                raise DualpropError(
                    f"{self.name}: {part} labels must be in 0..{self.num_classes - 1}, not {low}..{high}"
                )
        if self.test.images.shape[1:] != self.train.images.shape[1:]:
            raise DualpropError(
                f"{self.name}: train and test images must have one shape, not {self.in_shape} and "
                f"{tuple(self.test.images.shape[1:])}"
            )
        for field, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.in_shape[0] or not torch.tensor(values).isfinite().all():
                raise DualpropError(
                    f"{self.name}: {field} must be {self.in_shape[0]} finite numbers, not {values}"
                )
        if min(self.std) < 0:
            raise DualpropError(f"{self.name}: std must be at least 0, not {self.std}")

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


@checked
def train_validation(split: InstanceOf[Split], fraction: Fraction = 0.1, seed: Seed = 0) -> tuple[Split, Split]:
    """Split at random into a part to train on and a part to choose settings by.

    Both parts keep the order of `split`, share its images, and depend on `seed` alone.

    Args:
        split: the images to divide.
        fraction: the share of them, in [0, 1), that goes to validation; 0 leaves it empty.
        seed: any integer from 0 on.

    Returns:
        The training part and the validation part, of round(fraction · N) images.

    Raises:
        DualpropError: a fraction outside [0, 1), or one that leaves nothing to train on.

    Example:
        >>> split = Split(torch.zeros(50, 1, 8, 8, dtype=torch.uint8), torch.arange(50))
        >>> [len(part) for part in train_validation(split, fraction=0.2)]
        [40, 10]
    """
    held_out = round(fraction * len(split))
    if held_out == len(split):
        raise DualpropError(f"fraction {fraction} of {len(split)} images leaves none to train on")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.take(order[held_out:].sort().values), split.take(order[:held_out].sort().values)


def _check_indices(name: str, indices: Tensor, count: int) -> None:
    if indices.dtype != torch.int64 or indices.ndim != 1:
        raise DualpropError(f"{name} must be int64 of shape (N,), not {_described(indices)}")
    if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < count):
        raise DualpropError(f"{name} must be in 0..{count - 1}, not {int(indices.min())}..{int(indices.max())}")


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
