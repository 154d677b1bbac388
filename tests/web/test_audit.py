"""The audit log: it grows, and shows where it was changed."""

from __future__ import annotations

import json
import threading

import pytest

from reidkit.errors import DataError
from reidkit.web.audit import TORN_ACTION, AuditLog, WrittenLog, hash_of, torn_file


@pytest.fixture
def log(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(5):
        log.write("anna", "search", gallery="hall", items=[number], purpose="")
    return log


def lines(log):
    return log.path.read_text().splitlines(keepends=True)


def test_entries_are_told_and_what_is_empty_is_left_out(log):
    entries = list(log.entries())
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert entries[2].details == {"items": [2]}
    assert [entry.number for entry in log.last(2)] == [5, 4]
    assert "anna  search  hall" in str(entries[0])


def forge(entry):
    """An entry with another name, and a hash that fits it."""
    from reidkit.web.audit import _hash

    changed = json.loads(entry) | {"who": "ben"}
    return json.dumps(changed | {"hash": _hash(changed)}) + "\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:2], lines[2].replace("anna", "ben"), *lines[3:]],
        lambda lines: [*lines[:2], *lines[3:]],
        lambda lines: lines[1:],
        lambda lines: [*lines[:2], lines[3], lines[2], lines[4]],
        lambda lines: [*lines[:3], lines[2], *lines[3:]],
        lambda lines: [*lines[:2], forge(lines[2]), *lines[3:]],
        lambda lines: [*lines[:2], lines[2].replace('"who": "anna"', '"who":  "anna"'), *lines[3:]],
        lambda lines: [*lines[:4], "\n", lines[4]],
        lambda lines: [*lines[:4], "[" * 100_000 + "\n", lines[4]],
    ],
)
def test_whatever_is_changed_shows(log, change):
    log.path.write_text("".join(change(lines(log))))
    with pytest.raises(DataError, match="was changed: entry"):
        log.verify()


def test_a_change_hides_no_other_entry(log):
    one, two, three, *rest = lines(log)
    log.path.write_text("".join([one, two.replace("anna", "ben"), "x\n", three, *rest]))
    found = log.last(10)[::-1]
    assert [entry.is_intact for entry in found] == [True, False, False, False, True, True]
    assert [entry.who for entry in found] == ["anna", "ben", "", "anna", "anna", "anna"]
    assert "NOT AS WRITTEN" in str(found[1])


def test_an_end_that_was_cut_off_shows_by_a_hash_kept_elsewhere(log):
    head = log.verify().head
    log.write("anna", "search")
    assert log.verify(head).num_entries == 6
    log.path.write_text("".join(lines(log)[:3]))
    assert log.verify().num_entries == 3
    with pytest.raises(DataError, match="cut off"):
        log.verify(head)


def test_several_objects_and_threads_write_one_chain(log):
    others = [log, AuditLog(log.path), AuditLog(log.path)]

    def work(one):
        for _ in range(20):
            one.write("anna", "search")

    threads = [threading.Thread(target=work, args=(one,)) for one in others for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.verify().num_entries == 125


def move_away(path):
    path.rename(path.with_suffix(".1"))


def replace(path):
    text = path.read_text()
    path.unlink()
    path.write_text(text)


@pytest.mark.parametrize(
    "change", [move_away, replace, lambda path: path.unlink(), lambda path: path.write_text("")]
)
def test_a_log_that_is_taken_away_goes_on_at_its_place_and_says_so(log, change):
    head = log.verify().head
    change(log.path)
    log.write("anna", "forget", durable=True)
    log.write("anna", "search")
    search, forgot, noted = log.last(3)
    assert [search.action, forgot.action, noted.action] == ["search", "forget", "log replaced"]
    assert noted.details == {"entries": 5, "head": head}


def test_looking_at_a_log_that_is_not_there_makes_none(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        WrittenLog(tmp_path / "audit.jsonl").verify()
    assert not list(tmp_path.iterdir())


def test_an_entry_of_any_length_is_followed_by_others(log):
    log.write("anna", "remove", items=list(range(100_000)))
    AuditLog(log.path).write("ben", "search")
    with log.path.open("a") as file:
        file.write('{"number": 8, "torn": "' + "x" * 300_000)
    AuditLog(log.path).write("ben", "search")
    assert log.verify().num_entries == 9


def torn(log):
    """What was set aside of it."""
    path = torn_file(log.path)
    return path.read_bytes() if path.exists() else b""


def test_a_last_entry_torn_at_any_byte_is_set_aside_and_told(log, tmp_path):
    *before, last = lines(log)
    for kept in range(1, len(last) - 1):
        log = AuditLog(tmp_path / f"{kept}.jsonl")
        log.path.write_text("".join(before) + last[:kept])
        assert WrittenLog(log.path).verify().num_entries == 4
        assert "not written to its end" in log.verify().remarks[0]
        log.write("ben", "login")
        assert torn(log) == last[:kept].encode() + b"\n"
        assert [entry.action for entry in log.last(3)] == ["login", TORN_ACTION, "search"]
        assert log.last(2)[1].details == {"bytes": kept, "sha256": hash_of(last[:kept])}
        assert log.verify().num_entries == 6
        assert "entry 5 says" in log.verify().remarks[0]
        log.close()


def test_a_last_entry_that_lacks_only_the_end_of_its_line_is_whole(log):
    log.path.write_text("".join(lines(log))[:-1])
    AuditLog(log.path).write("ben", "login")
    assert [entry.number for entry in log.entries()] == [1, 2, 3, 4, 5, 6]
    assert log.verify().remarks == ()
    assert torn(log) == b""


@pytest.mark.parametrize("end", [b"\0" * 4096, b"\0" * 200 + b"\n", b'{"number": 6}\n', b"\xff\xfe\n", b"\n"])
def test_a_damaged_last_line_is_set_aside(log, end):
    with log.path.open("ab") as file:
        file.write(end)
    AuditLog(log.path).write("ben", "login")
    assert torn(log) == end.rstrip(b"\n") + b"\n"
    assert log.verify().num_entries == 7


def test_a_log_of_one_torn_line_begins_anew(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text('{"number": 1, "ti')
    log = AuditLog(path)
    log.write("ben", "login")
    assert [entry.number for entry in log.entries()] == [1, 2]


def test_nothing_is_written_behind_damage_further_up(log):
    *before, last = lines(log)
    for end in ("x\ny\n", "x\n" + last[:10]):
        log.path.write_text("".join(before) + end)
        with pytest.raises(DataError, match="before its last entry"):
            AuditLog(log.path).write("ben", "login")
        assert log.path.read_text() == "".join(before) + end
        assert torn(log) == b""
