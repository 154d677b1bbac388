"""How the command line prints what comes from outside, and how it ends when something goes wrong."""

import errno
import json
import os
import sys

import click
import pytest

from reidkit import cli
from reidkit.cli.output import print_json, print_table, say, tell
from reidkit.errors import ConfigError, DataError, working_on
from reidkit.training import runs

NASTY = "a\x1b[2J\u202e\x07[/][red]:dog:"
FIT = r"a\x1b[2J\u202e\x07[/][red]:dog:"


@pytest.fixture
def ends(monkeypatch, capsys):
    """Exit code and standard error of `reid runs`, in which something is raised."""

    def run(error, *words):
        def fail(*arguments, **options):
            raise error

        monkeypatch.setattr("reidkit.cli.runs.list_runs", fail)
        monkeypatch.setattr(sys, "argv", ["reid", "runs", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError(f"{NASTY}\nx is wrong"), 2, f"error: {FIT} x is wrong"),
        (ConfigError(["one", NASTY]), 2, f"error: one\n{FIT}"),
        (DataError("x" * 100_000), 2, "... (100,000 characters)"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/a/b"),
            2,
            "error: /a/b: No space left on device; free",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", NASTY),
            2,
            f"error: {FIT}: Permission denied; this",
        ),
        (MemoryError(), 2, "error: there is not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 2, "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deeply"),
        (
            ValueError(f"x {NASTY}"),
            3,
            f"error: this is a bug in reidkit (ValueError: x {FIT}); please report it",
        ),
        (KeyError("a"), 3, "with what this shows: reid runs --debug"),
        (click.UsageError(f"no {NASTY}."), 2, f"error: no {FIT}"),
    ],
)
def test_whatever_happens_is_told_in_one_line(ends, error, code, said):
    ended, line = ends(error)
    assert (ended, said in line) == (code, True), line
    assert "Traceback" not in line
    assert len(line) < 1000
    assert len(line.splitlines()) == len(getattr(error, "problems", [1]))


def test_debug_shows_where_it_happened_and_ends_alike(ends):
    for error, code in ((DataError(NASTY), 2), (ValueError("x"), 3)):
        ended, text = ends(error, "--debug")
        assert ended == code
        assert "Traceback" in text
        assert "in fail" in text
        assert "\x1b" not in text


def test_what_was_worked_on_is_named(ends):
    with pytest.raises(ValueError, match="unforeseen") as caught, working_on("photos/7.jpg"):
        raise ValueError("unforeseen")
    assert "while working on photos/7.jpg" in ends(caught.value)[1]
    with pytest.raises(DataError) as kept, working_on("photos/7.jpg"):
        raise DataError("foreseen")
    assert not hasattr(kept.value, "__notes__")


@pytest.mark.parametrize("width", [48, 60, 80])
def test_tables_break_no_word_while_there_is_room(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [["a-long-name-of-one-word", "A text of many words, which has room to wrap.", "2026-01-01 12:00"]]
    print_table(["name", "what it does", "changed"], rows)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    for word in " ".join(rows[0]).split():
        assert word in out.split()


def test_a_path_longer_than_a_line_stays_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    path = "photos/a-name-that-is-longer-than-a-line.jpg"
    print_table(["score", "image"], [["0.9", path]], title=path)
    assert capsys.readouterr().out.split() == [path, "score", "image", "0.9", path]


def test_tables_and_sentences_show_text_as_it_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_table([NASTY, "b"], [["photo[copy].jpg", "[/]"], ["José 李", NASTY], ["a\nb", 3]], title=NASTY)
    tell(NASTY)
    say(f"{NASTY}\nsecond line", lines=True)
    out, error = capsys.readouterr()
    for text in ("photo[copy].jpg", "[/]", "José 李", r"a\nb"):
        assert text in out
    assert out.count(FIT) == 4
    assert error == f"{FIT}\nsecond line\n"
    print_json({"a": NASTY})
    assert json.loads(capsys.readouterr().out) == {"a": NASTY}


def test_a_name_with_a_line_break_stays_on_its_line(capsys):
    tell("\na\nb.jpg: 3 pictures\tof ann")
    say("a\nb.jpg: no probabilities")
    out, error = capsys.readouterr()
    assert out == "\na\\nb.jpg: 3 pictures\\tof ann\n", "a blank line before is one that we write"
    assert error == "a\\nb.jpg: no probabilities\n"


def test_headings_are_bold_and_what_they_hold_is_made_fit(capsys):
    say(NASTY, bold=True)
    assert capsys.readouterr().err == f"{FIT}\n"  # no colours where it is no terminal


def test_a_study_is_shown_fit_for_a_terminal(tmp_path, capsys, monkeypatch):
    (tmp_path / "s.toml").write_text('title = "\u202ex"\n\tbase = "y"\n')
    monkeypatch.setattr(sys, "argv", ["reid", "study", str(tmp_path / "s.toml"), "--show"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out == 'title = "\\u202ex"\n\tbase = "y"\n'


def test_what_lies_in_the_current_folder_is_not_imported_by_child_processes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["reid", "list", "nothing"])
    for path, expected in (([str(tmp_path)], None), ([], "1")):
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        monkeypatch.setattr(sys, "path", [*path, *(folder for folder in sys.path if folder)])
        with pytest.raises(SystemExit):
            cli.main()
        assert os.environ.pop("PYTHONSAFEPATH", None) == expected
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["reid", "list", "nothing"])


def test_names_that_are_not_utf_8_are_printed(tmp_path, monkeypatch, capfdbinary):
    name = os.fsdecode(b"caf\xe9")
    monkeypatch.setattr(sys, "argv", ["reid", "runs", str(tmp_path / name)])
    with pytest.raises(SystemExit):
        cli.main()
    assert rb"caf\xe9 is no folder" in capfdbinary.readouterr().err


def test_runs_with_odd_names_are_listed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    settings = {"data": {"name": NASTY}, "model": {"name": "[/]"}, "epochs": 3}
    settings["losses"] = [{"loss": "[bold]Mine(x)", "weight": 0.5}]
    folder = tmp_path / "run\x1b[31m[red]"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"settings": settings}))
    monkeypatch.setattr(sys, "argv", ["reid", "runs", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out = capsys.readouterr().out
    assert end.value.code == 0
    for text in (FIT, "[/]", "0.5 [bold]Mine", r"run\x1b[31m[red]"):
        assert text in out
    assert len(runs.list_runs(tmp_path)[0]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["timeline", "anna", "--gallery", "G"], "usage: reid timeline [OPTIONS] GALLERY [IDENTITY]; see"),
        (["search", "--nonsense"], "usage: reid search [OPTIONS]"),
        (["review", "people.gallery"], "(commands: accept, accept-all, export, log, merge, proposals, "),
        (
            ["gallery", "people.gallery"],
            "usage: reid gallery [OPTIONS] COMMAND [ARGS]... (commands: compact, ",
        ),
    ],
)
def test_words_in_the_wrong_order_are_answered_with_the_right_one(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reid", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize("error", [DataError("rtsp://admin:secret@camera/ is away"), ValueError("oh")])
@pytest.mark.parametrize("word", ["rtsp://admin:secret@camera/", "postgresql://ann:secret@host/people"])
def test_passwords_in_addresses_are_not_printed(ends, error, word):
    for words in ([word], [word, "--debug"]):
        assert "secret" not in ends(error, *words)[1]
