"""Normalised, shuffled, augmented batches, every one of them reproducible from its number alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, InstanceOf
from torch import Tensor

from dualprop.arguments import Count, NotNegative, Number, checked
from dualprop.data.augment import random_crop_flip
from dualprop.data.dataset import Part, Split
from dualprop.errors import DualpropError

BLOCK = 2**20
"""Pixels that are read and normalised at once: small batches share the cost of calling each operation."""


_Seed = Annotated[int, Field(ge=0)]  # however large: it is hashed


class Batches:
    """The batches of a split, normalised to (pixel / 255 - mean) / std on the device.

    Features that are floating-point numbers are normalised to (feature - mean) / std. Images stay uint8 until
    their batch is asked for. The order of epoch e is drawn from (seed, e) and the augmentation of its batch b from
    (seed, e, b), so training that stopped in the middle of an epoch goes on with exactly the batches it would have
    seen. No global random state is read or changed.

    Args:
        split: the images, or features.
        batch_size: the images in a batch, at least 1; the last batch holds what is left.
        mean: per channel, which is the first dimension of a sample, or one number for all of them, in units of
            [0, 1] pixels.
        std: likewise; a channel of std 0 is constant and is only shifted.
        augment: whether each image is shifted by up to 4 pixels, zeros coming in, and half are mirrored; for
            samples of shape (C, H, W).
        seed: an integer from 0 on; None reads the images in order (and cannot augment).
        device: where the batches go.
        dtype: the floating-point type of the images.
        memory_format: in which order their numbers lie in memory.

    Raises:
        DualpropError: an argument outside what is allowed above.

    Example:
        >>> split = Split(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> batches = Batches(split, 2, mean=(0.5,), std=(0.25,), seed=0)
        >>> [tuple(x.shape) for x, y in batches.epoch(3)]
        [(2, 1, 8, 8), (2, 1, 8, 8), (1, 1, 8, 8)]
    """

    @checked
    def __init__(
        self,
        split: InstanceOf[Part],
        batch_size: Count,
        *,
        mean: Sequence[Number] = (0.0,),
        std: Sequence[NotNegative] = (1.0,),
        augment: bool = False,
        seed: _Seed | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        if not isinstance(split, Split):
            raise DualpropError(f"split: of type {type(split).__name__}, but it must be a Split, in memory")
        if augment and seed is None:
            raise DualpropError("augment needs a seed, not None")
        if augment and len(split.shape) != 3:
            raise DualpropError(f"augment is for images of shape (C, H, W), not for samples of {split.shape}")
        self.split = split
        self.batch_size = batch_size
        self.augment = augment
        self.seed = seed
        self.device = torch.device(device)
        self._normalised = Normalisation(
            split.shape,
            255 if split.images.dtype == torch.uint8 else 1,
            mean=mean,
            std=std,
            device=self.device,
            dtype=dtype,
            memory_format=memory_format,
        )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self.split) // self.batch_size)

    def __repr__(self) -> str:
        return f"Batches({len(self)} of {self.batch_size} from {self.split!r})"

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over epoch 0."""
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of one epoch.

        Args:
            epoch: its number, from 0 on.
            start: the first batch to yield, in 0..len(self); earlier ones are skipped without being read.

        Returns:
            An iterator of images, `dtype` of shape (B, C, H, W), with labels, shape (B,), or targets, (B, ...).

        Raises:
            DualpropError: an epoch or start outside what is allowed above.
        """
        if epoch < 0:
            raise DualpropError(f"epoch must be at least 0, not {epoch}")
        if not 0 <= start <= len(self):
            raise DualpropError(f"start must be in 0..{len(self)}, not {start}")
        return self._batches(epoch, start)

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        split = self.split
        if self.seed is not None:
            split = split.take(torch.randperm(len(split), generator=drawn(self.seed, epoch)))
        if self.augment and self.seed is not None:
            for number in range(start, len(self)):
                images, labels = self._read(split, number, 1)
                yield self._normalised(random_crop_flip(images, drawn(self.seed, epoch, number))), labels
            return
        together = max(1, BLOCK // (self.batch_size * split.images[0].numel()))
        for number in range(start, len(self), together):
            images, labels = self._read(split, number, min(together, len(self) - number))
            yield from zip(
                torch.split(self._normalised(images), self.batch_size),
                torch.split(labels, self.batch_size),
                strict=True,
            )

    def _read(self, split: Split, number: int, count: int) -> tuple[Tensor, Tensor]:
        """The raw images and labels of `count` batches, on the device."""
        images, labels = split.between(number * self.batch_size, (number + count) * self.batch_size)
        return images.to(self.device), labels.to(self.device)


class Normalisation:
    """(pixel / 255 - mean) / std, or that of features, on the device.

    Args:
        shape: of a sample.
        unit: what a number is divided by before, 255 for pixels.
        mean: see `Batches`.
        std: likewise.
        device: likewise.
        dtype: likewise.
        memory_format: likewise; channels-last for samples of shape (C, H, W) alone.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        unit: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        dtype: torch.dtype,
        memory_format: torch.memory_format,
    ) -> None:
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, shape[0]):
                raise DualpropError(f"{name} must be 1 or {shape[0]} finite numbers, not {tuple(values)}")
        if not dtype.is_floating_point:
            raise DualpropError(f"dtype must be a floating-point type, not {dtype}")
        if memory_format == torch.channels_last and len(shape) != 3:
            raise DualpropError(f"channels_last is for images of shape (C, H, W), not for samples of {shape}")
        self.dtype, self.memory_format = dtype, memory_format
        each = (-1, *[1] * (len(shape) - 1))
        means, stds = (torch.tensor(values, dtype=torch.float64).view(each) for values in (mean, std))
        stds[stds == 0] = 1
        computed_in = torch.promote_types(dtype, torch.float32)
        self._scale = (1 / (unit * stds)).to(device, computed_in)
        self._shift = (-means / stds).to(device, computed_in) if bool(means.any()) else None

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise images, shape (B, *shape), which stay as they are."""
        scaled = images * self._scale
        normalised = scaled if self._shift is None else scaled.add_(self._shift)
        return normalised.to(self.dtype, memory_format=self.memory_format)


def drawn(seed: int, *key: int) -> torch.Generator:
    """A generator of its own for everything that is drawn for `key`, for example an epoch's order."""
    state = np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
