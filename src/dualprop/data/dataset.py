"""Samples and their targets in memory or on disk, and what the two parts of a data set have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from pydantic import InstanceOf
from torch import Tensor

from dualprop.arguments import Fraction, Seed, checked
from dualprop.errors import DualpropError


@runtime_checkable
class Part(Protocol):
    """The training, validation or test part of a data set, in memory or read when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""

    @property
    def target_shape(self) -> tuple[int, ...]:
        """The shape of one target: () of a label."""

    @property
    def first(self) -> tuple[Tensor, Tensor]:
        """The first sample and its target, as a batch of one."""

    def __len__(self) -> int:
        """The number of samples."""

    def targets(self) -> Tensor:
        """All labels, shape (N,), or targets, (N, ...)."""

    def take(self, indices: Tensor) -> Part:
        """The part of it at `indices`, int64 (B,), in that order, without copying samples."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images, or features, with their labels: the training, validation or test part of a data set.

    A part of a split (`take`) shares the image store of the whole and only remembers which rows of it are
    its own, so nothing is copied and a memory map stays on disk. Read images with `batch`, never from the
    store directly.

    Args:
        images: the image store, uint8 of shape (M, C, H, W); or floating-point features of shape (M, ...).
        labels: the label of each image of this split, int64 of shape (N,); or floating-point targets of shape
            (N, ...).
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
        is_image = self.images.dtype == torch.uint8 and self.images.ndim == 4
        if not is_image and not (self.images.is_floating_point() and self.images.ndim >= 2):
            raise DualpropError(
                "images must be uint8 of shape (N, C, H, W), or floating-point features of shape (N, ...), not "
                f"{_described(self.images)}"
            )
        is_label = self.labels.dtype == torch.int64 and self.labels.ndim == 1
        if not is_label and not (self.labels.is_floating_point() and self.labels.ndim >= 2):
            raise DualpropError(
                "labels must be int64 of shape (N,), or floating-point targets of shape (N, ...), not "
                f"{_described(self.labels)}"
            )
        if self.rows is not None:
            _check_indices("rows", self.rows, len(self.images))
        count = len(self.images) if self.rows is None else len(self.rows)
        if len(self.labels) != count:
            raise DualpropError(f"labels must be as many as the images: {len(self.labels)} != {count}")

    def __repr__(self) -> str:
        """Return the size and shape, not the pixels."""
        return f"Split({len(self)} {'images' if self.images.dtype == torch.uint8 else 'samples'} of {self.shape})"

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W) of an image."""
        return tuple(self.images.shape[1:])

    @property
    def target_shape(self) -> tuple[int, ...]:
        """The shape of one target: () of a label."""
        return tuple(self.labels.shape[1:])

    @property
    def first(self) -> tuple[Tensor, Tensor]:
        """The first sample and its target, as a batch of one."""
        return self.between(0, 1)

    def targets(self) -> Tensor:
        """Return the labels, or targets."""
        return self.labels

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images, shape (B, C, H, W), and labels, shape (B,), at `indices`, int64 (B,)."""
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
        classes: the name of each class; a label is an index into them. Empty where targets are numbers.
        mean: per channel, which is the first dimension of a sample, the mean of the training pixels scaled to
            [0, 1], or of features; empty where it is not known.
        std: per channel, their standard deviation; likewise.
        fingerprint: a digest of all that was read, to tell it from other content; "" where none is kept.
        verify: refuses, by a DataError, what is not what the fingerprint says, where reading does not show it.

    Raises:
        DualpropError: an empty part, samples or targets of two shapes, a label that is no class, or a mean or std
            that is not one finite number per channel (std at least 0).
    """

    name: str
    train: Part
    test: Part
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str = ""
    verify: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        """Check what the fields must have in common."""
        for part, split in (("train", self.train), ("test", self.test)):
            if len(split) == 0:
                raise DualpropError(f"{self.name}: the {part} part is empty")
            if isinstance(split, Split):
                self._check_labels(part, split)
        for what, ours, theirs in (
            ("images", self.in_shape, self.test.shape),
            ("targets", self.train.target_shape, self.test.target_shape),
        ):
            if ours != theirs:
                raise DualpropError(
                    f"{self.name}: train and test {what} must have one shape, not {ours} and {theirs}"
                )
        for field, values in (("mean", self.mean), ("std", self.std)):
            known = len(values) or isinstance(self.train, Split)
            if known and (len(values) != self.in_shape[0] or not torch.tensor(values).isfinite().all()):
                raise DualpropError(
                    f"{self.name}: {field} must be {self.in_shape[0]} finite numbers, not {values}"
                )
        if min(self.std, default=0) < 0:
            raise DualpropError(f"{self.name}: std must be at least 0, not {self.std}")

    def _check_labels(self, part: str, split: Split) -> None:
        if split.labels.is_floating_point():
            return
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= self.num_classes:
            raise DualpropError(
                f"{self.name}: {part} labels must be in 0..{self.num_classes - 1}, not {low}..{high}"
            )

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 where targets are numbers."""
        return len(self.classes)

    @property
    def outputs(self) -> int:
        """How many outputs a net needs: one for each class, or for each number of a target."""
        return self.num_classes or math.prod(self.train.target_shape)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W) of an image."""
        return self.train.shape


@checked
def train_validation(split: InstanceOf[Part], fraction: Fraction = 0.1, seed: Seed = 0) -> tuple[Part, Part]:
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
