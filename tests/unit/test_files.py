import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reidkit.files import (
    WriteError,
    append,
    check_own_folder,
    exclusive,
    from_home,
    is_unfinished,
    remove_unfinished,
    write_atomically,
)


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


def test_a_lock_or_a_line_that_cannot_be_written_is_said_as_such(tmp_path):
    (tmp_path / "plain").write_text("a file, not a folder")
    with pytest.raises(WriteError, match=r"cannot write .*lock: File exists; nothing was changed"):
        exclusive(tmp_path / "plain" / "lock").__enter__()
    with pytest.raises(WriteError, match=r"cannot write .*: Is a directory"):
        exclusive(tmp_path).__enter__()
    append(tmp_path / "plain", "\nmore")
    assert (tmp_path / "plain").read_text() == "a file, not a folder\nmore"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a disk that is always full")
def test_a_full_disk_is_said_when_a_line_is_added():
    with pytest.raises(WriteError, match="cannot write /dev/full: No space left on device; what it held"):
        append(Path("/dev/full"), "line")


def test_what_a_killed_writer_leaves_can_be_told_and_removed(tmp_path):
    program = "import os, signal; from reidkit import files; "
    program += "files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); "
    program += f"files.write_atomically({str(tmp_path / 'big.ckpt')!r}, b'half')"
    killed = subprocess.run([sys.executable, "-c", program])
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert is_unfinished(left)
    (tmp_path / ".mine").write_text("kept")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".mine"]


def asked_elsewhere(path):
    """Whether another process would get the lock."""
    program = "import sys; from pathlib import Path; from reidkit.files import exclusive\n"
    program += "with exclusive(Path(sys.argv[1])) as ours: sys.exit(not ours)"
    return subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 0


def test_a_lock_keeps_others_out_until_it_is_let_go(tmp_path):
    path = tmp_path / "deep" / "lock"
    with exclusive(path) as ours:
        assert ours
        assert not asked_elsewhere(path)
        with exclusive(path) as twice:
            assert not twice, "nor is it had twice in one process"
        assert not asked_elsewhere(path), "asking in vain has not let it go"
    assert asked_elsewhere(path)


def test_a_lock_is_not_shared_with_processes_that_are_forked(tmp_path):
    """As a loader's workers are. One that outlives its parent keeps no lock, nor does one let go of it."""
    program = "import os, sys, time; from pathlib import Path; from reidkit.files import exclusive\n"
    program += "lock = exclusive(Path(sys.argv[1])); lock.__enter__()\n"
    program += "child = os.fork()\n"
    program += "if not child and len(sys.argv) > 2: sys.exit()\n"  # it closes what it has of the lock
    program += "if child: print(child, flush=True)\n"
    program += "time.sleep(60)"
    for options in ([], ["--leave"]):
        path = tmp_path / f"lock{len(options)}"
        command = [sys.executable, "-c", program, str(path), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            child = int(holder.stdout.readline())
            time.sleep(0.2 * len(options))
            assert not asked_elsewhere(path)
            holder.kill()
            holder.wait()
            assert asked_elsewhere(path), "a killed process leaves no lock"
            if not options:
                os.kill(child, signal.SIGKILL)  # only now: it was there all the time


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK])
def test_where_the_file_system_has_no_locks_work_goes_on(tmp_path, monkeypatch, code):
    def refuse(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive(tmp_path / "lock") as ours:
        assert ours


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_home_of_nobody_stays_as_it_is():
    assert from_home("~nobody-of-that-name/photos") == Path("~nobody-of-that-name/photos")
    assert from_home("~/photos") == Path.home() / "photos"


def test_a_lock_that_is_a_link_or_a_pipe_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(WriteError, match="is a link, or a pipe"), exclusive(tmp_path / name):
            pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_leads_elsewhere_is_refused(tmp_path):
    (tmp_path / "tables").symlink_to(tmp_path)
    with pytest.raises(WriteError, match="is a link, and files would be written to where it leads"):
        check_own_folder(tmp_path / "tables")
    check_own_folder(tmp_path)
    check_own_folder(tmp_path / "none")
