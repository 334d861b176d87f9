"""Image data sets: finding, checking, reading, splitting and batching them.

A new data set is one file with a `Source` and one entry in `DATASETS`.
"""

from __future__ import annotations

from pathlib import Path

from dualprop.data.batches import Batches
from dualprop.data.cifar import CIFAR10, CIFAR100
from dualprop.data.dataset import Dataset, Part, Split, train_validation
from dualprop.data.digits import DIGITS
from dualprop.data.fingerprint import ALL, fingerprint
from dualprop.data.folder import WHITE, folder_source
from dualprop.data.form import Form
from dualprop.data.imagenet32 import IMAGENET32
from dualprop.data.inputs import read_inputs
from dualprop.data.items import ItemBatches, Items, batched
from dualprop.data.mnist import FASHION_MNIST, MNIST
from dualprop.data.own import own_batch_size, own_dataset, own_part
from dualprop.data.sources import Source, data_root
from dualprop.errors import DualpropError
from dualprop.registry import Registry

__all__ = [
    "ALL",
    "DATASETS",
    "Batches",
    "Dataset",
    "Form",
    "ItemBatches",
    "Items",
    "Part",
    "Source",
    "Split",
    "batched",
    "data_root",
    "fetch",
    "find",
    "fingerprint",
    "load",
    "own_batch_size",
    "own_dataset",
    "own_part",
    "read_inputs",
    "train_validation",
]

DATASETS: Registry[Source] = Registry(
    "data set (or folder:PATH)",
    {source.name: source for source in (DIGITS, MNIST, FASHION_MNIST, CIFAR10, CIFAR100, IMAGENET32)},
)
"""The data sets known by name; `folder:PATH` is understood besides."""


def find(name: str, image_size: int | None = None, background: int = WHITE) -> Source:
    """Return the source of a data set.

    Args:
        name: a name in `DATASETS`, or `folder:PATH`.
        image_size: for `folder:PATH` alone, the height and width to bring every image to.
        background: for `folder:PATH` alone, the grey level that transparent images are laid on.

    Raises:
        UnknownNameError: a name that is neither.
        DualpropError: an image size below 1, or for a data set whose images have their size.
    """
    if name.startswith("folder:"):
        return folder_source(Path(name.removeprefix("folder:")).expanduser(), image_size, background)
    source = DATASETS[name]
    if image_size is not None:
        raise DualpropError(f"image_size is for folder:PATH only, not for {name}")
    if background != WHITE:
        raise DualpropError(f"background is for folder:PATH only, not for {name}")
    return source


def load(
    name: str, root: str | Path | None = None, image_size: int | None = None, background: int = WHITE
) -> Dataset:
    """Read a data set.

    Args:
        name: a name in `DATASETS`, or `folder:PATH`.
        root: the folder that data sets are kept in; see `data_root` for the default.
        image_size: for `folder:PATH` alone, the height and width to bring every image to.
        background: for `folder:PATH` alone, the grey level that transparent images are laid on.

    Raises:
        UnknownNameError: a name that is neither.
        DataError: files that are missing, damaged or not what the name says.

    Example:
        >>> digits = load("digits")
        >>> digits.in_shape, digits.num_classes, len(digits.train), len(digits.test)
        ((1, 8, 8), 10, 1437, 360)
    """
    return find(name, image_size, background).load(data_root(root))


def fetch(name: str, root: str | Path | None = None) -> None:
    """Download a data set unless its files are there, and check it by reading it.

    Args:
        name: a name in `DATASETS`.
        root: the folder that data sets are kept in; see `data_root` for the default.

    Raises:
        UnknownNameError: a name that `DATASETS` does not hold.
        DataError: no way to get the data set, no connection, or files that are not what the name says.
    """
    find(name).fetch(data_root(root))
