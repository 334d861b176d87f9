"""Read the pickles that old data sets come in, without running what else may be in them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from dualprop.errors import DataError

_DTYPES = ("u1", "i4", "i8", "f4", "f8")


class _Dtype:
    """What a file gets for numpy.dtype: a name from a short list, in native or no byte order."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in _DTYPES:
            raise pickle.UnpicklingError(f"the array type {code!r}")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("|", "<", "="):
            raise pickle.UnpicklingError(f"the byte order {state[1]!r}")


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """What a file gets for numpy.ndarray and its _reconstruct: an empty array, whatever it asks for."""

    def __new__(cls, *_: object) -> _Array:
        empty: _Array = super().__new__(cls, (0,), np.uint8)
        return empty

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, str)):
            raise pickle.UnpicklingError("an array that does not hold plain numbers")
        numbers = content if isinstance(content, bytes) else content.encode("latin1")
        super().__setstate__((version, shape, dtype.numpy, is_fortran, numbers))


_ADMITTED = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
}


class _Unpickler(pickle._Unpickler):  # in C, one absurd memo index would fill the memory; speed is the same
    def find_class(self, module: str, name: str) -> type:
        try:
            return _ADMITTED[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None


def unpickle(path: Path) -> Any:
    """Return what a pickle file of plain containers, numbers, strings and numpy arrays holds.

    Nothing of numpy's or Python's own is handed to the file: arrays are rebuilt by stand-ins that take
    numbers only, and every other global is refused.

    Args:
        path: the file; strings that Python 2 wrote are read as latin-1.

    Raises:
        DataError: a file that is truncated, no pickle, or that asks for anything else.
    """
    try:
        return _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: not a data file of this kind, or damaged; refused: {error}") from None
    except Exception as error:  # damaged pickles raise errors of nearly every type
        raise DataError(f"{path}: damaged or not a data file ({type(error).__name__}: {error})") from None
