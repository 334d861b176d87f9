"""MNIST and Fashion-MNIST: 28×28 grey images in IDX files, downloaded by torchvision."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from dualprop.data._download import downloading
from dualprop.data._idx import read_idx
from dualprop.data.dataset import Dataset, Split
from dualprop.data.official import official_dataset
from dualprop.data.sources import Source, located
from dualprop.errors import DataError

logger = logging.getLogger("dualprop")

_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _source(name: str, torchvision_name: str, summary: str, classes: tuple[str, ...]) -> Source:
    folder = f"{torchvision_name}/raw"
    files = tuple(
        f"{folder}/{part}-{content}-ubyte"
        for part in ("train", "t10k")
        for content in ("images-idx3", "labels-idx1")
    )

    def read(root: Path) -> Dataset:
        train_images, train_labels, test_images, test_labels = (located(root, _names(file)) for file in files)
        return official_dataset(
            name,
            _split(train_images, train_labels),
            _split(test_images, test_labels),
            classes,
            train_files=f"{root / folder}/train-*",
            test_files=f"{root / folder}/t10k-*",
        )

    def obtain(root: Path) -> None:
        from torchvision import datasets

        about = getattr(datasets, torchvision_name)
        for mirror in about.mirrors:
            if mirror.startswith("http:"):
                logger.info(
                    "%s: %s does not encrypt; what comes from there is checked by its content", name, mirror
                )
        with downloading(name, root, files, archives=f"{folder}/*.gz") as temporary:
            about(temporary, download=True)

    advice = f"get it with `dualprop data fetch {name}`"
    return Source(name, summary, read, files, obtain, advice, _names)


def _names(file: str) -> tuple[str, ...]:
    """What a file may be called: as published, or with a dot, as some browsers and copies have it."""
    dotted = file.replace("-idx", ".idx")
    return file, dotted, f"{file}.gz", f"{dotted}.gz"


def _split(images_file: Path, labels_file: Path) -> Split:
    images, labels = read_idx(images_file, (28, 28)), read_idx(labels_file, ())
    if len(images) != len(labels):
        raise DataError(f"{labels_file}: {len(labels)} labels for {len(images)} images")
    if not len(labels) or labels.max() > 9:
        raise DataError(f"{labels_file}: must hold labels in 0..9")
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))


MNIST = _source("mnist", "MNIST", "60,000 + 10,000 grey 28×28 handwritten digits", _DIGITS)
"""The official files of MNIST."""

FASHION_MNIST = _source(
    "fashion-mnist", "FashionMNIST", "60,000 + 10,000 grey 28×28 pictures of clothes", _CLOTHES
)
"""The official files of Fashion-MNIST."""
