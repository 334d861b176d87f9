"""Asking the C library to keep memory is harmless wherever it runs."""

import platform

from dualprop.training.malloc import keep_memory


def test_it_can_be_asked_anywhere(monkeypatch):
    keep_memory()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    keep_memory()
