"""Files that somebody made to hurt: what each holds, how it is read, and the one line that is expected.

`python -m tests.data.hostile FOLDER` writes them all, to look at or to try from outside.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

MNIST = "MNIST/raw/train-images-idx3-ubyte"
CIFAR = "cifar-10-batches-py"
HUGE = 3_500_000_000


class Case(NamedTuple):
    """Files below a root, the data set that is read from there, and what is said."""

    files: dict[str, bytes | Callable[[Path], None]]
    data: str
    said: str
    image_size: int | None = None


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes, kind: int = 2, rows: bytes | None = None) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    rows = bytes((1 + 3 * width) * height) if rows is None else rows
    body = (chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def webp(width: int, height: int) -> bytes:
    """A lossless picture of one colour: five codes of one symbol each are all that it takes."""
    bits = (width - 1) | (height - 1) << 14 | 0 << 28
    bits |= sum(0b0001 << (32 + 3 + 4 * k) for k in range(5))
    body = b"\x2f" + bits.to_bytes(11, "little")
    body += b"\0" * (len(body) % 2)
    picture = b"VP8L" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(picture)) + b"WEBP" + picture


def gif(width: int, height: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    ifd = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + ifd + struct.pack("<I", 0)


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there so many times."""
    Image.new("L", (2000, 2000)).save(written := io.BytesIO(), "JPEG", progressive=True)
    content = written.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + count * content[last:-2] + content[-2:]


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def deep(path: Path) -> None:
    """Hundreds of folders in each other."""
    for _ in range(500):
        path.mkdir()
        path = path / "z"


def tree(name: str, content: bytes | Callable[[Path], None], said: str, image_size: int | None = None) -> Case:
    """A sound tree of images with one file more."""
    sound = {f"tree/{part}/{c}/a.png": png(2, 2) for part in ("train", "test") for c in ("cat", "dog")}
    return Case({**sound, f"tree/train/dog/{name}": content}, "folder:tree", said, image_size)


def mnist(content: bytes | Callable[[Path], None], said: str, name: str = MNIST) -> Case:
    others = {f"MNIST/raw/{part}-ubyte": b"" for part in ("t10k-images-idx3", "t10k-labels-idx1")}
    return Case({**others, "MNIST/raw/train-labels-idx1-ubyte": b"", name: content}, "mnist", said)


def cifar(content: bytes | Callable[[Path], None], said: str) -> Case:
    batches = {f"{CIFAR}/data_batch_{k}": b"" for k in range(2, 6)}
    meta = b"\x80\x02}U\x0blabel_names](" + b"U\x01a" * 10 + b"es."
    return Case(
        {**batches, f"{CIFAR}/test_batch": b"", f"{CIFAR}/batches.meta": meta, f"{CIFAR}/data_batch_1": content},
        "cifar10",
        said,
    )


def meta(names: bytes, said: str) -> Case:
    case = cifar(b"", said)
    return case._replace(
        files={**case.files, f"{CIFAR}/batches.meta": b"\x80\x02}U\x0blabel_names" + names + b"s."}
    )


READ = "read"
UNREADABLE = "no image that can be read"
NO_OPCODE = "the opcode {}, which no data set needs"

CASES = {
    # pickles
    "pickle: code": cifar(b"cos\nsystem\n(S'true'\ntR.", r"refused: os\.system"),
    "pickle: code behind a dot": cifar(
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", r"refused: numpy\.ndarray"
    ),
    "pickle: bytearray": cifar(b"\x80\x05\x96" + struct.pack("<Q", HUGE) + b"}.", "damaged or not a data file"),
    "pickle: short bytearray": cifar(
        b"\x80\x05\x96" + struct.pack("<Q", 1) + b"a.", NO_OPCODE.format("BYTEARRAY8")
    ),
    "pickle: read-only buffer": cifar(b"\x80\x05C\x01a\x98.", NO_OPCODE.format("READONLY_BUFFER")),
    "pickle: next buffer": cifar(b"\x80\x05\x97.", NO_OPCODE.format("NEXT_BUFFER")),
    "pickle: extension": cifar(b"\x80\x02\x84\xff\xff\xff\x7f.", NO_OPCODE.format("EXT4")),
    "pickle: instance": cifar(b"(ios\nsystem\n.", NO_OPCODE.format("INST")),
    "pickle: object": cifar(b"(cnumpy\ndtype\no.", NO_OPCODE.format("OBJ")),
    "pickle: persistent": cifar(b"Pdata\n.", NO_OPCODE.format("PERSID")),
    "pickle: set": cifar(b"\x80\x04\x8f(" + b"K\x01" * 9 + b"\x90.", NO_OPCODE.format("EMPTY_SET")),
    "pickle: duplicate": cifar(b"\x80\x02]" + b"2" * 9 + b".", NO_OPCODE.format("DUP")),
    "pickle: endless hash": cifar(
        b"\x80\x02})q\x00" + b"".join(b"h%c\x86q%c" % (k, k + 1) for k in range(60)) + b"Ns.",
        "a key that is no short string",
    ),
    "pickle: deep tuples": cifar(b"\x80\x02)" + b"\x85" * 200_000 + b".", "must hold a dictionary"),
    "pickle: deep lists": cifar(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", "must hold a dictionary"),
    "pickle: many objects": cifar(b"\x80\x02" + b"}" * 3_000_000 + b".", "more than 2,097,152 opcodes"),
    "pickle: long number": cifar(b"\x80\x02L1" + b"0" * 100_000 + b"L\n.", "damaged or not a data file"),
    "pickle: long key": cifar(
        b"\x80\x02}X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"Ns.", "a key that is no short"
    ),
    "pickle: memo": cifar(b"\x80\x02}r\xff\xff\xff\xff.", "must hold a dictionary with 'data'"),
    "pickle: huge string": cifar(b"\x80\x02T\xff\xff\xff\x7fabc.", "damaged or not a data file"),
    "pickle: huge array": cifar(
        b"\x80\x02}U\x04datacnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft\x85RsU\x06labels]s.",
        r"'data' must be an array of uint8 of shape \(N, 3072\)",
    ),
    "pickle: a message": cifar(
        b"\x80\x02X\x0e\x00\x00\x00\x1b]0;owned\x07\n\n\r\n\x1b[2Jq\x00.", "damaged|must hold"
    ),
    "pickle: a name": meta(b"](" + b"U\x01a" * 9 + b"K\x01e", "a list of 10 class names"),
    "pickle: one name ten times": meta(b"](" + b"U\x03dog" * 10 + b"e", "data_batch_1: damaged"),
    "pickle: empty": cifar(b"", "damaged or not a data file"),
    "pickle: pipe": cifar(os.mkfifo, f"no {CIFAR}/data_batch_1 in"),
    "pickle: device": cifar(link("/dev/zero"), f"no {CIFAR}/data_batch_1 in"),
    "pickle: loop": cifar(link("data_batch_1"), f"no {CIFAR}/data_batch_1 in"),
    "pickle: sparse": cifar(
        lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**40), "more than the 536,"
    ),
    # IDX
    "idx: huge header": mnist(
        b"\0\0\x08\x03" + b"\xff" * 12, r"its header says \(4294967295, 4294967295, 4294967295\)"
    ),
    "idx: many images": mnist(b"\0\0\x08\x03\x7f\xff\xff\xff\0\0\0\x1c\0\0\0\x1c", "its header says"),
    "idx: cut": mnist(b"\0\0\x08\x03\0\0\0\x05\0\0\0\x1c\0\0\0\x1c", "it holds fewer than the 3,920 bytes"),
    "idx: no header": mnist(b"\0\0\x08\x03\0", "its header is cut short"),
    "idx: floats": mnist(b"\0\0\x0d\x03" + bytes(12), "it begins with 00000d03"),
    "idx: dimensions": mnist(b"\0\0\x08\xff" + bytes(1020), "it begins with 000008ff"),
    "idx: zip bomb": mnist(gzip.compress(b"\0\0\x08\x03" + bytes(12) + bytes(3 * 10**8)), "IDX file"),
    "idx: damaged gzip": mnist(gzip.compress(bytes(100))[:-9] + b"\xff" * 9, "IDX file"),
    "idx: gzip of a long name": mnist(b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 10**8 + b"\0", "it is cut short"),
    "idx: gzip of many parts": mnist(gzip.compress(b"", mtime=0) * 3_000_000, "something is behind its end"),
    "idx: gzip in gzip": mnist(gzip.compress(gzip.compress(bytes(100))), "it begins with 1f8b0800"),
    "idx: pipe": mnist(os.mkfifo, f"no {MNIST} in"),
    "idx: device": mnist(link("/dev/zero"), f"no {MNIST} in"),
    "idx: folder": mnist(Path.mkdir, f"no {MNIST} in"),
    # images
    "image: empty": tree("z.png", b"", UNREADABLE),
    "image: PostScript": tree("z.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\nshowpage\n", UNREADABLE),
    "image: PostScript in DOS": tree("z.png", b"\xc5\xd0\xd3\xc6" + bytes(100), UNREADABLE),
    "image: Windows metafile": tree("z.png", b"\xd7\xcd\xc6\x9a\0\0" + bytes(100), UNREADABLE),
    "image: archive in FITS": tree("z.png", b"SIMPLE  =                    T".ljust(2880), UNREADABLE),
    "image: HDF5": tree("z.png", b"\x89HDF\r\n\x1a\n" + bytes(100), UNREADABLE),
    "image: SVG": tree("z.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', UNREADABLE),
    "image: SVG by its name": tree("z.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', READ),
    "image: PNG bomb": tree("z.png", png(60_000, 60_000, rows=b""), "exceeds limit|decompression bomb", 8),
    "image: PNG text bomb": tree(
        "z.png",
        png(2, 2, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7), 9)) for _ in range(20)]),
        UNREADABLE,
    ),
    "image: PNG profile bomb": tree(
        "z.png", png(2, 2, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8), 9))), READ
    ),
    "image: PNG cut": tree("z.png", png(2, 2)[:-30], UNREADABLE),
    "image: PNG of nothing": tree("z.png", png(0, 0), UNREADABLE, 8),
    "image: PNG chunk": tree("z.png", png(2, 2, struct.pack(">I", 2**31 - 1) + b"tEXt"), UNREADABLE),
    "image: WebP bomb": tree("z.webp", webp(16_383, 16_383), "exceeds limit|decompression bomb|no image", 8),
    "image: WebP below the error": tree("z.webp", webp(12_000, 12_000), "exceeds limit|no image", 8),
    "image: WebP below the warning": tree("z.webp", webp(9_400, 9_400), "need .* GiB of memory|no image|read", 8),
    "image: GIF bomb": tree("z.gif", gif(65_535, 65_535), "exceeds limit|decompression bomb|no image", 8),
    "image: PPM bomb": tree("z.ppm", b"P6 99999999 99999999 255\n", "exceeds limit|decompression bomb", 8),
    "image: PPM without end": tree("z.ppm", b"P6 " + b"1" * 10**6, UNREADABLE),
    "image: strip": tree("z.ppm", b"P5 1000000 1 255\n" + bytes(10**6), "choose a smaller image_size", 4_000),
    "image: TIFF loop": tree(
        "z.tif", tiff((256, 3, 1, 2), (257, 3, 1, 2))[:-4] + struct.pack("<I", 8), UNREADABLE
    ),
    "image: TIFF tags": tree("z.tif", tiff((256, 4, 2**32 - 1, 8), (257, 4, 1, 2)), UNREADABLE),
    "image: BMP": tree(
        "z.bmp",
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHI", 40, 2**30, 2**30, 1, 24, 0)
        + bytes(20),
        "exceeds limit|decompression bomb|no image",
    ),
    "image: JPEG": tree(
        "z.jpg",
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3\1\x11\0\2\x11\0\3\x11\0\xff\xd9",
        "exceeds limit|bomb|no image",
    ),
    "image: JPEG of many scans": tree("z.jpg", scans(20_000), "more than 1,000 scans", 8),
    "image: large size asked for": tree(
        "z.png", png(2, 2), r"9 images .* choose a smaller image_size|5 images .* choose a smaller", 100_000
    ),
    "image: absurd size asked for": tree("z.png", png(2, 2), "choose a smaller image_size", 10**18),
    "image: pipe": tree("z.png", os.mkfifo, READ),
    "image: device": tree("z.png", link("/dev/zero"), READ),
    "image: link out": tree("z.png", link("/etc/passwd"), READ),
    "image: link to itself": tree("z.png", link("z.png"), READ),
    "image: folder in a loop": tree("z", link(".."), READ),
    "image: folder by the name of an image": tree("z.png", Path.mkdir, READ),
    "image: name": tree("\x1b]0;owned\x07\n.png", b"", UNREADABLE),
    "image: name of bytes": tree(os.fsdecode(b"\xff\xfe.png"), b"", UNREADABLE),
    "tree: class name": Case(
        {f"tree/{part}/{c}/a.png": png(2, 2) for part, c in (("train", "\x1b[2Jcat"), ("test", "cat"))},
        "folder:tree",
        r"in one only: (cat, )?\\x1b\[2Jcat",
    ),
    "tree: no part": Case({"tree/x": b""}, "folder:tree", "train: no such folder"),
    "tree: part out of it": Case(
        {"tree/train": link("/usr"), "tree/test": link("/usr")}, "folder:tree", "leads out of"
    ),
    "tree: deep": tree("z", deep, READ),
}


def write(case: Case, root: Path) -> None:
    """Write the files of a case."""
    for name, content in case.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)


if __name__ == "__main__":
    for number, (name, case) in enumerate(CASES.items()):
        write(case, Path(sys.argv[1]) / f"{number:02d}")
        print(f"{number:02d} {name}: {case.said}")
