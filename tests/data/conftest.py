"""Small stand-ins for the published data sets, in the formats they are published in."""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from dualprop import data
from dualprop.data.official import OFFICIAL
from tests.data.fake_files import idx, official_of, write_pickle


@pytest.fixture
def fake_mnist(tmp_path, monkeypatch) -> Path:
    """Return a data root with 20 + 10 random images in place of the official MNIST."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    parts = []
    for part, count in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
        parts.append((images, labels))
    monkeypatch.setitem(OFFICIAL, "mnist", official_of(*parts, tuple("0123456789"), channels=1))
    return tmp_path


@pytest.fixture
def compressed_mnist(fake_mnist, monkeypatch) -> Path:
    """Return the same root with archives whose checksums torchvision expects, and no plain files."""
    from torchvision.datasets import MNIST

    resources = []
    for file in sorted((fake_mnist / "MNIST" / "raw").iterdir()):
        content = gzip.compress(file.read_bytes())
        file.with_name(file.name + ".gz").write_bytes(content)
        resources.append((file.name + ".gz", hashlib.md5(content).hexdigest()))
        file.unlink()
    monkeypatch.setattr(MNIST, "resources", resources)
    return fake_mnist


@pytest.fixture
def fake_cifar10(tmp_path, monkeypatch) -> Path:
    """Return a data root with 5 × 4 + 4 random images in place of the official CIFAR-10."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    parts = []
    for file in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        pixels = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        labels = rng.integers(0, 10, 4).tolist()
        write_pickle(folder / file, {"data": pixels, "labels": labels, "batch_label": file})
        parts.append((pixels, labels))
    classes = [f"class {label}" for label in range(10)]
    write_pickle(folder / "batches.meta", {"label_names": classes})
    train = (np.concatenate([part[0] for part in parts[:5]]), [label for part in parts[:5] for label in part[1]])
    monkeypatch.setitem(OFFICIAL, "cifar10", official_of(train, parts[5], tuple(classes), channels=3))
    return tmp_path


@pytest.fixture
def fake_imagenet32(tmp_path) -> Path:
    """Return a data root with 10 × 4 + 6 random images in 5 classes."""
    rng = np.random.default_rng(2)
    folder = tmp_path / "imagenet32"
    folder.mkdir()
    for file, count in [(f"train_data_batch_{number}", 4) for number in range(1, 11)] + [("val_data", 6)]:
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = [1 + label % 5 for label in range(count)]
        if file == "train_data_batch_10":
            labels[-1] = 5
        write_pickle(folder / file, {"data": pixels, "labels": labels, "mean": pixels.mean(0)})
    return tmp_path


@pytest.fixture
def offline(monkeypatch) -> None:
    """Make every download fail as it does without a connection."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no connection")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def real_root(request) -> Path:
    """Return the root of real data; the test is skipped without the files of its `name` parameter."""
    if not os.environ.get("DUALPROP_DATA"):
        pytest.skip("DUALPROP_DATA is not set")
    root = data.data_root()
    name = request.node.callspec.params["name"]
    if missing := data.DATASETS[name].missing(root):
        pytest.skip(f"no {missing[0]} under DUALPROP_DATA")
    return root
