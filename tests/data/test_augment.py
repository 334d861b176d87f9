import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualprop.data.augment import crop_flip, random_crop_flip


def crop_flip_by_definition(image: np.ndarray, top: int, left: int, mirrored: bool) -> np.ndarray:
    """Treat one image pixel by pixel: outside it there are zeros, and it starts at (4, 4)."""
    channels, height, width = image.shape
    result = np.zeros_like(image)
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                source_row = row + top - 4
                source_column = (width - 1 - column if mirrored else column) + left - 4
                if 0 <= source_row < height and 0 <= source_column < width:
                    result[channel, row, column] = image[channel, source_row, source_column]
    return result


@given(data=st.data(), count=st.integers(1, 3), channels=st.sampled_from([1, 3]))
def test_a_batch_is_treated_as_its_images_one_by_one(data, count, channels):
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    images = np.random.default_rng(data.draw(st.integers(0, 99))).integers(
        0, 256, (count, channels, height, width), dtype=np.uint8
    )
    offsets = st.lists(st.integers(0, 8), min_size=count, max_size=count)
    top, left = data.draw(offsets), data.draw(offsets)
    mirrored = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    result = crop_flip(*map(torch.tensor, (images, top, left, mirrored)))
    for number in range(count):
        expected = crop_flip_by_definition(images[number], top[number], left[number], mirrored[number])
        assert np.array_equal(result[number].numpy(), expected)


def test_all_shifts_and_both_sides_are_equally_likely():
    """Mark one pixel of a large image: where it lands tells its shift and its side."""
    count, size = 20_000, 32
    images = torch.zeros(count, 1, size, size, dtype=torch.uint8)
    images[:, 0, 8, 8] = 1
    result = random_crop_flip(images, torch.Generator().manual_seed(0))
    rows, columns = result[:, 0].nonzero()[:, 1:].unbind(1)
    mirrored = columns > size // 2
    shifts = torch.where(mirrored, size - 1 - columns, columns)
    assert len(rows) == count
    assert abs(mirrored.float().mean() - 0.5) < 0.02
    for landed in (rows, shifts):
        frequencies = landed.bincount(minlength=13)[4:13] / count
        assert (frequencies - 1 / 9).abs().max() < 0.015
    joint = (rows * size + shifts).bincount()
    assert (joint > 0).sum() == 81
