"""The pickled batches of 32×32 colour images that CIFAR and ImageNet32 are published in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualprop.data._unpickle import unpickle
from dualprop.errors import DataError


def read_batch(path: Path, label_key: str, classes: range) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read one batch.

    Args:
        path: a pickled dictionary of "data", uint8 of shape (N, 3072), and a list of N labels.
        label_key: the key of the labels.
        classes: the labels allowed; the first of them becomes 0.

    Returns:
        The images, of shape (N, 3, 32, 32), and the labels, of shape (N,).

    Raises:
        DataError: a file that is damaged or holds anything else.
    """
    content = unpickle(path)
    if not isinstance(content, dict) or "data" not in content or label_key not in content:
        raise DataError(f"{path}: must hold a dictionary with 'data' and {label_key!r}")
    images, labels = content["data"], content[label_key]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (3072,):
        raise DataError(f"{path}: 'data' must be an array of uint8 of shape (N, 3072)")
    if not isinstance(labels, list) or len(labels) != len(images) or not labels:
        raise DataError(f"{path}: {label_key!r} must be a list of {len(images)} labels, at least one")
    if not all(type(label) is int and label in classes for label in labels):
        raise DataError(f"{path}: labels must be integers in {classes[0]}..{classes[-1]}")
    return np.asarray(images).reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64) - classes.start
