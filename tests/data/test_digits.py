import numpy as np
from sklearn.datasets import load_digits

from dualprop import data


def test_digits_are_all_of_scikit_learns_scaled_to_bytes():
    dataset = data.load("digits")
    assert (len(dataset.train), len(dataset.test)) == (1437, 360)
    assert dataset.in_shape == (1, 8, 8)
    assert dataset.classes == tuple("0123456789")
    images, labels = load_digits(return_X_y=True)
    expected = sorted(
        (int(label), *(round(pixel * 255 / 16) for pixel in image))
        for image, label in zip(images, labels, strict=True)
    )
    found = sorted(
        (int(label), *image.flatten().tolist())
        for split in (dataset.train, dataset.test)
        for image, label in zip(split.images, split.labels, strict=True)
    )
    assert found == expected


def test_a_fifth_of_each_class_is_for_testing():
    dataset = data.load("digits")
    test, train = dataset.test.labels.bincount(), dataset.train.labels.bincount()
    assert (test - (test + train) / 5).abs().max() <= 1


def test_digits_are_split_the_same_way_every_time():
    first, second = data.load("digits"), data.load("digits")
    assert first.test.images.equal(second.test.images)


def test_mean_and_std_are_those_of_the_training_pixels():
    dataset = data.load("digits")
    pixels = dataset.train.images.numpy() / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean(), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std(), rtol=1e-12)
