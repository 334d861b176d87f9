"""Any tree of images: PATH/train/CLASS/* and PATH/test/CLASS/*."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dualprop.arguments import Count, checked
from dualprop.data._moments import Moments
from dualprop.data.dataset import Dataset, Split
from dualprop.data.sources import Source
from dualprop.errors import DataError

_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@checked
def folder_source(path: Path, image_size: Count | None = None) -> Source:
    """Return the source that reads the tree of images at `path`.

    Every image is decoded once, into memory: to one channel if all files are grey, else to RGB.

    Args:
        path: a folder with the folders train and test, each with one folder of images per class.
        image_size: the height and width to bring every image to, by resizing its shorter side and cutting
            out the centre; None when all images have one size already.

    Raises:
        DualpropError: an image size below 1.
    """
    return Source(f"folder:{path}", f"the images in {path}", lambda root: _read(path, image_size))


def _read(path: Path, image_size: int | None) -> Dataset:
    classes, train_files, train_labels = _listed(path / "train")
    test_classes, test_files, test_labels = _listed(path / "test")
    if classes != test_classes:
        differing = ", ".join(sorted(set(classes) ^ set(test_classes)))
        raise DataError(f"{path}: train and test must have the same classes; in one only: {differing}")
    mode = _common_mode(train_files + test_files, image_size)
    train_images = _decoded(train_files, mode, image_size)
    moments = Moments(train_images.shape[1])
    moments.add(train_images.numpy())
    return Dataset(
        f"folder:{path}",
        Split(train_images, torch.tensor(train_labels)),
        Split(_decoded(test_files, mode, image_size), torch.tensor(test_labels)),
        classes,
        moments.mean,
        moments.std,
    )


def _listed(part: Path) -> tuple[tuple[str, ...], list[Path], list[int]]:
    from torchvision.datasets import ImageFolder

    if not part.is_dir():
        raise DataError(f"{part}: no such folder; a folder data set is PATH/train/CLASS/* and PATH/test/CLASS/*")
    try:
        found = ImageFolder(part)
    except FileNotFoundError as error:  # no class folder, or one without images
        raise DataError(f"{part}: {error}") from None
    files, labels = zip(*found.samples, strict=True)
    return tuple(found.classes), [Path(file) for file in files], list(labels)


def _common_mode(files: list[Path], image_size: int | None) -> str:
    """Return the Pillow mode that fits all files, from their headers alone."""
    modes = set()
    first_size = None
    for file in files:
        try:
            with Image.open(file) as image:
                mode, size = image.mode, image.size
        except _DAMAGED as error:
            raise _damaged(file, error) from None
        if mode not in _GREY_MODES + _COLOUR_MODES:
            raise DataError(f"{file}: must have 8 bits per channel, not Pillow's mode {mode!r}")
        first_size = first_size or size
        if image_size is None and size != first_size:
            raise DataError(
                f"{file}: is {size[0]}×{size[1]} pixels, but {files[0]} is {first_size[0]}×{first_size[1]}; "
                "set image_size to bring all images to one size"
            )
        modes.add(mode)
    return "L" if modes <= set(_GREY_MODES) else "RGB"


def _decoded(files: list[Path], mode: str, image_size: int | None) -> Tensor:
    first = _pixels(files[0], mode, image_size)
    images = torch.empty(len(files), *first.shape, dtype=torch.uint8)
    for image, file in zip(images, files, strict=True):
        image.copy_(_pixels(file, mode, image_size))
    return images


def _pixels(file: Path, mode: str, image_size: int | None) -> Tensor:
    from torchvision.transforms import functional

    try:
        with Image.open(file) as opened:
            image = opened.convert(mode)
    except _DAMAGED as error:
        raise _damaged(file, error) from None
    if image_size is not None:
        image = functional.center_crop(functional.resize(image, [image_size]), [image_size])
    pixels: Tensor = functional.pil_to_tensor(image)
    return pixels


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: no image that can be read: {' '.join(str(error).split())}")
