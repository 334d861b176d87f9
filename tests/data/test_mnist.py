import gzip
import os

import numpy as np
import pytest

from dualprop import data
from dualprop.errors import DataError
from tests.data.fake_files import idx

TRAIN_IMAGES = "MNIST/raw/train-images-idx3-ubyte"
TRAIN_LABELS = "MNIST/raw/train-labels-idx1-ubyte"
TEST_LABELS = "MNIST/raw/t10k-labels-idx1-ubyte"


def test_idx_files_are_read(fake_mnist):
    dataset = data.load("mnist", fake_mnist)
    assert (len(dataset.train), len(dataset.test)) == (20, 10)
    assert dataset.in_shape == (1, 28, 28)
    assert dataset.train.labels.tolist() == [*range(10), *range(10)]
    raw = (fake_mnist / TRAIN_IMAGES).read_bytes()[16:]
    assert dataset.train.images.numpy().tobytes() == raw


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_archives_of_any_checksum_and_names_with_dots_are_read(fake_mnist, offline, dotted, compressed):
    """What counts is the content. Some browsers unpack what they save without changing its name."""
    for path in (fake_mnist / "MNIST" / "raw").iterdir():
        name = path.name.replace("-idx", ".idx") if dotted else path.name
        content = gzip.compress(path.read_bytes(), mtime=7) if compressed else path.read_bytes()
        path.unlink()
        path.with_name(f"{name}.gz").write_bytes(content)
    data.fetch("mnist", fake_mnist)
    assert len(data.load("mnist", fake_mnist).train) == 20
    assert [path.name for path in fake_mnist.iterdir()] == ["MNIST"]


def test_an_archive_that_unpacks_without_end_is_refused(fake_mnist):
    (fake_mnist / TRAIN_IMAGES).write_bytes(gzip.compress(idx(np.zeros((20, 28, 28), "u1")) + bytes(10**6)))
    with pytest.raises(DataError, match=r"it holds more than the 15,680 bytes it says"):
        data.load("mnist", fake_mnist)


def test_a_damaged_file_is_replaced_by_fetching(compressed_mnist, offline):
    (compressed_mnist / TRAIN_IMAGES).write_bytes(b"half a fi")
    data.fetch("mnist", compressed_mnist)
    assert len(data.load("mnist", compressed_mnist).train) == 20


def test_files_are_moved_into_place_within_the_root(compressed_mnist, offline, monkeypatch):
    (compressed_mnist / TRAIN_IMAGES).write_bytes(b"half a fi")
    moves = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (moves.append((old, new)), replace(old, new)))
    data.fetch("mnist", compressed_mnist)
    assert sorted(new for _, new in moves) == sorted(
        compressed_mnist / file for file in data.DATASETS["mnist"].files
    )
    assert all(compressed_mnist in old.parents for old, _ in moves)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        (TRAIN_IMAGES, b"", TRAIN_IMAGES),
        (TRAIN_IMAGES, b"\x00\x00", TRAIN_IMAGES),
        (TRAIN_IMAGES, idx(np.zeros((20, 28, 28), "u1"))[:-1], TRAIN_IMAGES),
        (TRAIN_IMAGES, idx(np.zeros((20, 28, 28), "u1")) + b"\x00", TRAIN_IMAGES),
        (TRAIN_IMAGES, b"\x00\x00\x0a\x03" + idx(np.zeros((20, 28, 28), "u1"))[4:], TRAIN_IMAGES),
        (TRAIN_IMAGES, b"\x00\x00\x08\x03" + b"\xff" * 12 + b"\x00" * 100, TRAIN_IMAGES),
        (TRAIN_IMAGES, idx(np.zeros((20, 27, 28), "u1")), TRAIN_IMAGES),
        (TRAIN_IMAGES, idx(np.zeros(20, "u1")), TRAIN_IMAGES),
        (TRAIN_IMAGES, idx(np.zeros((19, 28, 28), "u1")), TRAIN_LABELS),
        (TRAIN_LABELS, idx(np.zeros((20, 28, 28), "u1")), TRAIN_LABELS),
        (TRAIN_LABELS, idx(np.zeros(21, "u1")), TRAIN_LABELS),
        (TRAIN_LABELS, idx(np.full(20, 10, "u1")), TRAIN_LABELS),
        (TEST_LABELS, b"<html>404 not found</html>", TEST_LABELS),
        (TRAIN_IMAGES, idx(np.zeros((20, 28, 28), "u1")), "train-"),
        (TEST_LABELS, idx(np.zeros(10, "u1")), "t10k-"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_files_that_are_not_the_official_ones_are_named(fake_mnist, file, content, named):
    (fake_mnist / file).write_bytes(content)
    with pytest.raises(DataError) as error:
        data.load("mnist", fake_mnist)
    message = str(error.value)
    assert named in message.split(":")[0]
    assert str(fake_mnist) in message
    assert message.endswith("get it with `dualprop data fetch mnist`")
    assert "\n" not in message


def test_no_images_at_all_are_refused(fake_mnist):
    (fake_mnist / TRAIN_IMAGES).write_bytes(idx(np.zeros((0, 28, 28), "u1")))
    (fake_mnist / TRAIN_LABELS).write_bytes(idx(np.zeros(0, "u1")))
    with pytest.raises(DataError, match="MNIST/raw/train-"):
        data.load("mnist", fake_mnist)
