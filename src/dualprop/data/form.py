"""The form that a net's samples have, and how files and arrays of one's own are brought to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from dualprop.arguments import Count, NotNegative, Number, Several, checked
from dualprop.data.batches import Normalisation
from dualprop.data.dataset import Dataset, Split
from dualprop.errors import DualpropError
from dualprop.files import parse_json


@checked
@dataclass(frozen=True)
class Form:
    """What a net's samples are, and how they are made ready for it.

    Args:
        shape: of one sample.
        pixels: whether they are pixels, which are scaled to [0, 1] first.
        mean: per channel, or one number for all, what is subtracted.
        std: likewise, what it is divided by.
        classes: their names; none where targets are numbers.

    Raises:
        DualpropError: for values of another kind.

    Example:
        >>> form = Form((1, 8, 8), True, (0.5,), (0.25,), ("a", "b"))
        >>> Form.read(form.written()) == form
        True
        >>> form.ready(torch.full((3, 8, 8), 255, dtype=torch.uint8)).unique()
        tensor([2.])
    """

    shape: Several[Count]
    pixels: bool
    mean: Several[Number]
    std: Several[NotNegative]
    classes: Several[str]

    @classmethod
    def of(cls, dataset: Dataset, *, standardise: bool, std_scale: float = 1.0) -> Form:
        """That of a data set.

        Args:
            dataset: the data set.
            standardise: whether its samples are brought to zero mean and unit variance.
            std_scale: multiplies the deviations that they are divided by.
        """
        part = dataset.train
        pixels = isinstance(part, Split) and part.images.dtype == torch.uint8
        mean, std = (dataset.mean, dataset.std) if standardise else ((0.0,), (1.0,))
        return cls(dataset.in_shape, pixels, mean, tuple(std_scale * s for s in std), dataset.classes)

    def written(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Form:
        """What `written` gave.

        Raises:
            DualpropError: for any other text.
        """
        try:
            values = parse_json(text)
        except ValueError as error:
            raise DualpropError(f"form: no JSON ({error})") from None
        if not isinstance(values, Mapping):
            raise DualpropError("form: must be a table")
        return cls(**values)

    def ready(self, x: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Samples as the net takes them, floats of shape (B, *shape).

        Args:
            x: pixels, uint8, or numbers of shape (B, ...), of as many elements a sample.
            device: where they go.

        Raises:
            DualpropError: for samples of another size, NaN or infinite numbers, numbers where the net takes pixels
                that are not scaled to [0, 1].
        """
        if x.ndim < 2 or x[0].numel() != torch.Size(self.shape).numel():
            raise DualpropError(f"x: shape {tuple(x.shape)}, but the net takes samples of shape {self.shape}")
        if x.dtype != torch.uint8:
            low, high = (float(bound) for bound in torch.aminmax(x.float()))
            if self.pixels and not (low >= 0 and high <= 1):
                raise DualpropError(
                    f"x: numbers from {low:g} to {high:g}, but the net takes pixels: uint8, or scaled to [0, 1]"
                )
        elif not self.pixels:
            raise DualpropError("x: pixels (uint8), but the net takes floating-point features")
        normalised = Normalisation(
            self.shape,
            255 if x.dtype == torch.uint8 else 1,
            mean=self.mean,
            std=self.std,
            device=torch.device(device),
            dtype=torch.float32,
            memory_format=torch.contiguous_format,
        )
        return normalised(x.to(device).reshape(len(x), *self.shape))
