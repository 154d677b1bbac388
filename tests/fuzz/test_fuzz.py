"""Whatever goes in, the program answers rightly or refuses in one line; see the package for how."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tests.fuzz.kinds  # noqa: F401  # registers them
from tests.fuzz.cases import KINDS, shares
from tests.fuzz.harness import Harness, Tally
from tests.fuzz.kinds.planted import PLANTED

NUM_CASES, NUM_SLOW_CASES = 1_000, 20_000
NUM_PROCESSES = 3  # of each kind, in the slow run
KINDS_SHARED_OUT = [name for name, kind in KINDS.items() if kind.weight]

DEATH = [fault for fault, _ in PLANTED].index("the process died (SIGABRT)")

# Commands that need no network, whose processes start fast.
CHEAP = (("recipe text", 3), ("CSV text", 5), ("patterns", 6))


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with Harness() as harness:
        yield harness


@pytest.fixture(scope="module")
def total(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """All that the slow run tried; its table is shown at the end."""
    total = Tally()
    yield total
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\n{total.table()}")


def expect_none(tally: Tally) -> None:
    """Show the first failure of every cause."""
    if tally.failures:
        pytest.fail(
            "\n".join(f"{len(found)} times: {found[0]}" for _, found in tally.causes()), pytrace=False
        )


@pytest.mark.parametrize("kind", KINDS_SHARED_OUT)
def test_input_is_answered_or_refused_in_one_line(harness: Harness, kind: str) -> None:
    tally = harness.run((kind, number) for number in range(shares(NUM_CASES)[kind]))
    assert tally.cases[kind] > 0
    expect_none(tally)


def test_processes_do_the_same(harness: Harness) -> None:
    tally = harness.run(CHEAP, process=True)
    expect_none(tally)


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        pytest.param(number, fault, marks=[pytest.mark.slow] if fault == "more than 2 GB" else [])
        for number, (fault, _) in enumerate(PLANTED)
    ],
)
def test_planted_faults_are_found(harness: Harness, number: int, fault: str) -> None:
    report = harness.report("planted", number)
    assert report["faults"], report
    assert report["faults"][0].startswith(fault)


@pytest.mark.slow
def test_a_hang_is_found_and_said_where(harness: Harness) -> None:
    (fault,) = harness.report("planted hang", 0)["faults"]
    assert fault.startswith("hangs")
    assert harness.report("planted hang", 1)["faults"] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS_SHARED_OUT)
def test_more_input(harness: Harness, total: Tally, kind: str) -> None:
    tally = harness.run((kind, number) for number in range(shares(NUM_SLOW_CASES)[kind]))
    total.add(tally)
    expect_none(tally)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS_SHARED_OUT)
def test_more_processes(harness: Harness, kind: str) -> None:
    tally = harness.run(((kind, number) for number in range(NUM_PROCESSES)), process=True)
    expect_none(tally)


def test_a_case_is_made_again_by_its_kind_and_number(harness: Harness) -> None:
    kinds = ("patterns", "recipe tree", "npz structure", "CSV text")
    first = [harness.report(kind, 5) for kind in kinds]
    harness.report("planted", DEATH)  # the next worker has drawn nothing yet
    again = [harness.report(kind, 5) for kind in kinds]
    for one, two in zip(first, again, strict=True):
        same = ("command", "code", "stdout", "stderr")
        assert {key: one[key] for key in same} == {key: two[key] for key in same}
