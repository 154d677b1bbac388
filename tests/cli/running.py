"""Commands run in this process, which spares each of them the imports; or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from reidkit.cli import cli, main
from reidkit.errors import ConfigError, DataError

WIDE = {"COLUMNS": "200"}


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


def ended(*words: object) -> Ended:
    """The command in this process, from the words after ``reid`` to its exit code."""
    line = ["reid", *map(str, words)]
    with (
        patch.dict(os.environ, WIDE),
        patch.object(sys, "argv", line),
        warnings.catch_warnings(),
        CliRunner().isolation() as (stdout, stderr, _),
    ):
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(end.value.code, stdout.getvalue().decode(), stderr.getvalue().decode())


def process(*words: object) -> Ended:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "reidkit", *map(str, words)]
    environment = {**os.environ, **WIDE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    return Ended(done.returncode, done.stdout, done.stderr)


def ok(*words):
    result = CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)
    assert result.exception is None, result.exception
    return result


def refused(*words):
    result = CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)
    assert isinstance(result.exception, ConfigError | DataError), (result.exception, result.output)
    return str(result.exception)
