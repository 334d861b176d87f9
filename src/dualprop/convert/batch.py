"""What a batch is: how many samples a call has, and how their losses are weighted.

A nudge is to be that of one sample's loss ℓ, whatever the batch: β ∂ℓ. From a loss that is the sum over samples,
divided by n and multiplied by c, comes g = (c/n) ∂ℓ, so the nudge is s g with s = βn/c; βB for a mean over B.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from dualprop.errors import DualpropError


@dataclass(frozen=True)
class BatchDim:
    """Where the samples of a call are counted: along a dimension of one of its tensors.

    Args:
        dim: the dimension; 1 for sequences that come first.
        argument: the name of the argument of `forward` that holds the tensor; the first one that has dimensions
            by default. A list or tuple under this name counts by its length where `dim` is 0.

    Example:
        >>> import torch, dualprop as dp
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh())
        >>> dp.convert(net, batch=dp.BatchDim(1))(torch.randn(7, 5, 4)).shape  # 5 samples of 7 time steps
        torch.Size([7, 5, 8])
        >>> dp.conversion(net).samples
        5
    """

    dim: int = 0
    argument: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.dim, bool) or not isinstance(self.dim, int):
            raise DualpropError(f"dim={self.dim!r}: must be an int")
        if self.argument is not None and not isinstance(self.argument, str):
            raise DualpropError(f"argument={self.argument!r}: must be the name of an argument")


Batch = int | BatchDim | Callable[..., int]


class scaled_loss(TorchFunctionMode):
    """Say how the losses of the calls inside are weighted, where it is not the mean or sum over samples.

    The loss is a sum of terms, divided by `divided_by` and multiplied by `times`. β then is the strength of the
    nudge that one term gives, however many there are. It holds for every converted module, in this thread.

    Args:
        divided_by: the number n of terms that the loss is the mean of, positive: B·T for a mean over B sequences
            of T tokens, B·H·W for one over pixels; what `reduction` says by default.
        times: the factor c, positive: `scaler.get_scale()` of a `GradScaler`, 1/k for gradients accumulated over
            k batches.

    Raises:
        DualpropError: for a value that is not positive and finite.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.convert(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh()))
        >>> x = torch.randn(5, 7, 4)
        >>> with dp.scaled_loss(divided_by=5 * 7, times=1024.0):
        ...     loss = net(x).square().sum(2).mean() * 1024
        >>> loss.backward()
    """

    def __init__(self, *, divided_by: float | None = None, times: float = 1.0) -> None:
        super().__init__()
        for name, value in {"divided_by": divided_by, "times": times}.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < math.inf):
                raise DualpropError(f"{name}={value!r}: must be a number, positive and finite")
        self.divided_by = divided_by
        self.times = float(times)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def check_batch(batch: Any) -> None:
    """Refuse what is no number of samples, no dimension and nothing that counts them.

    Raises:
        DualpropError: naming it.
    """
    number = isinstance(batch, int) and not isinstance(batch, bool)
    if (
        batch is not None
        and not isinstance(batch, BatchDim)
        and not callable(batch)
        and not (number and batch > 0)
    ):
        raise DualpropError(f"batch={batch!r}: must be a positive number of samples, a BatchDim or a function")


def counted(
    batch: Batch | None, name: str, positions: Mapping[str, int], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, int | None]:
    """Where a call's number of samples is: a tensor and a dimension of it, or the number itself and None.

    A tensor's size is read when it is needed, so that a compiled graph holds for every size.

    Args:
        batch: as given to `convert`.
        name: of the module that is called, for the message.
        positions: where the arguments of its forward stand, by name.
        args: what it is called with.
        kwargs: what it is called with by name.

    Raises:
        DualpropError: if there is none.
    """
    if batch is None:
        found = first_tensor((args, kwargs))
        if found is None:
            raise DualpropError(f"{name}: no batch among its arguments, so the number of samples is not known")
        return (found, 0) if isinstance(found, Tensor) else (found, None)
    if isinstance(batch, int):
        return batch, None
    if not isinstance(batch, BatchDim):
        return batch(*args, **kwargs), None
    value: Any = (args, kwargs)
    if batch.argument is not None:
        position = positions.get(batch.argument, len(args))
        value = kwargs.get(batch.argument, args[position] if position < len(args) else None)
        if isinstance(value, list | tuple) and batch.dim == 0 and not isinstance(value, PackedSequence):
            return len(value), None
    found = first_tensor((value,))
    if found is None:
        where = f"in its argument {batch.argument!r}" if batch.argument else "among its arguments"
        raise DualpropError(f"{name}: no batch {where}, so the number of samples is not known")
    if isinstance(found, int):
        return found, None
    if not -found.dim() <= batch.dim < found.dim():
        raise DualpropError(f"{name}: batch={batch} for a tensor of {found.dim()} dimensions")
    return found, batch.dim


def check_learnable(samples: int, values: Iterable[Any]) -> None:
    """Refuse a batch to learn from that has no samples, is not finite or is nested in the old layout.

    Raises:
        DualpropError: naming what is wrong.
    """
    if isinstance(samples, bool) or not isinstance(samples, int):
        raise DualpropError(f"batch: returned {samples!r}, but the number of samples must be an int")
    if samples <= 0:
        raise DualpropError(f"x: a batch of {samples} samples")
    x = first_tensor(values)
    if isinstance(x, Tensor) and x.is_nested and x.layout is torch.strided:
        raise DualpropError("x: a nested tensor with layout=torch.strided, but it must have layout=torch.jagged")
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.layout is not torch.strided or x.is_nested:
        return
    if is_wrapped(x) or x.is_meta or not x.numel():
        return
    if not all(map(math.isfinite, torch.aminmax(x.detach()))):
        raise DualpropError("x: NaN or infinite inputs")


def first_tensor(values: Iterable[Any]) -> Tensor | int | None:
    """The first tensor with dimensions, also inside sequences, mappings and dataclasses.

    Of packed sequences it is their number, for their data has no dimension for it.
    """
    for value in values:
        if isinstance(value, Tensor):
            found: Tensor | int | None = value if value.dim() else None
        elif isinstance(value, PackedSequence):
            found = int(value.batch_sizes[0])
        elif isinstance(value, Mapping):
            found = first_tensor(value.values())
        elif isinstance(value, list | tuple):
            found = first_tensor(value)
        else:
            found = first_tensor(vars(value).values()) if is_dataclass(value) else None
        if found is not None:
            return found
    return None


def disagreement(values: Iterable[Any], samples: int) -> str | None:
    """What among the arguments of a call speaks against this number of samples, if anything does."""
    for value in values:
        found = None
        if isinstance(value, Tensor):
            if value.dim() and value.size(0) not in (1, samples):
                found = f"another has {value.size(0)} in dimension 0"
        elif isinstance(value, Mapping):
            found = disagreement(value.values(), samples)
        elif isinstance(value, list | tuple) and not isinstance(value, PackedSequence):
            tensors = [item for item in value if isinstance(item, Tensor) and item.dim()]
            if isinstance(value, list) and 1 < len(tensors) == len(value) != samples:
                return f"an argument is a list of {len(value)} tensors"
            found = disagreement(value, samples)
        if found is not None:
            return found
    return None


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors, also inside sequences, mappings and dataclasses."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from tensors_in(value.values())
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)
        elif is_dataclass(value):
            yield from tensors_in(vars(value).values())


def is_wrapped(x: Tensor) -> bool:
    """Whether a tensor stands for many, as inside `torch.func.vmap`, where no value may be asked for."""
    if torch.compiler.is_compiling():
        return False
    batched = "Batched" in str(torch._C._dispatch_keys(x))  # of autograd.grad(..., is_grads_batched=True), too
    return batched or bool(torch._C._functorch.is_functorch_wrapped_tensor(x))
