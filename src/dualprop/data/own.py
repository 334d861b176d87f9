"""Data of one's own: arrays, a torch `Dataset` or a `DataLoader` as a data set."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch.utils import data as torch_data

from dualprop.data._arrays import of_arrays
from dualprop.data._moments import moments
from dualprop.data.dataset import Dataset, Part, Split, train_validation
from dualprop.data.items import Items
from dualprop.errors import DualpropError

logger = logging.getLogger("dualprop")

OWN = "data of one's own"
TEST_SHARE = 0.2
"""Of the samples, where there is no part of its own to test on."""

MOST_CLASSES = 10**6


def own_dataset(given: Any) -> Dataset:
    """Return what was given as a data set.

    Args:
        given: (X, y), a torch `Dataset` or a `DataLoader`; or two of them, the second to test on: (train, test).
            X holds floating-point features of shape (N, ...), or pixels, uint8 of shape (N, C, H, W) or (N, H, W).
            y holds labels, whole numbers from 0 on of shape (N,), or floating-point targets of shape (N, ...). A
            `DataLoader` stands for its data set, the way it makes batches of samples, its workers and its batch
            size. Without a part to test on, a fifth drawn by a fixed seed is kept for it. A `Dataset` of this
            library stays as it is.

    Raises:
        DualpropError: for anything else, for shapes that do not fit, NaN or infinite numbers.

    Example:
        >>> dataset = own_dataset((torch.eye(10), torch.arange(10) % 3))
        >>> dataset.in_shape, dataset.num_classes, len(dataset.train), len(dataset.test)
        ((10,), 3, 8, 2)
    """
    if isinstance(given, Dataset):
        return given
    train: Part
    test: Part
    if _is_pair(given):
        train, test = (own_part(part, name) for part, name in zip(given, ("train", "test"), strict=True))
    else:
        train = own_part(given, "train")
        logger.info("data: no part to test on is given; every fifth sample, drawn by a fixed seed, is kept for it")
        train, test = train_validation(train, TEST_SHARE, 0)
        if not len(test):
            raise DualpropError(f"data: {len(train)} samples are too few to keep a fifth of them to test on")
    mean, std = moments(train) if isinstance(train, Split) else ((), ())
    return Dataset(OWN, train, test, _classes(train, test), mean, std)


def own_batch_size(dataset: Dataset) -> int | None:
    """The batch size that comes with the data, that of a `DataLoader`."""
    return dataset.train.batch_size if isinstance(dataset.train, Items) else None


def _is_pair(given: Any) -> bool:
    """Whether it is (train, test), and not (X, y)."""
    return (
        isinstance(given, tuple) and len(given) == 2 and any(isinstance(part, (tuple, *_LAZY)) for part in given)
    )


_LAZY = (torch_data.Dataset, torch_data.DataLoader)


def own_part(given: Any, name: str = "data") -> Split | Items:
    """Return arrays, a torch `Dataset` or a `DataLoader` as a part of a data set; see `own_dataset`."""
    if isinstance(given, torch_data.DataLoader):
        return _of_loader(given)
    if isinstance(given, torch_data.Dataset):
        return _of_dataset(given)
    if isinstance(given, tuple) and len(given) == 2:
        return of_arrays(*given, name)
    raise DualpropError(
        f"data: of type {type(given).__name__}, but it must be (X, y) arrays, a torch Dataset or DataLoader, or "
        "two of them, to train and to test on"
    )


def _of_loader(loader: torch_data.DataLoader[Any]) -> Split | Items:
    sampler, dataset = loader.sampler, loader.dataset
    in_order = isinstance(sampler, torch_data.SequentialSampler)
    if not in_order and not (isinstance(sampler, torch_data.RandomSampler) and not sampler.replacement):
        raise DualpropError(
            f"data: a DataLoader with a {type(sampler).__name__}; give its data set, or train with "
            "dualprop.Trainer, which takes the batches of a DataLoader as they come"
        )
    if loader.batch_size is None:
        raise DualpropError("data: a DataLoader with batches of its own; train with dualprop.Trainer")
    return _of_dataset(dataset, loader.collate_fn, loader.num_workers, loader.batch_size)


def _of_dataset(
    dataset: Any, collate: Any = torch_data.default_collate, workers: int = 0, batch_size: int | None = None
) -> Items:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DualpropError(f"data: a {type(dataset).__name__} has no length or no numbered samples")
    if not len(dataset):
        raise DualpropError(f"data: a {type(dataset).__name__} without samples")
    return Items(dataset, collate, workers, batch_size=batch_size)


def _classes(*parts: Part) -> tuple[str, ...]:
    """A name for every label, none where targets are numbers."""
    numbers = {part.first[1].is_floating_point() for part in parts}
    if len(numbers) == 2:
        raise DualpropError("data: train and test targets must both be labels, or both be floating-point numbers")
    if numbers == {True}:
        return ()
    for part in parts:
        names = getattr(part.dataset, "classes", None) if isinstance(part, Items) else None
        if isinstance(names, (list, tuple)) and names:
            return tuple(map(str, names))
    labels = torch.cat([part.targets() for part in parts])
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= MOST_CLASSES:
        raise DualpropError(
            f"data: labels must be classes, counted from 0, fewer than {MOST_CLASSES:,}, not {low}..{high}"
        )
    return tuple(map(str, range(high + 1)))
