"""MNIST and Fashion-MNIST: 28×28 grey images in IDX files, downloaded and parsed by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from dualprop.data._download import downloading
from dualprop.data.dataset import Dataset, Split
from dualprop.data.official import official_dataset
from dualprop.data.sources import Source
from dualprop.errors import DataError

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
        train = _split(root / files[0], root / files[1])
        test = _split(root / files[2], root / files[3])
        return official_dataset(
            name,
            train,
            test,
            classes,
            train_files=f"{root / folder}/train-*",
            test_files=f"{root / folder}/t10k-*",
        )

    def obtain(root: Path) -> None:
        from torchvision import datasets

        with downloading(name, root, files, archives=f"{folder}/*.gz") as temporary:
            getattr(datasets, torchvision_name)(temporary, download=True)

    return Source(name, summary, read, files, obtain, f"get it with `dualprop data fetch {name}`")


def _split(images_file: Path, labels_file: Path) -> Split:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images = _parsed(images_file, read_image_file)
    labels = _parsed(labels_file, read_label_file)
    if len(images) != len(labels):
        raise DataError(f"{labels_file}: {len(labels)} labels for {len(images)} images")
    if images.shape[1:] != (28, 28):
        raise DataError(f"{images_file}: images must be of shape (28, 28), not {tuple(images.shape[1:])}")
    if not len(labels) or int(labels.max()) > 9:
        raise DataError(f"{labels_file}: must hold labels in 0..9")
    return Split(images.unsqueeze(1), labels)


def _parsed(file: Path, parse: Callable[[str], Tensor]) -> Tensor:
    try:
        return parse(str(file))
    except Exception as error:  # torchvision meets a damaged file with errors of nearly every type
        raise DataError(f"{file}: damaged or not an IDX file ({type(error).__name__})") from None


MNIST = _source("mnist", "MNIST", "60,000 + 10,000 grey 28×28 handwritten digits", _DIGITS)
"""The official files of MNIST."""

FASHION_MNIST = _source(
    "fashion-mnist", "FashionMNIST", "60,000 + 10,000 grey 28×28 pictures of clothes", _CLOTHES
)
"""The official files of Fashion-MNIST."""
