import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualprop.data import Dataset, Split, train_validation
from dualprop.errors import DualpropError


def numbered(count: int) -> Split:
    """Return images whose pixels and labels are their own number."""
    numbers = torch.arange(count)
    return Split(numbers.to(torch.uint8)[:, None, None, None].expand(count, 1, 2, 3).contiguous(), numbers)


def dataset(**changes) -> Dataset:
    fields = {
        "name": "few",
        "train": numbered(4),
        "test": numbered(2),
        "classes": ("a", "b", "c", "d"),
        "mean": (0.5,),
        "std": (0.25,),
    }
    return Dataset(**{**fields, **changes})


def test_a_batch_is_the_images_and_labels_at_its_indices():
    images, labels = numbered(9).batch(torch.tensor([5, 0, 5]))
    assert images.shape == (3, 1, 2, 3)
    assert images.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == labels.tolist() == [5, 0, 5]


@given(st.data())
def test_taking_twice_is_indexing_twice(draw):
    split = numbered(12)
    first = draw.draw(st.lists(st.integers(0, 11), min_size=1))
    second = draw.draw(st.lists(st.integers(0, len(first) - 1)))
    part = split.take(torch.tensor(first)).take(torch.tensor(second, dtype=torch.int64))
    expected = [first[index] for index in second]
    images, labels = part.batch(torch.arange(len(part)))
    assert len(part) == len(second)
    assert part.labels.tolist() == labels.tolist() == images[:, 0, 1, 2].tolist() == expected


def test_taking_copies_no_image():
    split = numbered(5)
    assert split.take(torch.tensor([3])).images.data_ptr() == split.images.data_ptr()


def test_a_part_on_a_device_holds_its_own_images_only():
    part = numbered(5).take(torch.tensor([3, 1])).to("cpu")
    assert part.images[:, 0, 0, 0].tolist() == part.labels.tolist() == [3, 1]


def test_a_split_is_shown_without_pixels():
    assert repr(numbered(5)) == "Split(5 images of (1, 2, 3))"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(3, 1, 2, 2, dtype=torch.int64)}, "images must be uint8 of shape"),
        ({"images": torch.zeros(3, 2, 2, dtype=torch.uint8)}, r"not uint8 of shape \(3, 2, 2\)"),
        ({"labels": torch.zeros(3)}, "labels must be int64"),
        ({"images": torch.zeros(3)}, "images must be uint8 of shape"),
        ({"labels": torch.zeros(3, 1, dtype=torch.int64)}, "labels must be int64"),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, "as many as the images: 2 != 3"),
        ({"rows": torch.tensor([0, 1])}, "as many as the images: 3 != 2"),
        ({"rows": torch.tensor([0, 1, 3])}, r"rows must be in 0\.\.2, not 0\.\.3"),
        ({"rows": torch.tensor([0, -1, 2])}, r"rows must be in 0\.\.2, not -1\.\.2"),
        ({"rows": torch.tensor([0.0, 1.0, 2.0])}, "rows must be int64"),
    ],
)
def test_wrong_splits_are_refused(changes, message):
    fields = {
        "images": torch.zeros(3, 1, 2, 2, dtype=torch.uint8),
        "labels": torch.zeros(3, dtype=torch.int64),
    }
    with pytest.raises(DualpropError, match=message):
        Split(**{**fields, **changes})


@pytest.mark.parametrize("indices", [torch.tensor([3]), torch.tensor([-1]), torch.tensor([True, False, True])])
def test_wrong_indices_are_refused(indices):
    with pytest.raises(DualpropError, match="indices must be"):
        numbered(3).take(indices)


def test_a_dataset_knows_its_shape_and_classes():
    assert dataset().in_shape == (1, 2, 3)
    assert dataset().num_classes == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": numbered(4).take(torch.tensor([], dtype=torch.int64))}, "few: the train part is empty"),
        ({"test": numbered(0)}, "few: the test part is empty"),
        ({"classes": ("a", "b", "c")}, r"train labels must be in 0\.\.2, not 0\.\.3"),
        (
            {"test": Split(torch.zeros(1, 1, 2, 3, dtype=torch.uint8), torch.tensor([-1]))},
            r"test labels must be in 0\.\.3, not -1",
        ),
        (
            {"test": Split(torch.zeros(1, 1, 3, 3, dtype=torch.uint8), torch.tensor([0]))},
            r"one shape, not \(1, 2, 3\) and \(1, 3, 3\)",
        ),
        ({"mean": (0.5, 0.5)}, "mean must be 1 finite numbers"),
        ({"mean": (float("nan"),)}, "mean must be 1 finite numbers"),
        ({"std": ()}, "std must be 1 finite numbers"),
        ({"std": (-0.1,)}, "std must be at least 0"),
    ],
)
def test_wrong_datasets_are_refused(changes, message):
    with pytest.raises(DualpropError, match=message):
        dataset(**changes)


@given(count=st.integers(1, 60), fraction=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 2**40))
def test_training_and_validation_divide_the_split(count, fraction, seed):
    held_out = round(fraction * count)
    if held_out == count:
        with pytest.raises(DualpropError, match="leaves none to train on"):
            train_validation(numbered(count), fraction, seed)
        return
    train, validation = train_validation(numbered(count), fraction, seed)
    assert len(validation) == held_out
    assert train.labels.tolist() == sorted(train.labels.tolist())
    assert validation.labels.tolist() == sorted(validation.labels.tolist())
    assert sorted(train.labels.tolist() + validation.labels.tolist()) == list(range(count))


def test_the_division_depends_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train_validation(numbered(50), 0.4, seed=3)[1].labels.tolist()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert train_validation(numbered(50), 0.4, seed=3)[1].labels.tolist() == first
    assert train_validation(numbered(50), 0.4, seed=4)[1].labels.tolist() != first


def test_a_tenth_is_the_default_and_nothing_is_allowed():
    assert [len(part) for part in train_validation(numbered(50))] == [45, 5]
    assert [len(part) for part in train_validation(numbered(50), fraction=0)] == [50, 0]


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_wrong_fractions_are_refused(fraction):
    with pytest.raises(DualpropError, match=r"^fraction=.*: must be a number in \[0, 1\)$"):
        train_validation(numbered(5), fraction)


def test_wrong_seeds_are_refused():
    with pytest.raises(DualpropError, match="seed=-1: must be a whole number of at least 0"):
        train_validation(numbered(5), seed=-1)


def test_a_memory_map_is_divided_without_reading_it(tmp_path):
    np.full((40, 1, 2, 2), 7, dtype=np.uint8).tofile(tmp_path / "pixels")
    mapped = np.memmap(tmp_path / "pixels", np.uint8, "c", shape=(40, 1, 2, 2))
    split = Split(torch.from_numpy(mapped), torch.zeros(40, dtype=torch.int64))
    for part in train_validation(split, 0.25):
        assert part.images.data_ptr() == mapped.ctypes.data
