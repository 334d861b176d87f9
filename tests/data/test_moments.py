import numpy as np
import pytest

from dualprop.data._moments import Moments


@pytest.mark.parametrize("pieces", [1, 3])
def test_moments_are_those_of_all_pixels(pieces):
    images = np.random.default_rng(0).integers(0, 256, (2500, 3, 4, 5), dtype=np.uint8)
    moments = Moments(channels=3)
    for piece in np.array_split(images, pieces):
        moments.add(piece)
    np.testing.assert_allclose(moments.mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(moments.std, (images / 255).std((0, 2, 3)), rtol=1e-12)


def test_constant_pixels_have_no_deviation():
    moments = Moments(channels=1)
    moments.add(np.full((7, 1, 3, 3), 77, dtype=np.uint8))
    assert moments.std == (0.0,)
