import os

import pytest

from reidkit.files import WriteError, write_atomically


def test_a_file_is_replaced_whole_and_readable_by_others(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "one")
    write_atomically(path, "two")
    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]
    assert path.stat().st_mode & 0o044 == 0o044 & ~current_umask()


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    (tmp_path / "plain").write_text("a file, not a folder")
    with pytest.raises(WriteError, match="cannot write"):
        write_atomically(tmp_path / "plain" / "x.txt", "never")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="nothing was changed"):
        write_atomically(tmp_path / "folder", "never")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "plain"]


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
