"""The published data themselves, where they are at hand; counts and shapes from their publications."""

import numpy as np
import pytest

from dualprop import data

pytestmark = pytest.mark.real

PUBLISHED = {
    "mnist": (60_000, 10_000, (1, 28, 28), 10, "7"),
    "fashion-mnist": (60_000, 10_000, (1, 28, 28), 10, "Sneaker"),
    "cifar10": (50_000, 10_000, (3, 32, 32), 10, "horse"),
    "cifar100": (50_000, 10_000, (3, 32, 32), 100, "bicycle"),
}
CLASS_INDEX = {"mnist": 7, "fashion-mnist": 7, "cifar10": 7, "cifar100": 8}
MEAN_STD = {  # the usual constants, to the digits they are usually given in
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_data_are_what_they_should_be(name, real_root):
    dataset = data.load(name, real_root)
    train, test, shape, num_classes, class_name = PUBLISHED[name]
    assert (len(dataset.train), len(dataset.test)) == (train, test)
    assert dataset.in_shape == shape
    assert dataset.num_classes == num_classes
    assert dataset.classes[CLASS_INDEX[name]] == class_name
    if name != "mnist":
        assert set(dataset.train.labels.bincount().tolist()) == {train // num_classes}
    pixels = dataset.train.images.numpy()
    values = np.arange(256) / 255
    for channel in range(shape[0]):
        share = np.bincount(pixels[:, channel].ravel(), minlength=256) / pixels[:, channel].size
        mean = float(share @ values)
        np.testing.assert_allclose(dataset.mean[channel], mean, rtol=1e-9)
        np.testing.assert_allclose(dataset.std[channel] ** 2, share @ (values - mean) ** 2, rtol=1e-9)
    usual_mean, usual_std = MEAN_STD[name]
    np.testing.assert_allclose(dataset.mean, usual_mean, atol=5.1e-5)
    np.testing.assert_allclose(dataset.std, usual_std, atol=5.1e-5)


@pytest.mark.parametrize("name", ["imagenet32"])
def test_imagenet32_is_read(name, real_root):
    dataset = data.load(name, real_root)
    assert dataset.in_shape == (3, 32, 32)
    assert set(dataset.train.labels.unique().tolist()) == set(range(dataset.num_classes))
    sample, _ = dataset.train.batch(dataset.train.labels.new_tensor([0, len(dataset.train) - 1]))
    assert sample.float().std() > 1
