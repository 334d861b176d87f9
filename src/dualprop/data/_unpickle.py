"""Read the pickles that old data sets come in, without running what else may be in them.

Python's own unpickler is not asked: a machine that knows the opcodes of plain data does what they say.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualprop.errors import DataError
from dualprop.files import read_regular

LARGEST_FILE = 2**29
"""Bytes: a batch of ImageNet32 holds 394 million."""

LARGEST_COUNT = 2**21
"""Opcodes: a batch of ImageNet32 has 129 thousand."""

LONGEST_KEY = 100

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


@dataclass
class _Dtype:
    """What a file gets for numpy.dtype: a name from a short list, in native or no byte order."""

    code: object
    align: object = False
    copy: object = True

    def __post_init__(self) -> None:
        if not isinstance(self.code, str) or self.code not in ("u1", "i4", "i8", "f4", "f8"):
            raise pickle.UnpicklingError(f"the array type {_shown(self.code)}")
        self.numpy = np.dtype(self.code)

    def build(self, state: Any) -> None:
        if state[1] not in ("|", "<", "="):
            raise pickle.UnpicklingError(f"the byte order {_shown(state[1])}")


class _Array:
    """What a file gets for numpy.ndarray and its _reconstruct: an empty array, whatever it asks for."""

    def __init__(self, *_: object) -> None:
        self.numpy: npt.NDArray[Any] = np.empty(0, np.uint8)

    def build(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, str)):
            raise pickle.UnpicklingError("an array that does not hold plain numbers")
        numbers = content if isinstance(content, bytes) else content.encode("latin1")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and 0 <= n < 2**31 for n in shape):
            raise pickle.UnpicklingError("an array whose shape does not fit its numbers")
        array = np.frombuffer(numbers, dtype.numpy).reshape(shape, order="F" if is_fortran else "C")
        self.numpy = array.copy("K")  # one that may be written to


_GLOBALS: dict[str, type[_Array] | type[_Dtype]] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
}


class _Machine:
    """Does what the opcodes of plain containers, numbers, strings and arrays say.

    Args:
        size: the bytes that all arrays together may hold; one string could otherwise be made into many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def do(self, name: str, value: Any) -> None:
        """One opcode with its argument."""
        stack = self.stack
        match name:
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4" | "FLOAT" | "BINFLOAT":
                stack.append(value)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                stack.append(value)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                stack.append(value)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[name])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._tuple(int(name[-1]))
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "LIST" | "TUPLE" | "DICT":
                items = self._marked()
                self.stack.append(_made(name, items))
            case "APPEND":
                item = stack.pop()
                _of(list, stack[-1]).append(item)
            case "APPENDS":
                items = self._marked()
                _of(list, self.stack[-1]).extend(items)
            case "SETITEM":
                items = [stack.pop(), stack.pop()][::-1]
                _updated(_of(dict, stack[-1]), items)
            case "SETITEMS":
                items = self._marked()
                _updated(_of(dict, self.stack[-1]), items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[value] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[value])
            case "POP":
                stack.pop()
            case "GLOBAL":
                stack.append(_global(*value.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_global(_of(str, module), _of(str, attribute)))
            case "REDUCE":
                arguments, made = _of(tuple, stack.pop()), stack.pop()
                stack.append(_called(made, arguments))
            case "BUILD":
                state = _of(tuple, stack.pop())
                self._build(stack[-1], state)
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise pickle.UnpicklingError(f"the opcode {name}, which no data set needs")

    def _build(self, built: object, state: tuple[Any, ...]) -> None:
        if not isinstance(built, (_Array, _Dtype)):
            raise pickle.UnpicklingError("a state of what is no array")
        built.build(state)
        if isinstance(built, _Array):
            self.size -= built.numpy.nbytes
            if self.size < 0:
                raise pickle.UnpicklingError("arrays that together are larger than the file")

    def _tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise pickle.UnpicklingError("a tuple of what is not there")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items


def _of(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f"a {type(value).__name__} in place of a {kind.__name__}")
    return value


def _shown(value: object) -> str:
    """A value as an error may quote it: nothing that is long to write down."""
    return repr(value) if isinstance(value, str) else f"of type {type(value).__name__}"


def _made(name: str, items: list[Any]) -> Any:
    return items if name == "LIST" else tuple(items) if name == "TUPLE" else _updated({}, items)


def _called(made: object, arguments: tuple[Any, ...]) -> _Array | _Dtype:
    if made is _Array or made is _Dtype:
        return made(*arguments)
    raise pickle.UnpicklingError("a call of what is no array")


def _updated(table: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    keys, values = items[::2], items[1::2]
    for key in keys:
        short = len(key) <= LONGEST_KEY if isinstance(key, (str, bytes)) else isinstance(key, int)
        if not short or (isinstance(key, int) and not -(2**63) <= key < 2**63):
            raise pickle.UnpicklingError(f"a key that is no short string, bytes or integer ({type(key).__name__})")
    table.update(zip(keys, values, strict=True))
    return table


def _global(module: str, name: str) -> type[_Array] | type[_Dtype]:
    try:
        return _GLOBALS[f"{module}.{name}"]
    except KeyError:
        raise pickle.UnpicklingError(f"{module}.{name}") from None


def unpickle(path: Path) -> Any:
    """Return what a pickle file of plain containers, numbers, strings and numpy arrays holds.

    An array is one if it is the whole content or a value of the dictionary that is.

    Args:
        path: the file; strings that Python 2 wrote are read as latin-1.

    Raises:
        DataError: a file that is truncated, no pickle, no regular file, or that asks for anything else.
    """
    try:
        content = read_regular(path, LARGEST_FILE)
        machine = _Machine(len(content))
        for count, (opcode, value, _) in enumerate(pickletools.genops(io.BytesIO(content))):
            if count == LARGEST_COUNT:
                raise pickle.UnpicklingError(f"more than {LARGEST_COUNT:,} opcodes")
            machine.do(opcode.name, value)
        return _plain(machine.stack[-1])
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: not a data file of this kind, or damaged; refused: {error}") from None
    except Exception as error:  # damaged pickles raise errors of nearly every type
        raise DataError(f"{path}: damaged or not a data file ({type(error).__name__}: {error})") from None


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: value.numpy if isinstance(value, _Array) else value for key, value in content.items()}
    return content.numpy if isinstance(content, _Array) else content
