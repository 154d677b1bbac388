"""Changes of a gallery on Milvus that happen as a whole, by one writer at a time, without transactions.

A writer first makes sure that it is alone (Lamport's bakery: each writes a claim with a number above all that
it sees, and waits for lower ones). Then:

1. a state that leaves the change's number out, and reserves what it will use: nobody sees its rows;
2. the rows, and a list of those that it removes or replaces;
3. a state in which the change counts: the one row by which all of it happens;
4. the rows on the list are deleted, and the list.

Who claims next finishes what a writer left that ended in between: before 3 it deletes the change's rows,
after 3 it goes on with 4. A writer that does not renew its claim is taken for dead. Should it come back, its
states have a lower number than its successor's and are none; and before it says that a change is done it
looks whether somebody took over, and then whether that one saw the change.

A reader notes the state, reads, and looks at the state again: only where rows were removed meanwhile does it
have to read once more.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from reidkit.errors import DataError, ReidError
from reidkit.galleries._milvus.book import Book, Claims, Mark, State, Text
from reidkit.galleries._milvus.server import PATIENCE, Entity, Server
from reidkit.logs import get_logger

T = TypeVar("T")
logger = get_logger(__name__)

CLAIM_LASTS = 30.0  # seconds, unless it is renewed
WAIT_FOR_OTHERS = 600.0  # seconds for writers before us
NUM_TRIES = 5  # of a reader that a writer overtakes
_MOST_LEFT_OUT = 200  # numbers of abandoned changes that are remembered


@dataclass(eq=False)
class View:
    """What counts at a moment: a state, and what its last change removes and may still be there."""

    state: State
    removed: list[int] = field(default_factory=list)
    removed_texts: list[str] = field(default_factory=list)

    def items(self, where: str = "") -> str:
        """The expression for items that count and that another lets through."""
        parts = [self.counting]
        if self.removed:
            parts.append(f"version not in [{', '.join(map(str, self.removed))}]")
        return " and ".join([*parts, *([f"({where})"] if where else [])])

    @property
    def counting(self) -> str:
        left_out = self.state.left_out
        known = f"change < {self.state.next_change}"
        return f"{known} and change not in [{', '.join(map(str, left_out))}]" if left_out else known


@dataclass(eq=False)
class Change(Generic[T]):
    """What is to be written. ``state`` is that before, with the numbers used drawn from it.

    ``items`` are rows without their ``change``; what is removed is named by versions and keys.
    """

    result: T
    state: State
    items: Sequence[Entity] = ()
    bytes_each: int = 2000
    texts: list[Text] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    removed_texts: list[str] = field(default_factory=list)

    def returning(self, result: Any) -> Change[Any]:
        """The same with another result."""
        return replace(self, result=result)

    @property
    def removes(self) -> bool:
        return bool(self.removed or self.removed_texts)


class _TakenOver(Exception):
    """Another writer took us for dead. ``state`` is the newest, of that one or another after it."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state


@dataclass(eq=False)
class _Claim:
    """That of one writer, while it holds."""

    writer: str
    number: int
    until: float
    over: Sequence[str] = ()  # writers whose time is up
    step: int = 0

    def next(self) -> Mark:
        self.step += 1
        return Mark(self.number, self.writer, self.step)


class Changes:
    """Reads and changes of one gallery. Threads may share it."""

    def __init__(self, server: Server, book: Book) -> None:
        self._server, self._book = server, book
        self._one_writer = threading.Lock()

    # --- reading ------------------------------------------------------------------------------------------

    def read(self, work: Callable[[View], T]) -> T:
        """Do what only reads, all of it of one moment."""
        for _ in range(NUM_TRIES):
            _, state = self._book.state()
            found, wrong = list[T](), None
            try:
                found.append(work(self._view(state)))
            except ReidError as error:  # which may be for what was removed meanwhile
                wrong = error
            if self._book.state()[1].num_removals == state.num_removals:
                if wrong is not None:
                    raise wrong
                return found[0]
        # Writers wait: those that replace items all the time would win.
        return self.write(lambda view: Change(work(view), view.state))

    def _view(self, state: State) -> View:
        return View(state, *self._book.removals(state.removing)) if state.removing else View(state)

    # --- changing -----------------------------------------------------------------------------------------

    def write(self, plan: Callable[[View], Change[T]]) -> T:
        """Do all of a change or, where an error is raised, none of it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self._claimed() as (claim, state):
                    change = plan(View(state))
                    self._carry_out(claim, state, change)
                    return change.result
            except _TakenOver:
                if time.monotonic() > deadline:
                    raise DataError(
                        f"{self._server.address}: other writers take this one for dead; nothing was changed: "
                        "see that the clocks of all machines agree to some seconds"
                    ) from None
                logger.debug("%s: another writer took over; once more", self._server.address)

    def _carry_out(self, claim: _Claim, before: State, change: Change[Any]) -> None:
        after = change.state
        if not (change.items or change.texts or change.removes):
            if after != before:
                self._put_state(claim, after)
            return
        number = before.next_change
        pending = replace(
            before,
            next_id=after.next_id,
            next_version=after.next_version,
            next_decision=after.next_decision,
            next_change=number + 1,
            left_out=(*before.left_out, number)[-_MOST_LEFT_OUT:],
            pending=number,
        )
        self._put_state(claim, pending)
        self._put_rows(claim, change, number)
        done = replace(
            after,
            next_change=number + 1,
            left_out=before.left_out,
            removing=number if change.removes else 0,
            num_removals=before.num_removals + change.removes,
        )
        try:
            self._put_state(claim, done)
        except _TakenOver as error:
            if number in error.state.left_out or number >= error.state.next_change:
                raise
            return  # whoever took over saw that the change is done, and removes what it replaced
        if change.removes:
            self._remove(done, change.removed, change.removed_texts)
            self._put_state(claim, replace(done, removing=0))

    def _put_rows(self, claim: _Claim, change: Change[Any], number: int) -> None:
        def numbered() -> Iterator[Entity]:
            for row in change.items:
                self._renew(claim)
                yield {**row, "change": number}

        if change.items:
            self._server.put(change.state.items, numbered(), bytes_each=change.bytes_each)
        self._book.put(change.texts, number)
        if change.removes:
            self._book.put_removals(number, change.removed, change.removed_texts)

    def _remove(self, done: State, versions: list[int], keys: list[str]) -> None:
        if versions:
            self._server.delete(done.items, versions)
        self._book.drop(keys)
        self._book.drop([f"removal {done.removing}"])

    def _put_state(self, claim: _Claim, state: State) -> None:
        """Write a state; :class:`_TakenOver` where it is none, or may not have been seen by a successor."""
        self._renew(claim)
        mark = claim.next()
        self._book.put_state(mark, state)
        deadline = time.monotonic() + PATIENCE
        while True:
            seen = self._book.claims()
            if seen.mark != mark:
                raise _TakenOver(seen.state)
            if not any(claim.writer in other.get("over", ()) for other in seen.of_writers.values()):
                return
            if time.monotonic() > deadline:
                raise DataError(
                    f"{self._server.address}: another writer took over and then ended, so that nobody knows "
                    "yet whether the change was made; look before it is made again"
                )
            time.sleep(0.1)

    # --- claims -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[tuple[_Claim, State]]:
        """Be the one writer, of a gallery in which nothing is unfinished."""
        with self._one_writer:
            claim = _Claim(uuid.uuid4().hex, 0, 0.0)
            try:
                yield claim, self._settled(claim)
            finally:
                with contextlib.suppress(DataError):  # it ends by itself
                    self._book.drop_claims([claim.writer])

    def _settled(self, claim: _Claim) -> State:
        """Wait for our turn, and finish what an earlier writer left; the state after that."""
        self._renew(claim)  # without a number: others wait until it has one
        claim.number = 1 + self._highest(self._book.claims())
        self._renew(claim, anew=True)
        seen = self._wait(claim)
        late = [writer for writer, other in seen.of_writers.items() if other["until"] <= time.time()]
        late = [writer for writer in late if writer != claim.writer]
        if late:
            claim.over = late
            self._renew(claim, anew=True)
            seen = self._book.claims()
        if seen.former:
            self._book.drop_states(seen.former)
        state = self._finished(claim, seen.state, late)
        self._book.drop_claims(late)
        return state

    def _wait(self, claim: _Claim) -> Claims:
        deadline = time.monotonic() + WAIT_FOR_OTHERS
        while True:
            seen, now = self._book.claims(), time.time()
            if (seen.mark.number, seen.mark.writer) > (claim.number, claim.writer):
                raise _TakenOver(seen.state)
            ahead = [
                writer
                for writer, other in seen.of_writers.items()
                if writer != claim.writer
                and other["until"] > now
                and (not other["number"] or (other["number"], writer) < (claim.number, claim.writer))
            ]
            if not ahead:
                return seen
            if time.monotonic() > deadline:
                raise DataError(
                    f"{self._server.address}: {len(ahead)} other writers did not end within "
                    f"{WAIT_FOR_OTHERS:.0f} s; nothing was changed: try again later"
                )
            time.sleep(0.05 + random.random() * 0.1)
            self._renew(claim)

    @staticmethod
    def _highest(seen: Claims) -> int:
        return max([seen.mark.number, *(int(other["number"]) for other in seen.of_writers.values())])

    def _renew(self, claim: _Claim, *, anew: bool = False) -> None:
        """Write the claim, unless what is written holds for a while; it holds nobody up where we end."""
        now = time.time()
        if anew or claim.until - now < CLAIM_LASTS / 2:
            claim.until = now + CLAIM_LASTS
            self._book.put_claim(claim.writer, number=claim.number, until=claim.until, over=list(claim.over))

    def _finished(self, claim: _Claim, state: State, late: Sequence[str]) -> State:
        """Undo a change that was not done, and go on with one that was."""
        if not (state.pending or state.removing or late):
            return state
        if number := state.pending:
            if state.items:
                written = self._server.query(state.items, f"change == {number}", ("version",), strong=True)
                self._server.delete(state.items, [row["version"] for row in written])
            self._book.drop_change(number)
        if state.removing:
            self._remove(state, *self._book.removals(state.removing))
        settled = replace(state, pending=0, removing=0)
        self._put_state(claim, settled)
        return settled
