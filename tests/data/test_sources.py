from pathlib import Path

import pytest
import torch

from dualprop import data
from dualprop.data.sources import Source
from dualprop.errors import DataError, DualpropError, UnknownNameError


def test_the_root_is_the_argument_else_the_variable_else_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DUALPROP_DATA", str(tmp_path / "from variable"))
    assert data.data_root(tmp_path) == tmp_path
    assert data.data_root(str(tmp_path)) == tmp_path
    assert data.data_root() == tmp_path / "from variable"
    monkeypatch.setenv("DUALPROP_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.data_root().parts[-2:] == ("dualprop", "data")
    assert data.data_root("~/x") == Path.home() / "x"


def test_unknown_names_get_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean 'fashion-mnist'"):
        data.load("fashion_mnist")


def test_image_size_is_for_folders():
    with pytest.raises(DualpropError, match="image_size is for folder:PATH only, not for digits"):
        data.load("digits", image_size=16)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "imagenet32"])
def test_missing_files_are_named_with_the_folder_and_the_remedy(tmp_path, name):
    source = data.DATASETS[name]
    assert source.missing(tmp_path) == list(source.files)
    with pytest.raises(DataError) as error:
        data.load(name, tmp_path)
    message = str(error.value)
    assert all(file in message for file in source.files)
    assert str(tmp_path) in message
    assert ("image-net.org" if name == "imagenet32" else f"`dualprop data fetch {name}`") in message
    assert "\n" not in message


def test_fetching_what_is_there_downloads_nothing(fake_mnist, offline):
    data.fetch("mnist", fake_mnist)


def test_fetching_what_needs_no_files_is_nothing(tmp_path, offline):
    data.fetch("digits", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_fetching_without_a_connection_is_one_line_and_leaves_nothing(tmp_path, offline, name):
    with pytest.raises(DataError, match=f"cannot fetch {name} into ") as error:
        data.fetch(name, tmp_path)
    assert "no connection" in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "said"), [("fashion-mnist", True), ("mnist", True), ("cifar10", False)])
def test_a_way_that_is_not_encrypted_is_said(tmp_path, offline, caplog, name, said):
    caplog.set_level("INFO", "dualprop")
    with pytest.raises(DataError):
        data.fetch(name, tmp_path)
    lines = [line for line in caplog.messages if "does not encrypt" in line]
    assert bool(lines) == said
    assert all(line.startswith(f"{name}: http://") and "checked by its content" in line for line in lines)


def test_fetching_below_a_file_is_one_line(tmp_path, offline):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(DataError, match="cannot fetch mnist into "):
        data.fetch("mnist", tmp_path / "root")


def test_imagenet32_says_where_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"without an account; .*image-net\.org.* the folder imagenet32"):
        data.fetch("imagenet32", tmp_path)


def test_a_damaged_file_is_fetched_again(tmp_path):
    split = data.Split(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.arange(2))
    file = tmp_path / "file"

    def read(root: Path) -> data.Dataset:
        if file.read_text() != "sound":
            raise DataError(f"{file}: damaged")
        return data.Dataset("x", split, split, ("a", "b"), (0.0,), (1.0,))

    def obtain(root: Path) -> None:
        (root / "file").write_text("sound")

    source = Source("x", "", read, ("file",), obtain, "get it")
    file.write_text("damaged")
    with pytest.raises(DataError, match=r"file: damaged; get it$"):
        source.load(tmp_path)
    source.fetch(tmp_path)
    assert file.read_text() == "sound"
