"""What a run keeps to be looked at: small arrays in 8 bits, in `pictures.safetensors`.

It is a safetensors file of bytes; its header has a number for each of them, and whatever else is to be said. All
arrays have up to three dimensions: (channels, height, width), or (height, width), or (neurons,).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dualprop.arguments import Number, check
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs.folder import Run

PICTURES = "pictures.safetensors"

LARGEST = 100_000
"""Bytes of the file, at most."""

ZERO = 128
"""The byte that means 0."""


@dataclass(frozen=True)
class Pictures:
    """Arrays with a scale each, and numbers by name.

    Args:
        arrays: by name, each in bytes: `ZERO` is 0, and `ZERO` ± 127 the scale.
        scales: the largest absolute value of each array.
        numbers: what else was measured.

    Example:
        >>> kept = Pictures.of({"filters/0": torch.tensor([[-2.0, 0.0, 1.0]])}, {})
        >>> kept.arrays["filters/0"], kept.scales
        (tensor([[  1, 128, 192]], dtype=torch.uint8), {'filters/0': 2.0})
    """

    arrays: Mapping[str, Tensor]
    scales: Mapping[str, float]
    numbers: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Tensor], numbers: Mapping[str, float]) -> Pictures:
        """Round arrays to bytes.

        Args:
            values: finite numbers.
            numbers: kept as they are.
        """
        scales = {name: float(value.abs().max()) for name, value in values.items()}
        arrays = {
            name: (ZERO + 127 * value.detach().float() / (scales[name] or 1.0)).round().to(torch.uint8).cpu()
            for name, value in values.items()
        }
        return cls(arrays, scales, dict(numbers))

    def write(self, run: Run) -> None:
        """Replace the run's file.

        Raises:
            CheckpointError: if it cannot be written.
        """
        said = {f"scale of {name}": scale for name, scale in self.scales.items()} | dict(self.numbers)
        run.save_weights(PICTURES, self.arrays, **{name: repr(number) for name, number in said.items()})

    @classmethod
    def read(cls, run: Run) -> Pictures | None:
        """Those of a run; None where it has kept none.

        Raises:
            CheckpointError: if the file is damaged or holds anything else.
        """
        path = run.path / PICTURES
        if not path.exists():
            return None
        try:
            if path.stat().st_size > LARGEST:
                raise DualpropError(f"holds more than {LARGEST:,} bytes")
            arrays, header = run.load_weights(PICTURES)
            said = {name: check(name, _number(text), Number) for name, text in header.items()}
            scales = {name: said.pop(f"scale of {name}", math.nan) for name in arrays}
            for name, array in arrays.items():
                if array.dtype != torch.uint8 or not 1 <= array.dim() <= 3 or not array.numel():
                    raise DualpropError(f"{name}: no bytes in one to three dimensions")
                check(f"scale of {name}", scales[name], Number)
        except CheckpointError:
            raise
        except (OSError, DualpropError) as error:
            raise CheckpointError(f"{path}: damaged ({error})") from None
        return cls(arrays, scales, said)


def _number(text: str) -> float | str:
    """What a word of the header says, if it is a number."""
    try:
        return float(text)
    except ValueError:
        return text
