"""The tests see faults that a person could write; all of them: benchmarks/mutants.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ONE_OF_EACH = (
    "msml: the easiest negative pair",
    "ranks begin at 0",
    "an identity twice in a batch",
    "a checkpoint's checksum is not compared",
    "a vector's checksum is not compared",
)


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("mutants")


def run(mutants, monkeypatch, *words):
    """How it ends: False where all is well, True where a mutant survives, or a text."""
    monkeypatch.setattr(sys, "argv", ["mutants.py", *words])
    with pytest.raises(SystemExit) as ended:
        mutants.main()
    return ended.value.code


def test_each_fault_still_finds_its_place(mutants):
    assert len(mutants.MUTANTS) >= 40
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS)
    assert [problem for m in mutants.MUTANTS if (problem := mutants.misplaced(m, mutants.REPOSITORY))] == []


def test_a_fault_whose_place_is_gone_is_an_error(mutants, monkeypatch):
    lost = mutants.Mutant(
        "lost", "src/reidkit/ops/distances.py", "no such text", "", "tests/unit/test_ops.py"
    )
    gone = lost._replace(name="gone", file="src/reidkit/no_such_file.py")
    monkeypatch.setattr(mutants, "MUTANTS", [lost, gone])
    assert run(mutants, monkeypatch, "--check").splitlines() == [
        "lost: src/reidkit/ops/distances.py holds 0 times, and not once: 'no such text'",
        "gone: src/reidkit/no_such_file.py holds 0 times, and not once: 'no such text'",
    ]


@pytest.mark.slow
def test_a_fault_that_no_test_sees_is_an_error(mutants, monkeypatch, capsys):
    unseen = mutants.Mutant(
        "unseen",
        "src/reidkit/training/samplers.py",
        "no state, any position",
        "no",
        "tests/unit/training/test_samplers.py",
    )
    monkeypatch.setattr(mutants, "MUTANTS", [unseen])
    assert run(mutants, monkeypatch) is True
    assert "| unseen | `samplers.py` | survived |" in capsys.readouterr().out


@pytest.mark.slow
def test_one_fault_of_each_kind_is_seen(mutants, monkeypatch, capsys):
    words = [word for name in ONE_OF_EACH for word in ("--only", name)]
    assert run(mutants, monkeypatch, *words) is False, capsys.readouterr().out
    assert f"{len(ONE_OF_EACH)} of {len(ONE_OF_EACH)} killed" in capsys.readouterr().out
