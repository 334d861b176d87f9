import hashlib

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualprop.data.official import content_digest
from tests.data.fake_files import digest_by_definition

CLASSES = ("a", "b", "c")


@given(order=st.permutations(range(6)), seed=st.integers(0, 50))
def test_the_digest_is_its_definition_in_any_order(order, seed):
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (6, 2, 3, 4), dtype=np.uint8), rng.integers(0, 256, 6)
    digest = content_digest(torch.from_numpy(images), torch.from_numpy(labels), CLASSES)
    assert digest == digest_by_definition(images, labels, CLASSES)
    assert digest == content_digest(
        torch.from_numpy(images[list(order)]), torch.from_numpy(labels[list(order)]), CLASSES
    )


def test_the_digest_changes_with_a_pixel_a_label_a_pair_and_a_repetition_and_a_name():
    images = torch.arange(24, dtype=torch.uint8).view(3, 1, 2, 4)
    labels = torch.tensor([0, 1, 2])
    changed = images.clone()
    changed[1, 0, 1, 2] += 1
    digests = {
        content_digest(images, labels, CLASSES),
        content_digest(changed, labels, CLASSES),
        content_digest(images, torch.tensor([0, 1, 1]), CLASSES),
        content_digest(images, torch.tensor([0, 2, 1]), CLASSES),
        content_digest(images[[0, 1, 2, 2, 2]], labels[[0, 1, 2, 2, 2]], CLASSES),
        content_digest(images[:2], labels[:2], CLASSES),
        content_digest(images, labels, ("a", "b", "dog")),
        content_digest(images, labels, ("b", "a", "c")),
    }
    assert len(digests) == 8


def test_the_digest_is_no_sum_of_the_rows(monkeypatch):
    """A sum modulo 2**128 can be steered by choosing among many rows; a digest of all of them cannot."""
    rows = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    digests = {bytes([0, k]): bytes([0] * 15 + [n]) for k, n in enumerate((1, 4, 2, 3))}  # 1 + 4 = 2 + 3
    real = hashlib.blake2b

    class Chosen:
        def __init__(self, content: bytes, digest_size: int) -> None:
            self.content = content

        def update(self, content: bytes) -> None:
            self.content += bytes(content)

        def digest(self) -> bytes:
            return digests[self.content]

        def hexdigest(self) -> str:
            return real(self.content, digest_size=16).hexdigest()

    monkeypatch.setattr(hashlib, "blake2b", Chosen)
    zeros = torch.zeros(2, dtype=torch.int64)
    assert content_digest(rows[:2], zeros, CLASSES) != content_digest(rows[2:], zeros, CLASSES)
