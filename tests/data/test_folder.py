import numpy as np
import pytest
from PIL import Image

from dualprop import data
from dualprop.errors import DataError, DualpropError


def save(path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def colour(seed: int, height: int = 4, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def tree(tmp_path):
    """Return a tree of 2 × 2 training images and 2 test images, 4 pixels high and 5 wide."""
    for number, name in enumerate(
        ["train/cat/a", "train/cat/b", "train/dog/a", "train/dog/b", "test/cat/a", "test/dog/a"]
    ):
        save(tmp_path / f"{name}.png", colour(number))
    return tmp_path


def load(tree, **options) -> data.Dataset:
    return data.load(f"folder:{tree}", **options)


def test_a_tree_of_images_is_read(tree):
    dataset = load(tree)
    assert dataset.name == f"folder:{tree}"
    assert dataset.classes == ("cat", "dog")
    assert dataset.in_shape == (3, 4, 5)
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    assert dataset.test.labels.tolist() == [0, 1]
    for number in range(4):
        assert np.array_equal(dataset.train.images[number].permute(1, 2, 0).numpy(), colour(number))
    pixels = np.stack([colour(number) for number in range(4)]) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 1, 2)), rtol=1e-12)


def test_grey_images_have_one_channel(tmp_path):
    grey = {part: colour(seed)[:, :, 0] for seed, part in enumerate(["train", "test"])}
    for part, pixels in grey.items():
        save(tmp_path / part / "x" / "a.png", pixels)
    dataset = load(tmp_path)
    assert dataset.in_shape == (1, 4, 5)
    assert np.array_equal(dataset.test.images[0, 0].numpy(), grey["test"])


def test_one_colour_image_makes_all_of_them_colour(tree):
    grey = colour(9)[:, :, 0]
    save(tree / "train" / "cat" / "a.png", grey)
    dataset = load(tree)
    assert dataset.in_shape == (3, 4, 5)
    assert all(np.array_equal(channel.numpy(), grey) for channel in dataset.train.images[0])


def test_the_image_size_resizes_the_shorter_side_and_cuts_the_centre(tmp_path):
    """An image of three flat thirds, twice as high as it is made: only its middle stays."""
    thirds = np.zeros((24, 8, 3), dtype=np.uint8)
    thirds[8:16] = 200
    for part in ("train", "test"):
        save(tmp_path / part / "x" / "a.png", thirds)
    save(tmp_path / "train" / "x" / "b.png", colour(1, 30, 20))
    dataset = load(tmp_path, image_size=8)
    assert dataset.in_shape == (3, 8, 8)
    assert (dataset.train.images[0] == 200).all()
    half = load(tmp_path, image_size=4).train.images[0]
    assert half.shape == (3, 4, 4)
    assert (half[:, 1:3] == 200).all()


def test_different_sizes_are_named_with_the_remedy(tree):
    save(tree / "test" / "dog" / "a.png", colour(0, 6, 7))
    with pytest.raises(DataError, match="image_size") as error:
        load(tree)
    message = str(error.value)
    assert str(tree / "test" / "dog" / "a.png") in message
    assert "7×6" in message
    assert "5×4" in message


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "cut"])
def test_a_damaged_image_is_named(tree, content):
    path = tree / "train" / "dog" / "b.png"
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(DataError, match=r"dog.b\.png: no image that can be read") as error:
        load(tree)
    assert "\n" not in str(error.value)


def test_deep_images_are_refused_rather_than_clipped(tree):
    save(tree / "train" / "dog" / "b.png", np.full((4, 5), 40_000, dtype=np.uint16))
    with pytest.raises(DataError, match=r"b\.png: must have 8 bits per channel"):
        load(tree)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_part_is_named(tree, part):
    (tree / part).rename(tree / "elsewhere")
    with pytest.raises(DataError, match=f"{part}: no such folder; a folder data set is PATH/train/CLASS"):
        load(tree)


def test_a_part_without_classes_is_named(tree, tmp_path):
    (tree / "test").rename(tree / "elsewhere")
    (tree / "test").mkdir()
    with pytest.raises(DataError, match="test: Couldn't find any class folder"):
        load(tree)


def test_an_empty_class_is_named(tree):
    (tree / "train" / "cow").mkdir()
    (tree / "train" / "cow" / "notes.txt").write_text("none yet")
    with pytest.raises(DataError, match="train: Found no valid file for the classes cow"):
        load(tree)


def test_train_and_test_must_have_the_same_classes(tree):
    save(tree / "test" / "cow" / "a.png", colour(0))
    with pytest.raises(DataError, match="same classes; in one only: cow"):
        load(tree)


def test_the_image_size_must_be_positive(tree):
    with pytest.raises(DualpropError, match="image_size=0: must be a whole number of at least 1"):
        load(tree, image_size=0)
