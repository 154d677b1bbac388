"""Commands run in this process, as their tests of galleries and decisions do."""

from __future__ import annotations

from click.testing import CliRunner

from reidkit.cli import cli
from reidkit.errors import ConfigError, DataError


def ok(*words):
    result = CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)
    assert result.exception is None, result.exception
    return result


def refused(*words):
    result = CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)
    assert isinstance(result.exception, ConfigError | DataError), (result.exception, result.output)
    return str(result.exception)
