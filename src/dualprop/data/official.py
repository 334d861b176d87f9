"""What the published data sets contain, to tell them from anything else under their names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dualprop.data.dataset import Dataset, Split
from dualprop.errors import DataError


@dataclass(frozen=True)
class Official:
    """The content of a published data set.

    Args:
        train: the `content_digest` of its training images and labels.
        test: that of its test images and labels.
        mean: per channel, the mean of the training pixels in units of [0, 1].
        std: per channel, their standard deviation.
    """

    train: str
    test: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


OFFICIAL = {
    "mnist": Official(
        train="53945d2efd6aa225d718a4d894c7eb8d",
        test="6bc82132cd723a54e20954bd25d3a602",
        mean=(0.1306604762738429,),
        std=(0.3081078038564627,),
    ),
    "fashion-mnist": Official(
        train="8918c0d035faf7f9970ae4053d1eb5ee",
        test="e540947f422a4830c1fdbece6b448080",
        mean=(0.2860405969887955,),
        std=(0.3530242445149226,),
    ),
    "cifar10": Official(
        train="29b10f8b4b2a8539a608dd32835276fd",
        test="5e8023b9b01a3f80ee509147c85af81c",
        mean=(0.49139967861519607, 0.48215840839460783, 0.44653091444546567),
        std=(0.2470322324632821, 0.2434851280000555, 0.26158784172796445),
    ),
    "cifar100": Official(
        train="badecdd0b5d8e934ba96f3aec6d3556f",
        test="88822c410518952ba11e6437bf9c5d45",
        mean=(0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
        std=(0.2673342858792407, 0.25643846291708816, 0.27615047132568393),
    ),
}
"""The content of each data set whose files are checked; means and deviations are computed from it."""


def content_digest(images: Tensor, labels: Tensor, classes: Sequence[str]) -> str:
    """Return 32 hexadecimal digits that depend on which labelled images there are, but not on their order.

    It is the 128-bit BLAKE2b digest of the class names as JSON, then of the sorted 128-bit BLAKE2b digests of
    (label byte, pixels in C, H, W order).

    Args:
        images: uint8 of shape (N, C, H, W).
        labels: int64 of shape (N,), below 256.
        classes: what each label means.
    """
    size = images[0].numel()
    pixels = images.contiguous().numpy().data.cast("B")
    rows = []
    for row, label in enumerate(labels.tolist()):
        digest = hashlib.blake2b(bytes((label,)), digest_size=16)
        digest.update(pixels[row * size : (row + 1) * size])
        rows.append(digest.digest())
    names = json.dumps(list(classes)).encode()
    return hashlib.blake2b(names + b"".join(sorted(rows)), digest_size=16).hexdigest()


def official_dataset(
    name: str, train: Split, test: Split, classes: tuple[str, ...], *, train_files: str, test_files: str
) -> Dataset:
    """Return the data set if its content is the published one, whatever the order of its rows.

    Args:
        name: its name in `OFFICIAL`.
        train: the training images.
        test: the test images.
        classes: the name of each class.
        train_files: the files that the training images came from, for the message.
        test_files: those of the test images.

    Raises:
        DataError: images, labels or class names that differ from the published ones.
    """
    official = OFFICIAL[name]
    for split, files, digest in ((train, train_files, official.train), (test, test_files, official.test)):
        if content_digest(split.images, split.labels, classes) != digest:
            raise DataError(f"{files}: the images, labels or class names differ from those of the official {name}")
    return Dataset(name, train, test, classes, official.mean, official.std)
