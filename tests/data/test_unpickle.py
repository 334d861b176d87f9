import os
import pickle
import pickletools
import re
import struct

import numpy as np
import pytest

from dualprop.data._unpickle import unpickle
from dualprop.errors import DataError
from tests.slow import but_slow

NUMBERS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def written(tmp_path, content: bytes):
    path = tmp_path / "batch"
    path.write_bytes(content)
    return path


def called(module: str, name: str, *arguments: object) -> bytes:
    """Return a pickle that calls a global with arguments, without looking the global up here."""
    packed = b"".join(pickle.dumps(argument, protocol=0)[:-1] for argument in arguments)
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + packed + b"tR."


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_contents_are_read(tmp_path, protocol):
    content = {"labels": [1, 2], "names": ("a", "é"), "none": None, "ratio": 0.5, "is": True}
    assert unpickle(written(tmp_path, pickle.dumps(content, protocol))) == content


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("module", ["core", "_core"])
@pytest.mark.parametrize(
    "array",
    [
        NUMBERS,
        np.asfortranarray(NUMBERS),
        NUMBERS.astype("f8"),
        NUMBERS.astype("i8")[0],
        np.zeros((0, 3072), "u1"),
    ],
    ids=["u1", "fortran", "f8", "i8", "empty"],
)
def test_arrays_of_either_numpy_are_read(tmp_path, array, module, protocol):
    content = pickle.dumps(array, protocol)
    if protocol == 3:  # in which names have no length that would have to change
        content = content.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", f"numpy.{module}".encode())
    read = np.asarray(unpickle(written(tmp_path, content)))
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)


def test_the_byte_strings_of_python_2_are_read_as_arrays(tmp_path):
    """Python 2 wrote the pixels as a string of bytes, which is text to Python 3."""
    every_byte = bytes(range(256))
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x80\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", 256) + every_byte + b"tb."
    )
    assert unpickle(written(tmp_path, content)).tobytes() == every_byte


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("os", "system", ["true"]),
        ("posix", "system", ["true"]),
        ("builtins", "eval", ["1"]),
        ("__builtin__", "eval", ["1"]),
        ("builtins", "exec", ["1"]),
        ("builtins", "getattr", ["", "join"]),
        ("builtins", "bytearray", [10]),
        ("subprocess", "Popen", ["true"]),
        ("numpy", "load", ["x"]),
        ("numpy", "fromfile", ["x"]),
        ("numpy", "zeros", [10]),
        ("numpy.core.multiarray", "scalar", []),
        ("numpy.core.multiarray", "fromfile", ["x"]),
        ("numpy", "ndarray.tofile", []),
        ("numpy.testing._private.utils", "runstring", ["1", {}]),
        ("_codecs", "encode", ["a", "latin1"]),
        ("copyreg", "_reconstructor", []),
        ("functools", "partial", []),
        ("dualprop.data._unpickle", "unpickle", ["x"]),
    ],
)
def test_any_other_global_is_refused_by_name(tmp_path, module, name, arguments):
    path = written(tmp_path, called(module, name, *arguments))
    with pytest.raises(DataError) as refusal:
        unpickle(path)
    assert str(path) in str(refusal.value)
    assert f"{module}.{name}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_global_by_the_newer_opcode_is_refused_too(tmp_path):
    content = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."
    assert "STACK_GLOBAL" in {opcode.name for opcode, _, _ in pickletools.genops(content)}
    with pytest.raises(DataError, match=r"refused: os\.system"):
        unpickle(written(tmp_path, content))


def test_a_dotted_path_from_an_admitted_global_is_refused(tmp_path):
    content = b"\x80\x04\x8c\x05numpy\x8c\x13ndarray.__init__.im\x93."
    with pytest.raises(DataError, match=r"refused: numpy\.ndarray"):
        unpickle(written(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        b"\x1f\x8b\x08 neither is this",
        pickle.dumps({"data": NUMBERS})[:-20],
        pickle.dumps({"data": NUMBERS})[:-1],
        b"\x80\x04]a.",
        b"\x80\xff.",
        b"Pid\n.",
        b"\x80\x02\x82\x01.",
        b"cnumpy\nndarray\n(dVx\nI1\nsb.",
        b"cnumpy\ndtype\nV\n\x85R(dVx\nI1\nsb.",
    ],
    ids=[
        "empty",
        "text",
        "gzip",
        "cut",
        "unstopped",
        "no list",
        "protocol",
        "persistent",
        "extension",
        "on class",
        "on dtype",
    ],
)
def test_damaged_files_are_refused(tmp_path, content):
    path = written(tmp_path, content)
    with pytest.raises(DataError) as refusal:
        unpickle(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def array_pickle(
    code: bytes = b"u1", order: bytes = b"|", shape: bytes = b"K\x04\x85", content: bytes = b"abcd"
) -> bytes:
    """Return the pickle of a one-dimensional array with any of its parts replaced."""
    return (
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\nX"
        + struct.pack("<i", len(code))
        + code
        + b"K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00"
        + order
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C"
        + bytes([len(content)])
        + content
        + b"tb."
    )


def test_the_array_pickle_of_these_tests_is_sound(tmp_path):
    assert unpickle(written(tmp_path, array_pickle())).tolist() == list(b"abcd")


@pytest.mark.parametrize(
    "changes",
    [
        {"code": b"i4", "order": b">", "shape": b"K\x01\x85"},
        {"shape": b"K\x05\x85"},
        {"shape": b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40\x85"},
        {"shape": b"J\xff\xff\xff\xff\x85"},
        {"content": b"abc"},
        {"content": b""},
    ],
    ids=str,
)
def test_arrays_of_objects_or_of_the_wrong_size_are_refused(tmp_path, changes):
    with pytest.raises(DataError):
        unpickle(written(tmp_path, array_pickle(**changes)))


@pytest.mark.parametrize("code", ["O8", "V1", "S1", "U1", "V1000000000000", "b1", "M8[s]", "u1,u1", "dual"])
def test_arrays_of_other_types_are_refused_by_name(tmp_path, code):
    with pytest.raises(DataError, match=re.escape(f"refused: the array type {code!r}")):
        unpickle(written(tmp_path, array_pickle(code=code.encode())))


def test_an_array_of_any_size_asked_for_is_made_empty(tmp_path):
    huge = 2**40
    content = called("numpy", "ndarray", (huge, huge))
    assert np.asarray(unpickle(written(tmp_path, content))).size == 0


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
        b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"abc.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",
    ],
    ids=["bytes", "string", "bytearray"],
)
def test_sizes_beyond_the_file_are_refused(tmp_path, content):
    with pytest.raises(DataError):
        unpickle(written(tmp_path, content))


REFUSED = {
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 3) + b"abc",
    "READONLY_BUFFER": b"C\x01a\x98",
    "NEXT_BUFFER": b"\x97",
    "EXT1": b"\x82\x01",
    "INST": b"(iposix\nsystem\n",
    "OBJ": b"(cnumpy\nndarray\no",
    "NEWOBJ": b"cnumpy\nndarray\n)\x81",
    "NEWOBJ_EX": b"cnumpy\nndarray\n)}\x92",
    "PERSID": b"Pid\n",
    "BINPERSID": b"NQ",
    "EMPTY_SET": b"\x8f",
    "FROZENSET": b"(\x91",
    "DUP": b"N2",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_data_set_needs_is_refused_by_name(tmp_path, name):
    with pytest.raises(DataError, match=f"refused: the opcode {name}, which no data set needs"):
        unpickle(written(tmp_path, b"\x80\x05" + REFUSED[name] + b"."))


@pytest.mark.parametrize(
    "key",
    [(), (1, 2), None, 0.5, "x" * 101, b"x" * 101, 2**63, -(2**63) - 1],
    ids=lambda key: type(key).__name__ + str(key)[:4],
)
@pytest.mark.parametrize("protocol", [0, 2])
def test_keys_are_short_strings_bytes_or_integers(tmp_path, key, protocol):
    with pytest.raises(DataError, match=r"refused: (a key that is no short string, bytes or integer|_codecs)"):
        unpickle(written(tmp_path, pickle.dumps({"sound": 1, key: 2}, protocol)))


@pytest.mark.parametrize("depth", but_slow([10**5, 10**6], 10**6))
def test_tuples_deep_in_each_other_are_read_or_refused_but_do_not_crash(tmp_path, depth):
    nested = unpickle(written(tmp_path, b"\x80\x02)" + b"\x85" * depth + b"."))
    assert type(nested) is tuple
    with pytest.raises(DataError, match="a key that is no"):
        unpickle(written(tmp_path, b"\x80\x02})" + b"\x85" * depth + b"Ns."))


def test_the_opcodes_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("dualprop.data._unpickle.LARGEST_COUNT", 1000)
    with pytest.raises(DataError, match="more than 1,000 opcodes"):
        unpickle(written(tmp_path, b"\x80\x02" + b"]" * 1000 + b"."))


def test_one_string_cannot_be_made_into_many_arrays(tmp_path):
    """The bytes are in the memo, and each array would have a copy of them."""
    sound = array_pickle(content=b"abcd")
    body = sound[2:-1]
    content = b"\x80\x03]" + (body + b"a") * 60 + b"."
    assert len(unpickle(written(tmp_path, content))) == 60
    once = body.replace(b"C\x04abcd", b"C\x04abcdq\x07")
    again = body.replace(b"C\x04abcd", b"h\x07")
    monkey = b"\x80\x03]" + once + b"a" + (again + b"a") * 60 + b"."
    assert len(unpickle(written(tmp_path, monkey))) == 61  # together still less than the file
    long = body.replace(b"K\x04\x85", b"M\xe8\x03\x85")
    once = long.replace(b"C\x04abcd", b"B" + struct.pack("<I", 1000) + bytes(1000) + b"q\x07")
    again = long.replace(b"C\x04abcd", b"h\x07")
    with pytest.raises(DataError, match="arrays that together are larger than the file"):
        unpickle(written(tmp_path, b"\x80\x03]" + once + b"a" + (again + b"a") * 60 + b"."))


def test_a_message_does_not_print_what_is_endless_to_print(tmp_path):
    """A list of ten lists of ten lists ... as the type of an array."""
    bomb = b"]q\x00" + b"".join(
        b"](" + b"h" + bytes([k]) + (b"h" + bytes([k])) * 9 + b"eq" + bytes([k + 1]) for k in range(40)
    )
    with pytest.raises(DataError, match="refused: the array type of type list"):
        unpickle(written(tmp_path, b"\x80\x02" + bomb + b"cnumpy\ndtype\nh\x28\x85R."))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "batch")
    with pytest.raises(DataError, match=r"batch: damaged or not a data file .*not a regular file"):
        unpickle(tmp_path / "batch")


def test_an_absurd_memo_index_costs_no_memory(tmp_path):
    assert unpickle(written(tmp_path, b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".")) is None
