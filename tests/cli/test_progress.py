"""Lines of the log and the bar of a training, on a terminal and elsewhere."""

import io
import re
import sys

from rich.console import Console

from reidkit import logs
from reidkit.cli import output, progress
from reidkit.cli.progress import TrainingProgress

LINE = "another image is taken instead: " + "a-long-folder/" * 12 + "1.jpg \x1b[2J[red]"
SHOWN = LINE.replace("\x1b", "\\x1b")
STEP = {"kind": "step", "progress": 1.5, "loss/msml": 0.5, "images_per_second": 9.0, "waiting_for_data": 0.0}


def shown(monkeypatch, *, terminal):
    """What stands on standard error when a line comes in the middle of a training."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=80)
    monkeypatch.setattr(output, "STANDARD_ERROR", console)
    monkeypatch.setattr(progress, "STANDARD_ERROR", console)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with output.log_shown(), TrainingProgress(num_epochs=3) as bar:
        bar(STEP)
        logs.get_logger("reidkit.test").info(LINE)
    return stream.getvalue()


def test_lines_stand_whole_above_the_bar(monkeypatch):
    text = shown(monkeypatch, terminal=True)
    assert SHOWN in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).splitlines()
    assert "50%" in text
    assert "loss 0.500, 9 images/s" in text


def test_elsewhere_there_are_lines_only(monkeypatch):
    assert shown(monkeypatch, terminal=False) == f"{SHOWN}\n"


def test_a_command_leaves_logging_as_it_was():
    before = (list(logs.LIBRARY.handlers), logs.LIBRARY.level)
    with output.log_shown():
        assert len(logs.LIBRARY.handlers) == len(before[0]) + 1
    assert (list(logs.LIBRARY.handlers), logs.LIBRARY.level) == before
