"""Data of one's own: arrays, torch data sets and loaders. What is expected is written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data import Dataset as TorchDataset

from dualprop.data import Items, Split, batched, fingerprint, own_dataset, train_validation
from dualprop.errors import DualpropError

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(50, 7))
LABELS = RNG.permutation(np.arange(50) % 3)
PIXELS = RNG.integers(0, 256, (50, 1, 5, 6), dtype=np.uint8)
TARGETS = RNG.normal(size=(50, 2))


def rows(part) -> np.ndarray:
    return torch.cat([x for x, _ in batched(part, 8)]).numpy()


def as_dataset(x, y):
    return TensorDataset(torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y))


@pytest.mark.parametrize(
    "given",
    [
        (FEATURES, LABELS),
        (torch.from_numpy(FEATURES), torch.from_numpy(LABELS)),
        (FEATURES.tolist(), LABELS.tolist()),
        (np.asfortranarray(FEATURES)[:, ::-1][:, ::-1], LABELS.astype(np.uint8)),
        (torch.from_numpy(FEATURES).requires_grad_(), torch.from_numpy(LABELS[:, None])),
        as_dataset(FEATURES, LABELS),
        DataLoader(as_dataset(FEATURES, LABELS), batch_size=4),
        DataLoader(as_dataset(FEATURES, LABELS), batch_size=4, shuffle=True),
    ],
    ids=["numpy", "torch", "lists", "views", "columns", "Dataset", "DataLoader", "shuffled"],
)
def test_features_and_labels(given):
    dataset = own_dataset(given)
    assert dataset.in_shape == (7,)
    assert dataset.classes == ("0", "1", "2")
    assert dataset.outputs == 3
    assert (len(dataset.train), len(dataset.test)) == (40, 10)
    both = np.concatenate([rows(dataset.train), rows(dataset.test)])
    labels = np.concatenate([dataset.train.targets(), dataset.test.targets()])
    order = [int(np.abs(FEATURES - row).sum(1).argmin()) for row in both]
    assert sorted(order) == list(range(50))
    np.testing.assert_array_equal(both, FEATURES[order].astype(np.float32))
    np.testing.assert_array_equal(labels, LABELS[order])


def test_a_part_to_test_on():
    for train, test in (
        ((FEATURES[:30], LABELS[:30]), (FEATURES[30:], LABELS[30:])),
        (as_dataset(FEATURES[:30], LABELS[:30]), DataLoader(as_dataset(FEATURES[30:], LABELS[30:]))),
    ):
        dataset = own_dataset((train, test))
        assert (len(dataset.train), len(dataset.test)) == (30, 20)
        np.testing.assert_array_equal(rows(dataset.test), FEATURES[30:].astype(np.float32))


def test_targets_that_are_numbers():
    for targets, shape, outputs in (
        (TARGETS, (2,), 2),
        (TARGETS[:, 0], (1,), 1),
        (np.ones((50, 2, 3)), (2, 3), 6),
    ):
        dataset = own_dataset((FEATURES, targets))
        assert (dataset.classes, dataset.train.target_shape, dataset.outputs) == ((), shape, outputs)
    lazy = own_dataset(as_dataset(FEATURES, torch.as_tensor(TARGETS[:, 0])))
    assert (lazy.classes, lazy.train.target_shape) == ((), (1,))


def test_pixels_are_scaled_and_floats_are_not():
    for pixels in (PIXELS, PIXELS[:, 0]):
        dataset = own_dataset(((pixels, LABELS), (pixels, LABELS)))
        assert dataset.in_shape == (1, 5, 6)
        np.testing.assert_allclose(rows(dataset.train), PIXELS / 255, rtol=1e-6)
        np.testing.assert_allclose(dataset.mean, (PIXELS / 255).mean(), rtol=1e-12)
        np.testing.assert_allclose(dataset.std, (PIXELS / 255).std(), rtol=1e-12)
    features = own_dataset(((FEATURES, LABELS), (FEATURES, LABELS)))
    single = FEATURES.astype(np.float32).astype(float)
    np.testing.assert_allclose(features.mean, single.mean(0), rtol=1e-9)
    np.testing.assert_allclose(features.std, single.std(0), rtol=1e-9)
    (x, _), *_ = batched(features.train, 50, mean=features.mean, std=features.std)
    np.testing.assert_allclose(x, (single - single.mean(0)) / single.std(0), rtol=1e-4, atol=1e-5)


class Listed(torch.utils.data.Dataset):
    """The samples of a list."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, k):
        return self.samples[k]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "data: of type int, but it must be"),
        ((FEATURES,), "data: of type tuple"),
        ((FEATURES, LABELS[:-1]), r"train X and y must have one row each for a sample, not \(50, 7\) and \(49,\)"),
        ((FEATURES, 5), "must have one row each"),
        (
            (np.where(FEATURES > 3, np.nan, FEATURES) * np.nan, LABELS),
            "train X has a NaN or infinite number in row 0",
        ),
        (
            (FEATURES, np.where(TARGETS[3, 0] == TARGETS, np.inf, TARGETS)),
            "train y has a NaN or infinite .* row 3",
        ),
        ((FEATURES, LABELS - 1), "labels must be classes, counted from 0, .* not -1"),
        ((FEATURES, LABELS * 10**9), "fewer than 1,000,000"),
        ((FEATURES, np.stack([LABELS, LABELS], 1)), "train y must be labels of shape"),
        ((FEATURES, np.array(["a"] * 50)), "train y must be numbers, .*np.unique"),
        (([[1.0, 2.0], [3.0]], [0, 1]), "train X must be numbers, of one shape each"),
        ((FEATURES + 1j, LABELS), "train X must be real numbers"),
        ((torch.eye(50).to_sparse(), LABELS), "in a dense array"),
        ((torch.eye(50).to_sparse_csr(), LABELS), "in a dense array, not torch.float32, torch.sparse_csr"),
        ((torch.empty(50, 3, device="meta"), LABELS), "in a dense array, .* on meta"),
        ((FEATURES, torch.empty(50, device="meta")), "train y must be real numbers in a dense array"),
        ((np.ma.masked_array(FEATURES, mask=FEATURES > 1), LABELS), "train X is a masked array"),
        ([(torch.zeros(3 + k // 25), 0) for k in range(50)], "data: samples of a Listed make no batch"),
        ([(torch.zeros(3).to_sparse(), 0)] * 50, "data: samples of a Listed make no batch"),
        ([(torch.zeros(3, device="meta"), 0)] * 50, "data: x must be dense, not .* on meta"),
        ([(object(), 0)] * 50, "data: samples of a Listed make no batch"),
        ((FEATURES[:2], LABELS[:2]), "2 samples are too few to keep a fifth"),
        (((FEATURES, LABELS), (FEATURES[:, :3], LABELS)), r"train and test images must have one shape"),
        (((FEATURES, LABELS), (FEATURES, TARGETS)), r"train and test targets must both be labels"),
        (((FEATURES, TARGETS), (FEATURES, TARGETS[:, :1])), r"train and test targets must have one shape"),
        (as_dataset(FEATURES[:0], LABELS[:0]), "a TensorDataset without samples"),
        (TensorDataset(torch.eye(5)), r"a sample must be \(x, y\)"),
        (TensorDataset(torch.eye(5).long(), torch.arange(5)), "x must be uint8 or floating-point"),
        (DataLoader(as_dataset(FEATURES, LABELS), batch_size=None), "batches of its own"),
        (
            DataLoader(as_dataset(FEATURES, LABELS), sampler=WeightedRandomSampler([1.0] * 50, 50)),
            "a DataLoader with a WeightedRandomSampler; give its data set, or train with dualprop.Trainer",
        ),
        (
            DataLoader(
                as_dataset(FEATURES, LABELS), batch_sampler=BatchSampler(SequentialSampler(range(50)), 5, False)
            ),
            "batches of its own",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_anything_else_is_refused_in_one_line(given, message):
    with pytest.raises(DualpropError, match=message) as error:
        own_dataset(Listed(given) if isinstance(given, list) else given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("order", [">", "<"])
def test_arrays_in_the_byte_order_of_another_machine(order):
    train = own_dataset((FEATURES.astype(f"{order}f8"), LABELS.astype(f"{order}i4"))).train
    expected = own_dataset((FEATURES, LABELS)).train
    assert torch.equal(train.images, expected.images)
    assert torch.equal(train.labels, expected.labels)


def test_a_stream_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    for given in (Stream(), DataLoader(Stream())):
        with pytest.raises(DualpropError, match=r"Stream has no length|with a _InfiniteConstantSampler"):
            own_dataset(given)


class Noisy(TorchDataset):
    """Samples that are transformed at random, from numbered ones."""

    classes = ("a", "b", "c")

    def __init__(self, noise: float = 1.0, shift: float = 0.0) -> None:
        self.noise, self.shift = noise, shift

    def __len__(self) -> int:
        return 50

    def __getitem__(self, row):
        return torch.full((3,), float(row) + self.shift) + self.noise * torch.rand(3), int(LABELS[row])


def test_random_transforms_are_drawn_anew_in_every_epoch_and_read_only_when_asked_for():
    dataset = own_dataset(Noisy())
    assert isinstance(dataset.train, Items)
    assert dataset.classes == ("a", "b", "c")
    batches = batched(dataset.train, 8, seed=0)
    first, again = (torch.cat([x for x, _ in batches.epoch(0)]) for _ in range(2))
    assert torch.equal(first.floor(), again.floor())
    assert not torch.equal(first, again)
    assert not torch.equal(first.floor(), torch.cat([x for x, _ in batches.epoch(1)]).floor())


def test_an_epoch_goes_on_from_any_batch():
    part, _ = train_validation(own_dataset(Noisy(noise=0)).train, 0.2)
    batches = batched(part, 5, seed=3)
    whole = list(batches.epoch(2))
    assert len(whole) == len(batches) == 7
    assert sum(len(y) for _, y in whole) == len(part) == 32
    for (x, y), (other_x, other_y) in zip(whole[4:], batches.epoch(2, 4), strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_workers_and_the_way_to_make_a_batch_are_those_of_the_loader():
    def doubled(samples):
        return torch.stack([2 * x for x, _ in samples]), torch.tensor([y for _, y in samples])

    loader = DataLoader(Noisy(noise=0), batch_size=4, collate_fn=doubled, num_workers=1)
    dataset = own_dataset(loader)
    assert (dataset.train.workers, dataset.train.batch_size) == (1, 4)
    x = rows(Items(Noisy(noise=0), doubled))
    np.testing.assert_array_equal(x[:, 0], 2 * np.arange(50))
    np.testing.assert_array_equal(rows(dataset.train)[:, 0] % 2, 0)


def test_nothing_draws_from_the_global_generator():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    dataset = own_dataset(as_dataset(FEATURES, LABELS))
    fingerprint(dataset)
    list(batched(dataset.train, 8, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_fingerprint_is_of_the_content():
    prints = [
        fingerprint(own_dataset(given))
        for given in (
            (FEATURES, LABELS),
            (FEATURES[::-1], LABELS[::-1]),
            (FEATURES, (LABELS + 1) % 3),
            (np.where(FEATURES[7, 2] == FEATURES, 0, FEATURES), LABELS),
            (FEATURES[:, :6], LABELS),
            as_dataset(FEATURES, LABELS),
            as_dataset(FEATURES, (LABELS + 1) % 3),
            as_dataset(FEATURES + 1, LABELS),
            Noisy(),
            Noisy(noise=0),
            Noisy(noise=0, shift=1),
        )
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(own_dataset((FEATURES.copy(), LABELS.tolist()))) == prints[0]
    assert fingerprint(own_dataset(DataLoader(as_dataset(FEATURES, LABELS), shuffle=True))) == prints[5]
    assert fingerprint(own_dataset(Noisy())) == prints[8]  # though no sample is the same twice


def test_what_a_data_set_has_to_do_itself_is_refused():
    dataset = own_dataset(Noisy())
    with pytest.raises(DualpropError, match="augment: not for a torch Dataset"):
        batched(dataset.train, 8, augment=True, seed=0)
    with pytest.raises(DualpropError, match="standardise: not for a torch Dataset"):
        batched(dataset.train, 8, std=(2.0,))
    features = own_dataset((FEATURES, LABELS)).train
    with pytest.raises(DualpropError, match=r"augment is for images of shape \(C, H, W\)"):
        batched(features, 8, augment=True, seed=0)
    with pytest.raises(DualpropError, match="channels_last is for images"):
        batched(features, 8, memory_format=torch.channels_last)


def test_a_subset_is_a_part():
    dataset = own_dataset(Subset(Noisy(noise=0), range(20, 40)))
    assert isinstance(dataset.train, Items)
    assert set(rows(dataset.train)[:, 0]) | set(rows(dataset.test)[:, 0]) == set(range(20, 40))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("writable", [True, False])
def test_arrays_are_not_copied(writable):
    features = np.ones((10, 3), np.float32)
    features.flags.writeable = writable
    part = own_dataset(((features, np.arange(10)), (features, np.arange(10)))).train
    assert isinstance(part, Split)
    assert part.images.data_ptr() == features.ctypes.data
