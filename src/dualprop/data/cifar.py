"""CIFAR-10 and CIFAR-100: 32×32 colour images in Python pickles, downloaded by torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dualprop.data._download import downloading
from dualprop.data._pickled import read_batch
from dualprop.data._unpickle import unpickle
from dualprop.data.dataset import Dataset, Split
from dualprop.data.official import official_dataset
from dualprop.data.sources import Source
from dualprop.errors import DataError


def _source(
    name: str,
    torchvision_name: str,
    summary: str,
    *,
    folder: str,
    train_files: tuple[str, ...],
    test_file: str,
    meta_file: str,
    label_key: str,
    class_key: str,
    num_classes: int,
) -> Source:
    files = tuple(f"{folder}/{file}" for file in (*train_files, test_file, meta_file))

    def read(root: Path) -> Dataset:
        classes = _classes(root / folder / meta_file, class_key, num_classes)
        paths = [root / folder / file for file in (*train_files, test_file)]
        *train, test = (read_batch(path, label_key, range(num_classes)) for path in paths)
        images, labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
        return official_dataset(
            name,
            Split(torch.from_numpy(images), torch.from_numpy(labels)),
            Split(*map(torch.from_numpy, test)),
            classes,
            train_files=f"{root / folder}/{{{','.join(train_files)}}}",
            test_files=f"{root / folder}/{test_file}",
        )

    def obtain(root: Path) -> None:
        from torchvision import datasets
        from torchvision.datasets.utils import download_and_extract_archive

        about = getattr(datasets, torchvision_name)
        with downloading(name, root, files, archives=about.filename) as temporary:
            download_and_extract_archive(about.url, temporary, filename=about.filename, md5=about.tgz_md5)

    return Source(name, summary, read, files, obtain, f"get it with `dualprop data fetch {name}`")


def _classes(path: Path, key: str, count: int) -> tuple[str, ...]:
    content = unpickle(path)
    names = content.get(key) if isinstance(content, dict) else None
    if not isinstance(names, list) or [type(name) for name in names] != [str] * count:
        raise DataError(f"{path}: must hold a dictionary with a list of {count} class names under {key!r}")
    return tuple(names)


CIFAR10 = _source(
    "cifar10",
    "CIFAR10",
    "50,000 + 10,000 colour 32×32 photographs in 10 classes",
    folder="cifar-10-batches-py",
    train_files=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test_file="test_batch",
    meta_file="batches.meta",
    label_key="labels",
    class_key="label_names",
    num_classes=10,
)
"""The official files of CIFAR-10."""

CIFAR100 = _source(
    "cifar100",
    "CIFAR100",
    "50,000 + 10,000 colour 32×32 photographs in 100 classes",
    folder="cifar-100-python",
    train_files=("train",),
    test_file="test",
    meta_file="meta",
    label_key="fine_labels",
    class_key="fine_label_names",
    num_classes=100,
)
"""The official files of CIFAR-100, with the fine labels."""
