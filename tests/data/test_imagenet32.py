import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from dualprop import data
from dualprop.data import imagenet32
from dualprop.errors import DataError
from tests.data.fake_files import write_pickle

TRAIN = [f"train_data_batch_{number}" for number in range(1, 11)]


def npy(kind: str, shape: tuple[int, ...], content: bytes) -> bytes:
    """The format of numpy's labels, written out."""
    header = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(246) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def batch(root, file: str) -> dict:
    return pickle.loads((root / "imagenet32" / file).read_bytes())


def converted(folder) -> list:
    return sorted(folder.glob("converted-*"))


def test_all_batches_are_read_in_order_with_labels_from_0(fake_imagenet32):
    dataset = data.load("imagenet32", fake_imagenet32)
    batches = [batch(fake_imagenet32, file) for file in TRAIN]
    pixels = np.concatenate([each["data"] for each in batches])
    assert np.array_equal(dataset.train.images.numpy().reshape(-1, 3072), pixels)
    assert dataset.train.labels.tolist() == [label - 1 for each in batches for label in each["labels"]]
    assert np.array_equal(
        dataset.test.images.numpy().reshape(-1, 3072), batch(fake_imagenet32, "val_data")["data"]
    )
    assert dataset.in_shape == (3, 32, 32)
    assert dataset.classes == ("1", "2", "3", "4", "5")
    by_channel = pixels.reshape(-1, 3, 1024) / 255
    np.testing.assert_allclose(dataset.mean, by_channel.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, by_channel.std((0, 2)), rtol=1e-12)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists memory maps")
def test_images_stay_on_disk(fake_imagenet32):
    dataset = data.load("imagenet32", fake_imagenet32)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    (pixels,) = [entry for entry in maps if entry[-1].endswith("train.pixels")]
    assert dataset.train.images.data_ptr() == int(pixels[0].split("-")[0], 16)


def test_changing_images_changes_no_file(fake_imagenet32):
    dataset = data.load("imagenet32", fake_imagenet32)
    (folder,) = converted(fake_imagenet32 / "imagenet32")
    assert (folder / "train.pixels").stat().st_size == 40 * 3072
    before = (folder / "train.pixels").read_bytes()
    dataset.train.images[0] += 1
    assert (folder / "train.pixels").read_bytes() == before


def test_it_is_converted_once(fake_imagenet32, monkeypatch):
    first = data.load("imagenet32", fake_imagenet32)
    monkeypatch.setattr(imagenet32, "read_batch", lambda *_: pytest.fail("converted again"))
    second = data.load("imagenet32", fake_imagenet32)
    assert second.train.images.equal(first.train.images)
    assert (second.mean, second.std) == (first.mean, first.std)


@pytest.mark.parametrize("change", ["content", "time"])
def test_a_changed_source_is_converted_again_and_the_old_copy_removed(fake_imagenet32, change):
    data.load("imagenet32", fake_imagenet32)
    (old,) = converted(fake_imagenet32 / "imagenet32")
    path = fake_imagenet32 / "imagenet32" / "train_data_batch_4"
    if change == "content":
        write_pickle(path, {"data": np.full((2, 3072), 9, dtype=np.uint8), "labels": [1, 2]})
    else:
        os.utime(path, ns=(0, 0))
    dataset = data.load("imagenet32", fake_imagenet32)
    assert len(dataset.train) == (38 if change == "content" else 40)
    (new,) = converted(fake_imagenet32 / "imagenet32")
    assert new != old
    sources = json.loads((new / "about.json").read_text())["sources"]
    assert ["imagenet32/train_data_batch_4", path.stat().st_size, path.stat().st_mtime_ns] in sources


def test_a_read_only_root_is_converted_into_the_cache(fake_imagenet32, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    data.load("imagenet32", fake_imagenet32)
    assert converted(fake_imagenet32 / "imagenet32") == []
    assert len(converted(tmp_path / "cache" / "dualprop" / "imagenet32")) == 1


def test_nowhere_to_write_is_one_line(fake_imagenet32, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    with pytest.raises(DataError, match="cannot be written"):
        data.load("imagenet32", fake_imagenet32)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train_data_batch_7", {"data": np.zeros((1, 3072), "u1"), "labels": [0]}),
        ("train_data_batch_7", {"data": np.zeros((1, 3072), "u1"), "labels": [1001]}),
        ("train_data_batch_7", {"data": np.zeros((1, 12288), "u1"), "labels": [1]}),
        ("val_data", {"data": np.zeros((1, 3072), "u1")}),
        ("val_data", "no dictionary"),
    ],
)
def test_wrong_batches_are_named_and_nothing_half_written_stays(fake_imagenet32, file, content):
    write_pickle(fake_imagenet32 / "imagenet32" / file, content)
    before = sorted((fake_imagenet32 / "imagenet32").iterdir())
    with pytest.raises(DataError, match=f"{file}: .*image-net") as error:
        data.load("imagenet32", fake_imagenet32)
    assert str(fake_imagenet32) in str(error.value)
    assert sorted((fake_imagenet32 / "imagenet32").iterdir()) == before


def test_a_class_that_is_never_trained_on_is_refused(fake_imagenet32):
    write_pickle(fake_imagenet32 / "imagenet32" / "val_data", {"data": np.zeros((1, 3072), "u1"), "labels": [6]})
    with pytest.raises(ValueError, match=r"imagenet32: test labels must be in 0\.\.4, not 5\.\.5"):
        data.load("imagenet32", fake_imagenet32)


@pytest.mark.parametrize("file", ["train.pixels", "test.npy", "about.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_copy_is_named(fake_imagenet32, file, damage):
    data.load("imagenet32", fake_imagenet32)
    (folder,) = converted(fake_imagenet32 / "imagenet32")
    if damage == "cut":
        (folder / file).write_bytes((folder / file).read_bytes()[:-5])
    else:
        (folder / file).unlink()
    with pytest.raises(DataError, match=r"damaged .*; delete it to have it made again") as error:
        data.load("imagenet32", fake_imagenet32)
    assert str(folder) in str(error.value)


def test_the_fingerprint_is_of_pixels_and_labels(fake_imagenet32):
    first = data.fingerprint(data.load("imagenet32", fake_imagenet32))
    path = fake_imagenet32 / "imagenet32" / "train_data_batch_4"
    os.utime(path, ns=(0, 0))
    assert data.fingerprint(data.load("imagenet32", fake_imagenet32)) == first
    for change in ({"labels": [1, 2, 3, 5]}, {"data": np.zeros((4, 3072), np.uint8)}):
        write_pickle(path, {**batch(fake_imagenet32, "train_data_batch_5"), **change})
        changed = data.fingerprint(data.load("imagenet32", fake_imagenet32))
        assert changed != first
        first = changed


def test_pixels_that_were_changed_on_disk_are_seen_when_all_are_read(fake_imagenet32):
    first = data.fingerprint(data.load("imagenet32", fake_imagenet32), every=True)
    (folder,) = converted(fake_imagenet32 / "imagenet32")
    pixels = bytearray((folder / "test.pixels").read_bytes())
    pixels[-1] ^= 1
    (folder / "test.pixels").write_bytes(pixels)
    dataset = data.load("imagenet32", fake_imagenet32)
    assert data.fingerprint(dataset) == first
    with pytest.raises(DataError, match="holds other images than were converted; delete it"):
        data.fingerprint(dataset, every=True)


HOSTILE_COPIES = {
    "deep": ("about.json", b"[" * 100_000),
    "numbers": ("about.json", b'{"mean": [1' + b"0" * 5000 + b'], "std": 5, "fingerprint": "x"}'),
    "types": ("about.json", b'{"mean": [null, {}], "std": 5, "fingerprint": "x"}'),
    "a list": ("about.json", b"[]"),
    "no word": ("about.json", b'{"mean": [1, 1, 1], "std": [1, 1, 1], "fingerprint": 5}'),
    "objects": ("train.npy", npy("|O", (40,), b"cos\nsystem\n(S'true'\ntR.")),
    "huge": ("train.npy", npy("<i8", (10**12,), bytes(320))),
    "floats": ("train.npy", npy("<f8", (40,), bytes(320))),
    "flat": ("train.npy", npy("<i8", (5, 8), bytes(320))),
    "large": ("train.npy", npy("<i8", (40,), b"\x7f" * 320)),
    "none": ("train.npy", npy("<i8", (0,), b"")),
    "code": ("train.npy", npy("__import__('os').system('true')", (40,), bytes(320))),
}


@pytest.mark.parametrize("name", HOSTILE_COPIES)
def test_a_copy_that_somebody_else_made_is_one_line(fake_imagenet32, name):
    file, content = HOSTILE_COPIES[name]
    data.load("imagenet32", fake_imagenet32)
    (folder,) = converted(fake_imagenet32 / "imagenet32")
    (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=r"damaged \(.*\); delete it to have it made again") as error:
        data.load("imagenet32", fake_imagenet32)
    assert str(error.value).isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_pipes_do_not_hang(fake_imagenet32):
    data.load("imagenet32", fake_imagenet32)
    (folder,) = converted(fake_imagenet32 / "imagenet32")
    for file in ("train.pixels", "train.npy", "about.json"):
        (folder / file).unlink()
        os.mkfifo(folder / file)
        with pytest.raises(DataError, match="not a regular file"):
            data.load("imagenet32", fake_imagenet32)


def test_another_process_that_was_faster_is_no_error(fake_imagenet32, monkeypatch):
    first = data.load("imagenet32", fake_imagenet32)
    (folder,) = converted(fake_imagenet32 / "imagenet32")
    sources = [(file, 0, 0) for file in imagenet32.IMAGENET32.files]
    imagenet32._convert(fake_imagenet32, sources, folder)
    assert converted(fake_imagenet32 / "imagenet32") == [folder]
    assert data.load("imagenet32", fake_imagenet32).train.images.equal(first.train.images)


@pytest.mark.parametrize(
    ("name", "value"),
    [("std", [0.5, 0.5, 0]), ("mean", [math.inf] * 3), ("mean", [0.5]), ("fingerprint", "x")],
)
def test_what_a_converted_copy_says_of_itself_is_checked(fake_imagenet32, name, value):
    data.load("imagenet32", fake_imagenet32)
    (folder,) = converted(fake_imagenet32 / "imagenet32")
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps({**about, name: value}))
    with pytest.raises(DataError, match=r"converted-\w+: damaged \("):
        data.load("imagenet32", fake_imagenet32)
