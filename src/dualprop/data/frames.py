"""A folder of images as a stream: one after the other in the order of their names, read when their turn comes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor

from dualprop.arguments import Count, Grey, checked
from dualprop.data._tree import LeftOut, images_below
from dualprop.data.folder import WHITE, Reader, headers_of
from dualprop.errors import DataError


class Frames:
    """The images in a folder and the folders in it, by name. An image's class is the folder in it that it is in.

    Args:
        path: the folder.
        image_size: height and width to bring every image to; where None they must be of one size.
        background: the grey level that transparent images are laid on.

    Attributes:
        files: in their order.
        classes: the names of the folders below; none where all images are in the folder itself.

    Raises:
        DataError: for a folder without images, or an image that cannot be read.
    """

    @checked
    def __init__(self, path: Path, image_size: Count | None = None, background: Grey = WHITE) -> None:
        path = path.absolute()
        if not path.is_dir():
            raise DataError(f"{path}: no such folder")
        left_out = LeftOut()
        self.files = sorted(images_below(path, path.resolve(), left_out), key=lambda file: file.relative_to(path))
        left_out.tell(path)
        if not self.files:
            raise DataError(f"{path}: has no image that is read")
        below = {file.relative_to(path).parts[0] for file in self.files if file.parent != path}
        self.classes = tuple(sorted(below))
        headers = headers_of(self.files, image_size)
        mode = "L" if all(header.grey for header in headers) else "RGB"
        self._path, self._reader = path, Reader(path, mode, image_size, background)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[Tensor, int | None]:
        """An image, uint8 of shape (C, H, W), and its class; None for one in the folder itself."""
        return self._reader.pixels(self.files[number]), self._label(number)

    def digest(self, count: int) -> str:
        """What tells the first images from others: their names, sizes and classes. What comes behind may change.

        Args:
            count: how many.
        """
        digest = hashlib.blake2b(digest_size=16)
        for number, file in enumerate(self.files[:count]):
            size = file.stat().st_size if file.exists() else None
            digest.update(repr((file.relative_to(self._path).parts, size, self._label(number))).encode())
        return digest.hexdigest()

    def _label(self, number: int) -> int | None:
        file = self.files[number]
        return None if file.parent == self._path else self.classes.index(file.relative_to(self._path).parts[0])
