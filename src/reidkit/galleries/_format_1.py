"""Galleries of format 1, as reidkit 0.1 made them, without checksums: converted when they are opened."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, shown
from reidkit.galleries._items_table import ItemsTable
from reidkit.galleries._labels import label_rows
from reidkit.galleries._records import FILE, Row, State
from reidkit.galleries._vector_file import NAME_1, new_name, open_regular, remove_others, write_rows

_ROWS_AT_ONCE = 4096


def convert(table: ItemsTable) -> tempfile.TemporaryDirectory[str] | None:
    """Write the gallery anew, in its place; in memory and in a folder that is returned where it is read-only.

    The old tables and their vectors stay until all is committed at once. A vector that is not of unit length
    was damaged before, and is written as damaged.

    Raises:
        DataError: the gallery is damaged, or is not one that reidkit makes.
    """
    if not (os.access(table.folder, os.W_OK) and os.access(table.folder / FILE, os.W_OK)):
        temporary = tempfile.TemporaryDirectory(prefix="reidkit-gallery-")
        with table.transaction("BEGIN"):
            _convert(table, Path(temporary.name), in_memory=True)
        return temporary
    with table.transaction("BEGIN IMMEDIATE"):
        if table.check_tables() == 1:  # nobody else was faster
            _convert(table, table.folder, in_memory=False)
    with table.writing() as state:
        remove_others(table.folder, state.vectors)
    return None


def _convert(table: ItemsTable, place: Path, *, in_memory: bool) -> None:
    table.check_structure()
    state, old_name = _read_state(table.db, table.folder)
    rows = _read_items(table.db, table.folder, state)
    dimension = state.dimension or 0
    if state.num_rows:
        vectors = _read_vectors(table.folder / old_name, state.num_rows, dimension)
        write_rows(place / state.vectors, vectors, first=0, dimension=dimension)
    if not in_memory:
        table.db.execute("DROP TABLE gallery")
        table.db.execute("DROP TABLE items")
    table.create_tables(replace(state, num_items=len(rows)), in_memory=in_memory)
    table.put(rows)
    table.seal(table.state())


def _read_state(db: sqlite3.Connection, folder: Path) -> tuple[State, str]:
    """The state, naming a file to be written, and the name of the old one."""
    rows = db.execute("SELECT * FROM gallery LIMIT 2").fetchall()
    if len(rows) != 1:
        raise DataError(f"{folder}: {FILE} is damaged; put a copy in its place, or fill a new gallery")
    revision, name, num_rows, next_id, dimension, encoder = rows[0]
    state = State(revision, new_name(), num_rows, 0, next_id, dimension, encoder)
    fault = state.fault()
    if not isinstance(name, str) or not NAME_1.fullmatch(name):
        fault = f"{shown(name)} is not the name of a file of vectors"
    if fault is not None:
        raise DataError(f"{folder}: {FILE} is damaged or not made by reidkit: {fault}")
    return state, name


def _read_items(db: sqlite3.Connection, folder: Path, state: State) -> list[Row]:
    query = "SELECT id, row, source, identity, camera, time FROM items LIMIT ?"
    found = db.execute(query, (state.num_rows + 1,)).fetchall()
    if not found:
        return []
    ids, rows, sources, identities, cameras, times = map(list, zip(*found, strict=True))
    try:
        labels = label_rows(len(found), sources=sources, identities=identities, cameras=cameras, times=times)
    except DataError as error:
        raise DataError(f"{folder}: {FILE} is damaged: {error}") from error
    wrong = [row for row in rows if type(row) is not int or not 0 <= row < state.num_rows]
    wrong += [id for id in ids if not 0 <= id < state.next_id]
    if wrong or len(set(rows)) < len(rows):
        raise DataError(
            f"{folder}: {FILE} is damaged: {len(wrong) or 'some'} items have no embedding of theirs"
        )
    return [
        Row(id, row, label.source, label.identity, label.camera, label.time, None)
        for id, row, label in zip(ids, rows, labels, strict=True)
    ]


def _read_vectors(path: Path, num_rows: int, dimension: int) -> Iterator[NDArray[np.float32]]:
    try:
        with open_regular(path, os.O_RDONLY) as file:
            left = num_rows
            size = os.fstat(file.fileno()).st_size
            if size < num_rows * dimension * 4:
                raise DataError(
                    f"{path} has {size} bytes, but {FILE} counts {num_rows} embeddings of {dimension} "
                    f"numbers ({num_rows * dimension * 4} bytes); it was cut or replaced by something else: "
                    "put a copy in its place, or fill a new gallery"
                )
            while left:
                some = min(left, _ROWS_AT_ONCE)
                values = np.fromfile(file, "<f4", some * dimension)
                left -= some
                yield values.reshape(some, dimension).astype(np.float32)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
