"""One image file: which formats are opened, and what becomes of depth, orientation and transparency."""

from __future__ import annotations

import functools
import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile, UnidentifiedImageError

from dualprop.errors import DataError

LARGEST_FILE = 2**29
"""Bytes of one image file."""

MOST_SCANS = 1000
"""Of progressive JPEGs, which have a dozen: each is a few bytes, and goes over the whole picture."""
_SCAN = b"\xff\xda"

_KNOWN_BY_CONTENT = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "QOI", "PSD")
_KNOWN_BY_NAME = (
    *("BLP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "ICNS", "ICO", "IM", "MSP", "PCD", "PCX", "PIXAR"),
    *("SGI", "SUN", "TGA", "XBM", "XPM"),
)
"""Those too little of which says what they are. None of them, and none above, is given to another program to read,
as PostScript is, or holds an archive, as FITS does."""

_GREY = frozenset({"1", "L", "LA"})
_COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
_DEEP = re.compile(r";(16|32)[A-Z]|SGI16")  # not "BGR;16", which is 5, 6 and 5 bits
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@functools.cache
def extensions() -> dict[str, str]:
    """The ends of names, in small letters, of the formats that are opened, and which that is."""
    known = {*_KNOWN_BY_CONTENT, *_KNOWN_BY_NAME}
    found = Image.registered_extensions()
    return {end: name for end, name in found.items() if name in known} | {".mpo": "JPEG"}


@dataclass(frozen=True)
class Header:
    """What an image file says of itself.

    Attributes:
        size: width and height, as they are stored.
        grey: whether it has no colours.
        frames: whether there are several pictures in it.
    """

    size: tuple[int, int]
    grey: bool
    frames: bool


def header(file: Path, content: IO[bytes]) -> Header:
    """What an image is, before it is decoded.

    Args:
        file: its name, for the message and the format.
        content: what it holds.

    Raises:
        DataError: no image that can be read, or one with more than 8 bits per channel or too many pixels.
    """
    with _opened(file, content) as image:
        if image.mode not in _GREY | _COLOUR or _is_deep(image, content):
            raise DataError(f"{file}: must have 8 bits per channel, not more; Pillow's mode is {image.mode!r}")
        several = image.format != "MPO" and bool(getattr(image, "is_animated", False))
        return Header(image.size, image.mode in _GREY, several)


def decoded(file: Path, content: bytes, mode: str, background: int) -> tuple[Image.Image, bool]:
    """The picture, upright and opaque.

    Args:
        file: as for `header`.
        content: as for `header`.
        mode: "L" or "RGB".
        background: the grey level, in 0..255, that what is transparent is laid on.

    Returns:
        The first picture in the file, and whether it was transparent anywhere.

    Raises:
        DataError: no image that can be read, or one of which nothing is left on that background.
    """
    if content.count(_SCAN) > MOST_SCANS:
        raise DataError(f"{file}: no image that can be read: more than {MOST_SCANS:,} scans of a JPEG")
    with _opened(file, io.BytesIO(content)) as image:
        if not image.has_transparency_data:
            return _upright(image).convert(mode), False
        layered = _upright(image).convert("RGBA")
        low, high = layered.getchannel("A").getextrema()
        ground = Image.new("RGBA", layered.size, (background,) * 3 + (255,))
        flat = Image.alpha_composite(ground, layered).convert(mode)
        if low != high and not any(_varies(channel) for channel in flat.split()):
            raise DataError(
                f"{file}: nothing is left of it on a background={background}; choose another grey level in 0..255"
            )
        return flat, low != 255


@contextmanager
def _opened(file: Path, content: IO[bytes]) -> Iterator[ImageFile.ImageFile]:
    own = extensions().get(file.suffix.lower())
    formats = [name for name in (*_KNOWN_BY_CONTENT, own) if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(content, formats=formats) as image:
                yield image
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{file}: no image that can be read: its content is of no format that is opened") from None
    except Exception as error:  # a damaged file raises errors of nearly every type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file}: no image that can be read: {reason}") from None


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # TIFF is turned here, and says so in its EXIF
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF that cannot be read says nothing about the image
        turn = None
    return image if turn is None else image.transpose(turn)


def _varies(channel: Image.Image) -> bool:
    low, high = channel.getextrema()
    return bool(low != high)


def _is_deep(image: ImageFile.ImageFile, content: IO[bytes]) -> bool:
    """Whether Pillow would cut the colours to 8 bits."""
    if image.format in _BITS:
        content.seek(0)
        return _BITS[image.format](content.read()) > 8
    for codec, _, _, arguments in image.tile:
        words = (codec, *arguments) if isinstance(arguments, tuple) else (codec, arguments)
        if any(isinstance(word, str) and _DEEP.search(word) for word in words):
            return True
        if image.format == "PPM" and any(isinstance(word, int) and word > 255 for word in words):
            return True  # the largest value of a colour
    return False


def _bits_of_jpeg2000(content: bytes) -> int:
    """The largest depth in the codestream's marker SIZ, which has one byte of it for each component."""
    siz = content.find(b"\xff\x4f\xff\x51")
    (count,) = struct.unpack_from(">H", content, siz + 40)
    return max(1 + (content[siz + 42 + 3 * k] & 0x7F) for k in range(count))


def _bits_of_avif(content: bytes) -> int:
    """8, or more where the box av1C has its flag for 10 or 12 bits."""
    box = content.find(b"av1C")
    return 10 if box >= 0 and content[box + 6] & 0x40 else 8


_BITS = {"JPEG2000": _bits_of_jpeg2000, "AVIF": _bits_of_avif}
