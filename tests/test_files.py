"""Opening what others have made, and replacing files as a whole."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from dualprop.files import open_regular, read_regular, remove_drafts, replace


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", 5) == read_regular(tmp_path / "link", 5) == b"12345"
    with open_regular(tmp_path / "file", 5) as file:
        assert file.read(2) == b"12"


def test_more_bytes_than_allowed_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    for name, size in (("file", "5"), ("sparse", "1,099,511,627,776")):
        with pytest.raises(OSError, match=rf"^holds {size} bytes, more than the 4 that such a file may have$"):
            read_regular(tmp_path / name, 4)


def test_what_a_file_may_hold_is_not_allocated(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 2**60) == b"12345"


def test_a_file_that_says_it_is_empty_is_read_up_to_the_limit(tmp_path):
    with pytest.raises(OSError, match="more than the 3"):
        read_regular("/proc/self/status", 3)


def kinds(folder):
    """One of everything that is there and no regular file."""
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "loop").symlink_to("loop")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "socket"))
    return listening


def test_nothing_else_is_opened(tmp_path):
    with kinds(tmp_path):
        for name in ("folder", "pipe", "zero", "socket"):
            with pytest.raises(OSError, match=r"^not a regular file$"):
                open_regular(tmp_path / name, 10**6)
        with pytest.raises(OSError, match="loop"):
            open_regular(tmp_path / "loop", 10**6)
        with pytest.raises(FileNotFoundError):
            open_regular(tmp_path / "missing", 10**6)


def test_a_pipe_that_takes_the_file_s_place_does_not_hang(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    status = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda *_, **__: status)  # as it was when it was looked at
    refused = []

    def read():
        with pytest.raises(OSError, match=r"^not a regular file$"):
            open_regular(path, 10)
        refused.append(True)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(5)
    assert refused


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "file").symlink_to("precious")
    replace(tmp_path / "file", lambda file: file.write(b"new"))
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_draft_is_never_a_file_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("dualprop.files.secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".guessed.draft").symlink_to("made")
    with pytest.raises(FileExistsError):
        replace(tmp_path / "file", lambda file: file.write(b"new"))
    assert [path.name for path in tmp_path.iterdir()] == [".guessed.draft"]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path):
    (tmp_path / "file").write_bytes(b"old")

    def write(file):
        file.write(b"new")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        replace(tmp_path / "file", write)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_others_may_read_what_the_user_lets_them(tmp_path):
    mask = os.umask(0o027)
    try:
        replace(tmp_path / "file", lambda file: file.write(b"new"))
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_name_as_long_as_can_be(tmp_path):
    replace(tmp_path / ("x" * 255), lambda file: file.write(b"new"))


def test_drafts_of_the_killed_are_removed(tmp_path):
    (tmp_path / ".0123.draft").write_bytes(b"half")
    (tmp_path / "settings.json").write_bytes(b"{}")
    remove_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
