"""Sound files, damaged at random: each is read, or refused in one line.

`python -m tests.data.mutations 10000` tries that many, and says how many were read and refused; a second number is
that of the first, for others.
"""

from __future__ import annotations

import gzip
import io
import pickle
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dualprop import data
from dualprop.data._idx import read_idx
from dualprop.data._images import decoded, extensions, header
from dualprop.data._pickled import read_batch
from tests.data.fake_files import idx
from tests.limits import judged

RNG = np.random.default_rng(0)
EXTREMES = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0", b"1" * 20, b"\x1b[2J", b"\n")


def encoded(name: str) -> bytes:
    """A small picture, in one of the modes that the format has."""
    picture = Image.fromarray(RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8))
    for mode in ("RGBA", "RGB", "P", "L", "1"):
        try:
            picture.convert(mode).save(written := io.BytesIO(), name)
            return written.getvalue()
        except (OSError, ValueError):
            continue
    raise AssertionError(f"{name} has another mode")


def read_image(path: Path) -> object:
    with path.open("rb") as content:
        head = header(path, content)
    assert head.size[0] * head.size[1] < 10**8
    return decoded(path, path.read_bytes(), "RGB", 255)


def read_dataset(path: Path) -> object:
    """A file of a converted ImageNet32."""
    root = Path(tempfile.mkdtemp(dir=path.parent))
    for file in (*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"):
        write_batch(root / "imagenet32" / file)
    data.load("imagenet32", root)
    (folder,) = (root / "imagenet32").glob("converted-*")
    (folder / path.name).write_bytes(path.read_bytes())
    return data.load("imagenet32", root)


def write_batch(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(batch())


def batch(protocol: int = 3) -> bytes:
    content = {
        "data": np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072),
        "labels": [1, 2],
        "names": ("a", b"b"),
    }
    return pickle.dumps(content, protocol)


def sound() -> dict[str, tuple[bytes, Callable[[Path], object]]]:
    """A file of every kind by its name, and what reads it."""
    images = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    files: dict[str, tuple[bytes, Callable[[Path], object]]] = {
        "images-idx3": (idx(images), lambda path: read_idx(path, (4, 5))),
        "images-idx3.gz": (gzip.compress(idx(images), mtime=0), lambda path: read_idx(path, (4, 5))),
        "about.json": (
            b'{"mean": [0.5, 0.5, 0.5], "std": [1, 1, 1], "fingerprint": "00112233445566778899aabbccddeeff"}',
            read_dataset,
        ),
        "train.npy": (saved(np.arange(20, dtype=np.int64) % 2), read_dataset),
        **{f"batch{p}": (batch(p), lambda path: read_batch(path, "labels", range(1, 1001))) for p in (3, 4)},
    }
    for end, name in extensions().items():
        if name in Image.SAVE and name not in ("ICNS", "IM"):  # slow, and deprecated
            files[f"z{end}"] = (encoded(name), read_image)
    return files


def saved(array: np.ndarray) -> bytes:
    np.save(written := io.BytesIO(), array)
    return written.getvalue()


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """One to eight changes: bytes flipped, cut out, doubled, moved, or replaced by what is extreme."""
    for _ in range(rng.integers(1, 9)):
        first, last = sorted(rng.integers(0, len(content) + 1, 2))
        kind = rng.integers(6)
        if kind == 0:
            content = content[:first] + bytes(rng.integers(0, 256, 1, dtype=np.uint8)) + content[first + 1 :]
        elif kind == 1:
            extreme = EXTREMES[rng.integers(len(EXTREMES))]
            content = content[:first] + extreme + content[first + len(extreme) :]
        elif kind == 2:
            content = content[:last]
        elif kind == 3:
            content = content[:first] + content[first:last][:50] + content[first:]
        elif kind == 4:
            content = content[:first] + content[last:]
        else:
            content = content[:first] + EXTREMES[rng.integers(len(EXTREMES))] + content[first:]
    return content


def tried(name: str, number: int, folder: Path) -> str:
    """Read one damaged file: "read" or "refused"; anything else is an AssertionError."""
    content, read = SOUND[name]
    path = folder / name
    path.write_bytes(damaged(content, np.random.default_rng(number)))
    return judged(lambda: read(path))


SOUND = sound()


if __name__ == "__main__":
    names, counts = sorted(SOUND), Counter()
    count, first = (*map(int, sys.argv[1:]), 0)[:2]
    for number in range(first, first + count):
        with tempfile.TemporaryDirectory() as folder:
            name = names[number % len(names)]
            try:
                counts[tried(name, number, Path(folder))] += 1
            except Exception as error:
                counts["wrong"] += 1
                print(f"{name} {number}: {type(error).__name__}: {str(error)[:300]}")
    print(f"{sum(counts.values())} files of {len(names)} kinds: {dict(counts)}")
