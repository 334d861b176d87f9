import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualprop.data import Batches, Split
from dualprop.errors import DualpropError


def random_split(count: int = 10, channels: int = 3, size: int = 6) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    return Split(torch.from_numpy(images), torch.arange(count))


def assert_same(first, second):
    for (x, y), (other_x, other_y) in zip(first, second, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_are_normalised_by_channel(dtype):
    split, mean, std = random_split(), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    (x, y), *_ = Batches(split, 4, mean=mean, std=std, dtype=dtype)
    pixels = split.images[:4].double() / 255
    expected = (pixels - torch.tensor(mean).double().view(3, 1, 1)) / torch.tensor(std).double().view(3, 1, 1)
    torch.testing.assert_close(x, expected.to(dtype), rtol=1e-5, atol=1e-6)
    assert y.tolist() == [0, 1, 2, 3]
    assert y.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_types_round_once(dtype):
    exact, short = (
        next(iter(Batches(random_split(), 4, mean=(0.4,), std=(0.3,), dtype=each)))[0]
        for each in (torch.float32, dtype)
    )
    assert torch.equal(short, exact.to(dtype))


def test_without_mean_and_std_pixels_are_in_0_to_1():
    (x, _), *_ = Batches(Split(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), torch.arange(3)), 3)
    torch.testing.assert_close(x.flatten(), torch.tensor([0, 0.2, 1]))


def test_a_constant_channel_becomes_zero():
    split = Split(torch.full((2, 1, 2, 2), 51, dtype=torch.uint8), torch.arange(2))
    (x, _), *_ = Batches(split, 2, mean=(0.2,), std=(0.0,))
    torch.testing.assert_close(x, torch.zeros(2, 1, 2, 2), atol=1e-6, rtol=0)


@given(
    count=st.integers(1, 30), batch_size=st.integers(1, 40), seed=st.integers(0, 2**70), epoch=st.integers(0, 99)
)
def test_an_epoch_has_every_image_once(count, batch_size, seed, epoch):
    batches = Batches(random_split(count), batch_size, seed=seed)
    labels = [y.tolist() for _, y in batches.epoch(epoch)]
    full, rest = divmod(count, batch_size)
    assert [len(batch) for batch in labels] == [batch_size] * full + [rest] * (rest > 0)
    assert len(batches) == len(labels)
    assert sorted(label for batch in labels for label in batch) == list(range(count))


@given(start=st.integers(0, 4), epoch=st.integers(0, 5), augment=st.booleans())
def test_starting_late_gives_the_tail_of_the_epoch(start, epoch, augment):
    batches = Batches(random_split(), 3, seed=7, augment=augment)
    fresh = Batches(random_split(), 3, seed=7, augment=augment)
    assert_same(list(batches.epoch(epoch))[start:], fresh.epoch(epoch, start))


def test_two_iterators_do_not_disturb_each_other():
    batches = Batches(random_split(), 3, seed=1, augment=True)
    alone = list(batches.epoch(2))
    woven = [batch for batch, _ in zip(batches.epoch(2), batches.epoch(3), strict=True)]
    assert_same(alone, woven)


def test_iterating_is_epoch_0():
    batches = Batches(random_split(), 3, seed=1, augment=True)
    assert_same(batches, batches.epoch(0))


def test_without_a_seed_every_epoch_is_in_order():
    batches = Batches(random_split(), 3)
    for epoch in range(2):
        assert [y.tolist() for _, y in batches.epoch(epoch)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(next(Batches(random_split(40), 40, seed=seed).epoch(epoch))[1].tolist())
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_augmentation_differs_between_batches_epochs_and_seeds():
    same = Split(random_split(1, 1, 8).images.expand(64, 1, 8, 8).contiguous(), torch.zeros(64, dtype=torch.int64))
    augmented = [
        x.sum((1, 2, 3))
        for seed in range(2)
        for epoch in range(2)
        for x, _ in Batches(same, 32, seed=seed, augment=True).epoch(epoch)
    ]
    assert len({tuple(sums.tolist()) for sums in augmented}) == 8


def test_augmentation_moves_no_label():
    split = random_split()
    plain = [y.tolist() for _, y in Batches(split, 3, seed=1)]
    assert [y.tolist() for _, y in Batches(split, 3, seed=1, augment=True)] == plain


def test_no_global_random_state_is_touched():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state is what is watched
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    list(Batches(random_split(), 3, seed=1, augment=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


def test_a_part_of_a_memory_map_gives_the_same_batches_as_memory(tmp_path):
    split = random_split()
    split.images.numpy().tofile(tmp_path / "pixels")
    mapped = torch.from_numpy(np.memmap(tmp_path / "pixels", np.uint8, "c", shape=tuple(split.images.shape)))
    own = torch.tensor([9, 2, 4, 7])
    from_map = Batches(Split(mapped, split.labels).take(own), 3, seed=5, augment=True)
    from_memory = Batches(Split(split.images[own], split.labels[own]), 3, seed=5, augment=True)
    assert_same(from_map, from_memory)


def test_the_images_stay_as_they_are():
    split = random_split()
    before = split.images.clone()
    list(Batches(split, 3, mean=(0.5,), std=(0.5,), seed=0, augment=True))
    assert torch.equal(split.images, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("store", ["cpu", "cuda"])
def test_a_gpu_gets_the_same_batches(store):
    options = {"mean": (0.4,), "std": (0.3,), "seed": 3, "augment": True}
    on_gpu = list(Batches(random_split().to(store), 3, device="cuda", **options))
    assert all(x.is_cuda and y.is_cuda for x, y in on_gpu)
    for (x, y), (other_x, other_y) in zip(Batches(random_split(), 3, **options), on_gpu, strict=True):
        torch.testing.assert_close(x, other_x.cpu())
        assert torch.equal(y, other_y.cpu())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: must be a whole number of at least 1"),
        ({"mean": (0.5, 0.5)}, "mean must be 1 or 3 finite numbers"),
        ({"mean": ()}, "mean must be 1 or 3 finite numbers"),
        ({"std": (float("inf"),)}, r"std=\(inf,\): must be a list of finite numbers of at least 0"),
        ({"std": (0.5, -0.5, 0.5)}, r"std=\(0.5, -0.5, 0.5\): must be a list"),
        ({"seed": -1}, "seed=-1: must be a whole number of at least 0 or none"),
        ({"augment": True}, "augment needs a seed"),
        ({"dtype": torch.int32}, r"dtype must be a floating-point type, not torch\.int32"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(DualpropError, match=message):
        Batches(random_split(), **{"batch_size": 4, **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "epoch must be at least 0, not -1"),
        ((0, 5), r"start must be in 0\.\.4, not 5"),
        ((0, -1), "not -1"),
    ],
)
def test_wrong_epochs_are_refused_when_asked_for(arguments, message):
    with pytest.raises(DualpropError, match=message):
        Batches(random_split(), 3).epoch(*arguments)
