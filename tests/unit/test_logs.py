"""What the library tells: shown where it would be missed, silent where the program says so."""

import ast
import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

import reidkit
from reidkit import logs
from reidkit.training import distributed
from tests.trainings import make_trainer

logger = logs.get_logger("reidkit.test")


@contextmanager
def plain_program():
    """Logging as a program finds it that has set up nothing; the tests' own handlers stand aside."""
    with (
        patch.object(logging.getLogger(), "handlers", []),
        patch.object(logs.LIBRARY, "handlers", []),
        patch.object(logs.LIBRARY, "level", logging.NOTSET),
        patch.object(logging.getLogger(), "level", logging.WARNING),
    ):
        logs.LIBRARY.manager._clear_cache()
        yield
    logs.LIBRARY.manager._clear_cache()


@plain_program()
def test_training_shows_its_progress_on_standard_error(tiny_market, tmp_path, capsys):
    make_trainer(tiny_market, tmp_path / "run", epochs=2, val_identities=3).fit()
    make_trainer(tiny_market, tmp_path / "run", epochs=2, val_identities=3).fit()
    out, errors = capsys.readouterr()
    assert out == ""
    lines = errors.splitlines()
    assert lines[0].startswith("epoch 1/2  IdentityLoss ")
    assert " images/s, " in lines[0]
    assert lines[1].startswith("  validation: mAP ")
    assert lines[-1] == f"{tmp_path / 'run'}: training is complete (2 epochs)"


@plain_program()
def test_training_is_silent_where_the_program_says_so(tiny_market, tmp_path, capsys):
    logging.getLogger("reidkit").setLevel(logging.CRITICAL)
    make_trainer(tiny_market, tmp_path / "run", epochs=1, val_identities=3).fit()
    assert capsys.readouterr() == ("", "")


def tell():
    logger.info("progress")
    logger.warning("advice")


@plain_program()
def test_nothing_is_set_up_before_something_long_begins(capsys):
    tell()
    assert capsys.readouterr().err == "advice\n", "Python's own last resort"
    logs.show_by_default()
    logs.show_by_default()
    tell()
    assert capsys.readouterr().err == "progress\nadvice\n"


@plain_program()
def test_a_level_that_the_program_sets_holds_before_and_after(capsys):
    logs.LIBRARY.setLevel(logging.WARNING)
    logs.show_by_default()
    tell()
    assert capsys.readouterr().err == "advice\n"
    logs.LIBRARY.setLevel(logging.CRITICAL)
    tell()
    assert capsys.readouterr().err == ""


@plain_program()
@pytest.mark.parametrize("name", ["reidkit", None])
def test_a_handler_that_the_program_sets_is_enough(name, capsys):
    logging.getLogger(name).addHandler(logging.NullHandler())
    logs.show_by_default()
    tell()
    assert capsys.readouterr().err == ""
    assert logs.LIBRARY.level == logging.NOTSET


@plain_program()
def test_a_program_that_sets_up_logging_later_takes_over(capsys):
    logs.show_by_default()
    logging.basicConfig(level=logging.INFO, format="theirs: %(message)s", stream=sys.stderr)
    tell()
    assert capsys.readouterr().err == "theirs: progress\ntheirs: advice\n"


@plain_program()
def test_names_of_files_cannot_steer_a_terminal(capsys):
    logs.show_by_default()
    logger.info("photos/\x1b[2Ja.jpg\nsecond line")
    assert capsys.readouterr().err == "photos/\\x1b[2Ja.jpg\nsecond line\n"


def test_of_several_processes_the_main_one_is_heard(told, monkeypatch):
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    tell()
    assert told == []


def test_work_can_be_muted(told):
    with logs.muted():
        tell()
    tell()
    assert told == ["progress", "advice"]


def test_the_library_prints_nothing():
    """Commands do; and one helper of theirs, the progress bar, which stands beside what it counts."""
    package = Path(reidkit.__file__).parent
    for path in package.rglob("*.py"):
        if "cli" in path.parts or path.name == "progress.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            )
            assert not called, f"{path}, line {node.lineno}"
