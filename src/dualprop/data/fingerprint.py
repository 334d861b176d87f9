"""A digest that tells a data set from other content, whatever it is called and wherever it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from dualprop.data.dataset import Dataset, Split
from dualprop.data.items import Items

_BLOCK = 2**20
"""Numbers that are read at once; a memory map stays on disk."""


ALL = "all:"
"""How fingerprints begin that are of all samples where those of a thousand would do."""


def fingerprint(dataset: Dataset, every: bool = False) -> str:
    """Return 32 hexadecimal digits.

    They are of all samples in memory, in their order; of samples that are made when they are asked for, see
    `Items.fingerprint`; and of files where the data set says what they hold.

    Args:
        dataset: any.
        every: read all of it, samples that are made when they are asked for and memory maps included.

    Raises:
        DataError: if a memory map does not hold what its fingerprint says.
    """
    if every and dataset.verify is not None:
        dataset.verify()
    if dataset.fingerprint:
        return dataset.fingerprint
    lazy = any(isinstance(part, Items) for part in (dataset.train, dataset.test))
    digest = hashlib.blake2b(repr(dataset.classes).encode("utf-8", "surrogatepass"), digest_size=16)
    for part in (dataset.train, dataset.test):
        if isinstance(part, Items):
            digest.update(part.fingerprint(every).encode())
        elif isinstance(part, Split):
            for tensor in (part.images, part.labels, part.rows):
                for block in () if tensor is None else _blocks(tensor):
                    digest.update(block)
    return (ALL if every and lazy else "") + digest.hexdigest()


def _blocks(tensor: Tensor) -> Iterator[bytes]:
    yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    if len(tensor):
        for block in torch.split(tensor, max(1, _BLOCK // max(1, tensor[0].numel()))):
            yield block.contiguous().numpy().tobytes()
