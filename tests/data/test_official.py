import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualprop.data.official import content_digest
from tests.data.fake_files import digest_by_definition


@given(order=st.permutations(range(6)), seed=st.integers(0, 50))
def test_the_digest_is_its_definition_in_any_order(order, seed):
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (6, 2, 3, 4), dtype=np.uint8), rng.integers(0, 256, 6)
    digest = content_digest(torch.from_numpy(images), torch.from_numpy(labels))
    assert digest == digest_by_definition(images, labels)
    assert digest == content_digest(torch.from_numpy(images[list(order)]), torch.from_numpy(labels[list(order)]))


def test_the_digest_changes_with_a_pixel_a_label_a_pair_and_a_repetition():
    images = torch.arange(24, dtype=torch.uint8).view(3, 1, 2, 4)
    labels = torch.tensor([0, 1, 2])
    changed = images.clone()
    changed[1, 0, 1, 2] += 1
    digests = {
        content_digest(images, labels),
        content_digest(changed, labels),
        content_digest(images, torch.tensor([0, 1, 1])),
        content_digest(images, torch.tensor([0, 2, 1])),
        content_digest(images[[0, 1, 2, 2, 2]], labels[[0, 1, 2, 2, 2]]),
        content_digest(images[:2], labels[:2]),
    }
    assert len(digests) == 6
