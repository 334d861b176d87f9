"""Freed memory stays with the process where the C library is glibc, and nothing happens elsewhere."""

import ctypes
import platform
import subprocess
import sys

import pytest

from dualprop.training.malloc import keep_memory

FREED = """
import ctypes, mmap
from dualprop.training.malloc import keep_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE

if {asked}:
    keep_memory()
libc, size = ctypes.CDLL(None), 2**26
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
before, block = resident(), libc.malloc(size)
libc.memset(block, 1, size)
libc.free(block)
print((resident() - before) / size)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("asked", [False, True])
def test_what_is_freed_stays_if_asked_to(asked):
    answer = subprocess.run([sys.executable, "-c", FREED.format(asked=asked)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) == pytest.approx(1 if asked else 0, abs=0.1)


def test_another_library_is_not_asked(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked"))
    keep_memory()
