"""The 1,797 real 8×8 digits that scikit-learn ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dualprop.data._moments import Moments
from dualprop.data.dataset import Dataset, Split
from dualprop.data.sources import Source


def _read(root: Path) -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    parts = train_test_split(images, labels.astype(np.int64), test_size=0.2, random_state=0, stratify=labels)
    moments = Moments(channels=1)
    moments.add(parts[0])
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, parts)
    return Dataset(
        "digits",
        Split(train_images, train_labels),
        Split(test_images, test_labels),
        tuple("0123456789"),
        moments.mean,
        moments.std,
    )


DIGITS = Source("digits", "1,797 grey 8×8 handwritten digits, part of scikit-learn; a fifth for testing", _read)
"""Pixels 0..16 are scaled to 0..255; the stratified test part is the same every time."""
