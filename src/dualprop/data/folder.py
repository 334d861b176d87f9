"""Any tree of images: PATH/train/CLASS/* and PATH/test/CLASS/*."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dualprop.arguments import Count, Grey, checked
from dualprop.data._images import LARGEST_FILE, Header, decoded, header
from dualprop.data._memory import check_fits
from dualprop.data._moments import Moments
from dualprop.data._tree import LeftOut, tree
from dualprop.data.dataset import Dataset, Split
from dualprop.data.sources import Source
from dualprop.errors import DataError
from dualprop.files import open_regular, read_regular

logger = logging.getLogger("dualprop")

WHITE = 255


@checked
def folder_source(path: Path, image_size: Count | None = None, background: Grey = WHITE) -> Source:
    """Return the source that reads the tree of images at `path`.

    Every image is decoded once, into memory: to one channel if all files are grey, else to RGB. It is turned
    upright if its EXIF says so. What is no image, hidden, or a link to a folder is left out, and a line of the log
    counts it.

    Args:
        path: a folder with the folders train and test, each with one folder of images per class.
        image_size: the height and width to bring every image to, by resizing its shorter side and cutting
            out the centre; None when all images have one size already.
        background: the grey level that transparent images are laid on.

    Raises:
        DualpropError: an image size below 1, or a grey level outside 0..255.
    """
    path = path.absolute()
    return Source(f"folder:{path}", f"the images in {path}", lambda root: _read(path, image_size, background))


def _read(path: Path, image_size: int | None, background: int) -> Dataset:
    left_out = LeftOut()
    train, test = (tree(path, part, left_out) for part in ("train", "test"))
    left_out.tell(path)
    if train.classes != test.classes:
        differing = ", ".join(sorted(set(train.classes) ^ set(test.classes)))
        raise DataError(f"{path}: train and test must have the same classes; in one only: {differing}")
    headers = headers_of(train.files + test.files, image_size)
    mode = "L" if all(header.grey for header in headers) else "RGB"
    _check_memory(path, headers, mode, image_size)
    reader = Reader(path, mode, image_size, background)
    train_images, test_images = reader.read(train.files), reader.read(test.files)
    if reader.transparent:
        logger.warning(
            "%s: %d images are transparent; laid on the grey level %d (background)",
            path,
            reader.transparent,
            background,
        )
    if several := sum(header.frames for header in headers):
        logger.warning("%s: %d files hold several images, the first of which is read", path, several)
    moments = Moments(train_images.shape[1])
    moments.add(train_images.numpy())
    return Dataset(
        f"folder:{path}",
        Split(train_images, torch.tensor(train.labels)),
        Split(test_images, torch.tensor(test.labels)),
        train.classes,
        moments.mean,
        moments.std,
        reader.fingerprint,
    )


def headers_of(files: list[Path], image_size: int | None) -> list[Header]:
    """What all files say of themselves; images of different sizes are refused where no size was asked for."""
    headers: list[Header] = []
    for file in files:
        try:
            with open_regular(file, LARGEST_FILE) as content:
                headers.append(header(file, content))
        except OSError as error:
            raise DataError(f"{file}: no image that can be read: {error}") from None
        if image_size is None and sorted(headers[-1].size) != sorted(headers[0].size):
            raise _differing(file, headers[-1].size, files[0], headers[0].size)
    return headers


def _differing(file: Path, size: tuple[int, int], first: Path, first_size: tuple[int, int]) -> DataError:
    return DataError(
        f"{file}: is {size[0]}×{size[1]} pixels, but {first} is {first_size[0]}×{first_size[1]}; "
        "set image_size to bring all images to one size"
    )


def _check_memory(path: Path, headers: Sequence[Header], mode: str, image_size: int | None) -> None:
    """Refuse what does not fit, before anything is decoded."""
    channels = len(mode)
    width, height = headers[0].size if image_size is None else (image_size, image_size)
    kept = len(headers) * channels * width * height
    largest = max(_working(header.size, image_size) for header in headers)
    check_fits(
        kept + largest,
        f"{path}: {len(headers)} images of {channels}×{height}×{width}",
        "choose a smaller image_size or fewer images",
    )


def _working(size: tuple[int, int], image_size: int | None) -> int:
    """Bytes for one image while it is decoded, laid on its background and resized, 4 for each pixel at a time."""
    width, height = size
    pixels = 3 * width * height
    if image_size is not None:
        shorter, longer = sorted((max(1, width), max(1, height)))
        pixels += 2 * image_size * (image_size * longer // shorter + 1)
    return 4 * pixels


class Reader:
    """Decodes files, and keeps a digest of their names and of all that they hold."""

    def __init__(self, path: Path, mode: str, image_size: int | None, background: int) -> None:
        self.path, self.mode, self.image_size, self.background = path, mode, image_size, background
        self.transparent = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._first: tuple[Path, tuple[int, int]] | None = None

    def read(self, files: list[Path]) -> Tensor:
        """The pixels of all of them, uint8 of shape (N, C, H, W)."""
        first = self.pixels(files[0])
        images = torch.empty(len(files), *first.shape, dtype=torch.uint8)
        images[0] = first
        for image, file in zip(images[1:], files[1:], strict=True):
            image.copy_(self.pixels(file))
        return images

    @property
    def fingerprint(self) -> str:
        """The digest of all that has been read."""
        return self._digest.hexdigest()

    def pixels(self, file: Path) -> Tensor:
        """Those of one file, uint8 of shape (C, H, W)."""
        from torchvision.transforms import functional

        try:
            content = read_regular(file, LARGEST_FILE)
            image, transparent = decoded(file, content, self.mode, self.background)
            self.transparent += transparent
            if self.image_size is not None:
                side = [self.image_size]
                image = functional.center_crop(functional.resize(image, side), side)
        except (OSError, MemoryError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{file}: no image that can be read: {error or 'out of memory'}") from None
        self._count_in(file, content, image)
        pixels: Tensor = functional.pil_to_tensor(image)
        return pixels

    def _count_in(self, file: Path, content: bytes, image: Image.Image) -> None:
        self._first = self._first or (file, image.size)
        if image.size != self._first[1]:
            raise _differing(file, image.size, *self._first)
        name = str(file.relative_to(self.path)).encode("utf-8", "surrogateescape")
        self._digest.update(hashlib.blake2b(name).digest() + hashlib.blake2b(content).digest())
