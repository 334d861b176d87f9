"""ImageNet downsampled to 32×32, converted once to a memory map: 1.28 million images need no memory."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import platformdirs
import torch

from dualprop.arguments import Portion, check
from dualprop.data._moments import Moments
from dualprop.data._pickled import read_batch
from dualprop.data.dataset import Dataset, Split
from dualprop.data.sources import Source
from dualprop.errors import DataError
from dualprop.files import open_regular, parse_json, read_regular

_FORMAT = 3
"""Of the converted files."""

_FOLDER = "imagenet32"
_TRAIN = tuple(f"{_FOLDER}/train_data_batch_{number}" for number in range(1, 11))
_TEST = (f"{_FOLDER}/val_data",)
_LABELS = range(1, 1001)
_TOGETHER = 10_000  # images that are verified at once
_LARGEST_ABOUT, _LARGEST_LABELS, _LARGEST_PIXELS = 2**20, 2**25, 2**33  # bytes, for 1.28 million images
_IMAGE_SHAPE = (3, 32, 32)
_ADVICE = (
    "the files are those of the ImageNet32x32 train and val archives, to be had with an account at "
    f"https://image-net.org/download-images.php and unpacked into the folder {_FOLDER} of the data root"
)


def _read(root: Path) -> Dataset:
    sources = [(file, *_stamp(root / file)) for file in _TRAIN + _TEST]
    version = hashlib.blake2b(json.dumps([_FORMAT, *sources]).encode(), digest_size=8).hexdigest()
    converted = _place(root) / f"converted-{version}"
    if not converted.is_dir():
        _convert(root, sources, converted)
    return _opened(converted)


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _place(root: Path) -> Path:
    beside = root / _FOLDER
    return beside if os.access(beside, os.W_OK) else platformdirs.user_cache_path("dualprop") / _FOLDER


def _convert(root: Path, sources: list[tuple[str, int, int]], converted: Path) -> None:
    """Write the folder `converted` in full or not at all; its name changes with the source files."""
    outdated = set(converted.parent.glob("converted-*")) - {converted}
    try:
        converted.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".converting-", dir=converted.parent) as temporary:
            complete = Path(temporary) / "complete"
            complete.mkdir()
            digest = hashlib.blake2b(digest_size=16)
            moments = _write_part([root / file for file in _TRAIN], complete / "train", digest)
            _write_part([root / file for file in _TEST], complete / "test", digest)
            about = {
                "sources": sources,
                "mean": moments.mean,
                "std": moments.std,
                "fingerprint": digest.hexdigest(),
            }
            (complete / "about.json").write_text(json.dumps(about, indent=2))
            os.replace(complete, converted)
    except OSError as error:
        if not converted.is_dir():  # it is there when another process was faster
            raise DataError(f"{converted}: cannot be written: {error}") from None
    for folder in outdated:
        shutil.rmtree(folder, ignore_errors=True)


def _write_part(paths: list[Path], stem: Path, digest: hashlib.blake2b) -> Moments:
    """Append the pixels of one batch after another, so that only one of them is in memory."""
    moments = Moments(channels=3)
    all_labels = []
    with stem.with_suffix(".pixels").open("wb") as pixels:
        for path in paths:
            images, labels = read_batch(path, "labels", _LABELS)
            content = np.ascontiguousarray(images).data
            pixels.write(content)
            digest.update(content)
            moments.add(images)
            all_labels.append(labels)
    together = np.concatenate(all_labels)
    digest.update(together.tobytes())
    np.save(stem.with_suffix(".npy"), together)
    return moments


def _opened(converted: Path) -> Dataset:
    try:
        about = parse_json(read_regular(converted / "about.json", _LARGEST_ABOUT))
        train, test = (_mapped(converted / part) for part in ("train", "test"))
        mean, std = (check(name, about[name], list[Portion]) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or not all(std):
            raise ValueError("mean and std must be three numbers each, and std above 0")
        if not re.fullmatch("[0-9a-f]{32}", fingerprint := check("fingerprint", about["fingerprint"], str)):
            raise ValueError("the fingerprint is none")
    except Exception as error:  # damaged JSON and labels raise errors of nearly every type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{converted}: damaged ({reason}); delete it to have it made again") from None
    num_classes = 1 + int(train.labels.max())
    classes = tuple(str(label) for label in _LABELS[:num_classes])
    verify = partial(_verify, converted, (train, test), fingerprint)
    return Dataset("imagenet32", train, test, classes, tuple(mean), tuple(std), fingerprint, verify)


def _verify(converted: Path, parts: tuple[Split, Split], fingerprint: str) -> None:
    """Read all pixels of the converted copy, which otherwise stay on disk until their batch is asked for."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        for images in torch.split(part.images, _TOGETHER):
            digest.update(images.numpy().data)
        digest.update(part.labels.numpy().tobytes())
    if digest.hexdigest() != fingerprint:
        raise DataError(f"{converted}: holds other images than were converted; delete it to have it made again")


def _mapped(stem: Path) -> Split:
    labels = np.load(io.BytesIO(read_regular(stem.with_suffix(".npy"), _LARGEST_LABELS)))
    if labels.dtype != np.int64 or labels.ndim != 1 or not len(labels):
        raise ValueError(f"{stem.name}.npy must hold int64 of shape (N,)")
    if labels.min() < 0 or labels.max() >= len(_LABELS):
        raise ValueError(f"{stem.name}.npy must hold labels below {len(_LABELS)}")
    with open_regular(stem.with_suffix(".pixels"), _LARGEST_PIXELS) as file:
        pixels = np.memmap(file, np.uint8, "c", shape=(len(labels), *_IMAGE_SHAPE))
    return Split(torch.from_numpy(pixels), torch.from_numpy(labels))


def _obtain(root: Path) -> None:
    raise DataError(f"imagenet32 cannot be downloaded into {root} without an account; {_ADVICE}")


IMAGENET32 = Source(
    "imagenet32",
    "ImageNet as colour 32×32 images (1.28 million in 1,000 classes, or a part of them)",
    _read,
    _TRAIN + _TEST,
    _obtain,
    _ADVICE,
)
"""The official pickled batches; the validation images are the test part."""
