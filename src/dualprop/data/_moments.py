"""The mean and standard deviation of pixels, exactly, however many chunks they come in."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dualprop.data.dataset import Split

_CHUNK = 2**20
"""Pixels that are in memory as floating-point numbers at once."""


class Moments:
    """Adds up the pixels and squared pixels of each channel; integers below 2**53, hence exact sums.

    Example:
        >>> moments = Moments(channels=1)
        >>> moments.add(np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1))
        >>> moments.mean, moments.std
        ((0.5,), (0.5,))
    """

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sums = np.zeros((2, channels))

    def add(self, images: npt.NDArray[np.uint8]) -> None:
        """Count in `images`, uint8 of shape (N, C, H, W)."""
        together = max(1, _CHUNK // images[0].size) if len(images) else 1
        for first in range(0, len(images), together):
            pixels = images[first : first + together].astype(np.float64)
            self._count += pixels[:, 0].size
            self._sums += pixels.sum((0, 2, 3)), np.square(pixels).sum((0, 2, 3))

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, the mean in units of [0, 1] pixels."""
        return tuple((self._sums[0] / self._count / 255).tolist())

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, the standard deviation (of the population) in units of [0, 1] pixels."""
        mean, mean_square = self._sums / self._count
        return tuple((np.sqrt(np.maximum(mean_square - mean**2, 0)) / 255).tolist())


def moments(part: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels in [0, 1] or of features, summed in double precision.

    Args:
        part: at least one sample; its channel is the first dimension of a sample.
    """
    channels, unit = part.shape[0], 255 if part.images.dtype == torch.uint8 else 1
    numbers = math.prod(part.shape)
    together = max(1, _CHUNK // max(1, numbers))

    def mean_of(centre: Tensor, power: int) -> Tensor:
        sums = torch.zeros(channels, dtype=torch.float64)
        for first in range(0, len(part), together):
            x = part.between(first, first + together)[0].double() / unit
            sums += (x.view(len(x), channels, -1) - centre.view(-1, 1)).pow(power).sum((0, 2))
        return sums / (len(part) * numbers / channels)

    mean = mean_of(torch.zeros(channels, dtype=torch.float64), 1)
    return tuple(mean.tolist()), tuple(mean_of(mean, 2).sqrt().tolist())
