"""Random shifts and mirror images of a whole batch at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 4
"""How many pixels an image is shifted by at most."""


def crop_flip(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """Pad each image with zeros on all sides, cut its own window of the old size, and mirror some.

    Args:
        images: uint8 of shape (B, C, H, W).
        top: the first row of each window in the padded image, int64 of shape (B,) in 0..2·PADDING.
        left: its first column, likewise.
        mirrored: whether left and right are swapped, bool of shape (B,).

    Returns:
        The new images, uint8 of shape (B, C, H, W).
    """
    count, channels, height, width = images.shape
    padded = F.pad(images, (PADDING,) * 4)
    rightward = torch.arange(width, device=images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.where(mirrored[:, None], rightward.flip(0), rightward)
    pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    taken = pixels.view(count, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, taken).view_as(images)


def random_crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Apply `crop_flip` with uniform windows and coin-toss mirroring drawn from a CPU `generator`."""
    count = len(images)
    corners = torch.randint(2 * PADDING + 1, (2, count), generator=generator)
    mirrored = torch.randint(2, (count,), generator=generator).bool()
    top, left = corners.to(images.device)
    return crop_flip(images, top, left, mirrored.to(images.device))
