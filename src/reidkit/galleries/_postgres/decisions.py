"""What people decided of a gallery's items, in a table of a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from reidkit.errors import DataError, ReidError, shown
from reidkit.galleries import DamagedGallery
from reidkit.galleries._decisions import Decision, without
from reidkit.galleries._decisions_table import as_row, from_row
from reidkit.galleries._postgres.server import Connection


def read(connection: Connection, location: str) -> list[Decision]:
    """All decisions, in their order; :class:`DamagedGallery` where one is not what was written."""
    decisions, damaged = _read(connection)
    if damaged:
        raise DamagedGallery(
            f"{location} is damaged: {len(damaged)} decisions are not what was written, number {damaged[0]} "
            f"first; `reid gallery repair '{location}' --drop` drops them"
        )
    return decisions


def damaged(connection: Connection) -> list[int]:
    """Ids of the decisions that are not what was written."""
    return _read(connection)[1]


def lock(connection: Connection) -> int:
    """Nobody else decides before the transaction ends; the id of the next decision."""
    connection.execute("LOCK TABLE decisions IN SHARE ROW EXCLUSIVE MODE")
    [number] = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM decisions").fetchone() or (1,)
    return int(number)


def put(connection: Connection, decisions: Sequence[Decision]) -> None:
    """Write decisions, in place of those with the same ids."""
    for decision in decisions:
        if "\0" in decision.who:
            raise DataError(f"who decided is {shown(decision.who)}, with a NUL character; write it without")
    drop(connection, [decision.id or 0 for decision in decisions])
    with connection.cursor() as cursor:
        statement = "INSERT INTO decisions VALUES (%s, %s, %s, %s, %s, %s, %s)"
        cursor.executemany(statement, [as_row(decision) for decision in decisions])


def drop(connection: Connection, ids: Collection[int]) -> None:
    connection.execute("DELETE FROM decisions WHERE id = ANY(%s)", (list(ids),))


def forget(
    connection: Connection, removed: Collection[int], identities: Iterable[str | None], location: str
) -> None:
    """Take items that are gone out of all decisions, and names of these that no item has any more."""
    if not removed or connection.execute("SELECT EXISTS (SELECT FROM decisions)").fetchone() == (False,):
        return
    lock(connection)
    unused = """SELECT name FROM unnest(%s::text[]) AS name
        WHERE NOT EXISTS (SELECT FROM items WHERE identity = name)"""
    names = [name for name in set(identities) if name is not None]
    forgotten = {name for (name,) in connection.execute(unused, (names,))}
    changed = list(without(read(connection, location), set(removed), forgotten))
    put(connection, [left for _, left in changed if left is not None])
    drop(connection, [decision.id or 0 for decision, left in changed if left is None])


def _read(connection: Connection) -> tuple[list[Decision], list[int]]:
    whole, wrong = list[Decision](), list[int]()
    query = "SELECT id, kind, items, who, time, undoes, checksum FROM decisions ORDER BY id"
    for row in connection.execute(query, binary=True):
        try:
            whole.append(from_row(row))
        except (ReidError, ValueError, TypeError, RecursionError):
            wrong.append(row[0])
    return whole, wrong
