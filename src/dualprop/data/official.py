"""What the published data sets contain, to tell them from anything else under their names."""

from __future__ import annotations

import hashlib
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
        train="db03d5265ef34cd9ad88c2e06a1a6ff4",
        test="c1b1765027481520141f5a253ce573de",
        mean=(0.1306604762738429,),
        std=(0.3081078038564627,),
    ),
    "fashion-mnist": Official(
        train="17191e2f4c1a38002977366e68c1dc99",
        test="cd57ac99cc3dd9a58fed957ac5073826",
        mean=(0.2860405969887955,),
        std=(0.3530242445149226,),
    ),
    "cifar10": Official(
        train="bbcc5987ab080d2593bb222a9a3194a9",
        test="8ef7a818e88b927bd4272d2a92012415",
        mean=(0.49139967861519607, 0.48215840839460783, 0.44653091444546567),
        std=(0.2470322324632821, 0.2434851280000555, 0.26158784172796445),
    ),
    "cifar100": Official(
        train="6a42f82ecac382da37566121234041d2",
        test="93a5b1634c44ea0f7065161586807ece",
        mean=(0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
        std=(0.2673342858792407, 0.25643846291708816, 0.27615047132568393),
    ),
}
"""The content of each data set whose files are checked; means and deviations are computed from it."""


def content_digest(images: Tensor, labels: Tensor) -> str:
    """Return 32 hexadecimal digits that depend on which labelled images there are, but not on their order.

    It is the sum modulo 2**128 of the 128-bit BLAKE2b digests of (label byte, pixels in C, H, W order).

    Args:
        images: uint8 of shape (N, C, H, W).
        labels: int64 of shape (N,), below 256.
    """
    size = images[0].numel()
    pixels = images.contiguous().numpy().data.cast("B")
    total = 0
    for row, label in enumerate(labels.tolist()):
        digest = hashlib.blake2b(bytes((label,)), digest_size=16)
        digest.update(pixels[row * size : (row + 1) * size])
        total += int.from_bytes(digest.digest(), "big")
    return f"{total % 2**128:032x}"


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
        DataError: images or labels that differ from the published ones.
    """
    official = OFFICIAL[name]
    for split, files, digest in ((train, train_files, official.train), (test, test_files, official.test)):
        if content_digest(split.images, split.labels) != digest:
            raise DataError(f"{files}: the images or labels differ from those of the official {name}")
    return Dataset(name, train, test, classes, official.mean, official.std)
