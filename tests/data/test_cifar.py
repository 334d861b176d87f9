import hashlib
import pickle
import tarfile

import numpy as np
import pytest

from dualprop import data
from dualprop.errors import DataError
from tests.data.fake_files import write_pickle

FOLDER = "cifar-10-batches-py"
PIXELS = np.zeros((4, 3072), dtype=np.uint8)


def test_batches_are_read_in_their_order(fake_cifar10):
    dataset = data.load("cifar10", fake_cifar10)
    assert (len(dataset.train), len(dataset.test)) == (20, 4)
    assert dataset.in_shape == (3, 32, 32)
    assert dataset.classes[3] == "class 3"
    third = pickle.loads((fake_cifar10 / FOLDER / "data_batch_3").read_bytes())
    assert dataset.train.labels[8:12].tolist() == third["labels"]
    assert np.array_equal(dataset.train.images[8:12].numpy().reshape(4, 3072), third["data"])


def test_rows_in_another_order_are_still_the_official_ones(fake_cifar10):
    for file in ("data_batch_1", "test_batch"):
        content = pickle.loads((fake_cifar10 / FOLDER / file).read_bytes())
        content = {"data": content["data"][::-1].copy(), "labels": content["labels"][::-1]}
        write_pickle(fake_cifar10 / FOLDER / file, content)
    data.load("cifar10", fake_cifar10)


def test_the_archive_is_unpacked_without_a_connection(fake_cifar10, offline, monkeypatch):
    from torchvision.datasets import CIFAR10

    archive = fake_cifar10 / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(fake_cifar10 / FOLDER, FOLDER)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    (fake_cifar10 / FOLDER / "data_batch_2").unlink()
    (fake_cifar10 / FOLDER / "batches.meta").write_bytes(b"damaged")
    data.fetch("cifar10", fake_cifar10)
    assert len(data.load("cifar10", fake_cifar10).train) == 20
    assert {path.name for path in fake_cifar10.iterdir()} == {FOLDER, CIFAR10.filename}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("data_batch_2", [1, 2]),
        ("data_batch_2", {"data": PIXELS}),
        ("data_batch_2", {"labels": [0, 1, 2, 3]}),
        ("data_batch_2", {"data": PIXELS.tolist(), "labels": [0, 1, 2, 3]}),
        ("data_batch_2", {"data": PIXELS.astype(np.float32), "labels": [0, 1, 2, 3]}),
        ("data_batch_2", {"data": PIXELS[:, :3071].copy(), "labels": [0, 1, 2, 3]}),
        ("data_batch_2", {"data": PIXELS[0].copy(), "labels": [0, 1, 2, 3]}),
        ("data_batch_2", {"data": PIXELS, "labels": [0, 1, 2]}),
        ("data_batch_2", {"data": PIXELS, "labels": (0, 1, 2, 3)}),
        ("data_batch_2", {"data": PIXELS, "labels": [0, 1, 2, 10]}),
        ("data_batch_2", {"data": PIXELS, "labels": [0, 1, 2, -1]}),
        ("data_batch_2", {"data": PIXELS, "labels": [0, 1, 2, 0.5]}),
        ("data_batch_2", {"data": PIXELS[:0].copy(), "labels": []}),
        ("data_batch_2", {"data": PIXELS, "labels": [0, 1, 2, 3]}),
        ("test_batch", {"data": PIXELS, "labels": [0, 1, 2, 3]}),
        ("batches.meta", {"names": []}),
        ("batches.meta", {"label_names": [1, 2]}),
        ("batches.meta", {"label_names": []}),
        ("batches.meta", {"label_names": ["one too many"] * 11}),
        ("batches.meta", ["label_names"]),
    ],
)
def test_files_that_are_not_the_official_ones_are_named(fake_cifar10, file, content):
    write_pickle(fake_cifar10 / FOLDER / file, content)
    with pytest.raises(DataError) as error:
        data.load("cifar10", fake_cifar10)
    message = str(error.value)
    assert file in message.split(": ")[0]
    assert str(fake_cifar10) in message
    assert message.endswith("get it with `dualprop data fetch cifar10`")


@pytest.mark.parametrize("label", [-1, 10, 300, 2.0, "cat", None])
def test_labels_that_are_no_class_are_refused(fake_cifar10, label):
    write_pickle(fake_cifar10 / FOLDER / "test_batch", {"data": PIXELS, "labels": [0, 1, 2, label]})
    with pytest.raises(DataError, match=r"test_batch: labels must be integers in 0\.\.9; get it with"):
        data.load("cifar10", fake_cifar10)


def test_a_truncated_file_is_named(fake_cifar10):
    path = fake_cifar10 / FOLDER / "data_batch_4"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="data_batch_4: "):
        data.load("cifar10", fake_cifar10)


def test_a_file_with_code_in_it_is_refused_before_it_runs(fake_cifar10, tmp_path):
    (fake_cifar10 / FOLDER / "data_batch_4").write_bytes(
        b"cos\nsystem\n(V" + f"touch {tmp_path / 'ran'}".encode() + b"\ntR."
    )
    with pytest.raises(DataError, match=r"data_batch_4: .*refused: os\.system"):
        data.load("cifar10", fake_cifar10)
    assert not (tmp_path / "ran").exists()
