"""What is asked of a Milvus server, each request by itself, and its errors in one line.

Requests are such that one which is sent twice does no more than once, so that pymilvus may send them again
where the connection is lost or the server asks to be left alone for a while; it does for a minute.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray
from pymilvus import CollectionSchema, MilvusClient, MilvusException

from reidkit.errors import DataError, ReidError, short
from reidkit.galleries import NoGallery, UnavailableGallery
from reidkit.galleries._milvus.address import Address

Entity: TypeAlias = dict[str, Any]
T = TypeVar("T")

PATIENCE = 60.0  # seconds in which a server may come back, or take what it did not at first
MOST_FOUND = 16_384  # places that a search or query tells at most
BYTES_AT_ONCE = 8 * 2**20  # that are sent in one request, about
IDS_AT_ONCE = 2000  # keys in one request

_files_open: Counter[str] = Counter()  # files of Milvus Lite, which has one server a process for each
_files_lock = threading.Lock()

# Everything that goes wrong is told by our errors, and pymilvus would write a traceback of it besides.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)


class Server:
    """A connection. Threads may share it."""

    def __init__(self, address: Address, *, create: bool) -> None:
        self.address = address
        if address.file is not None and not create and not address.file.exists():
            raise NoGallery(f"there is no gallery at {address}; check the path, or fill one first")
        self._level = address.consistency.capitalize()
        self.is_alone = address.file is not None and not _files_open[address.uri]
        self._client: MilvusClient | None = self._connected()

    def _connected(self) -> MilvusClient:
        address = self.address
        if address.file is not None:
            return _open_file(address)
        with _told(address):
            return MilvusClient(
                uri=address.uri,
                user=address.user,
                password=address.password,
                db_name=address.database,
                timeout=10,
            )

    @property
    def client(self) -> MilvusClient:
        if self._client is None:
            raise DataError(f"{self.address} is closed; open it again")
        return self._client

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
            if self.address.file is not None:
                _close_file(self.address)

    # --- collections --------------------------------------------------------------------------------------

    def has(self, collection: str) -> bool:
        with _told(self.address):
            return bool(self.client.has_collection(collection, timeout=PATIENCE))

    def collections(self) -> list[str]:
        with _told(self.address):
            return list(self.client.list_collections(timeout=PATIENCE))

    def create(self, collection: str, schema: CollectionSchema, index: Mapping[str, Any]) -> None:
        """Make a collection with an index over its embeddings, and have it loaded."""
        indexes = MilvusClient.prepare_index_params()
        indexes.add_index(**index)
        with _told(self.address):
            self.client.create_collection(
                collection,
                schema=schema,
                index_params=indexes,
                consistency_level="Strong",
                timeout=PATIENCE,
            )

    def load(self, collection: str) -> None:
        """Have a collection that is there ready to be searched."""
        with _told(self.address):
            self.client.load_collection(collection, timeout=PATIENCE)

    # --- rows ---------------------------------------------------------------------------------------------

    def query(
        self, collection: str, where: str, fields: Sequence[str], *, strong: bool = False
    ) -> list[Entity]:
        """Fields of the rows that an expression lets through, in no order."""
        with _told(self.address):
            found = self.client.query(
                collection,
                filter=where,
                output_fields=list(fields),
                limit=MOST_FOUND,
                timeout=PATIENCE,
                consistency_level="Strong" if strong else self._level,
            )
        if len(found) < MOST_FOUND:
            return list(found)
        return [row for some in self.pieces(collection, where, fields, strong=strong) for row in some]

    def pieces(
        self,
        collection: str,
        where: str,
        fields: Sequence[str],
        *,
        strong: bool = False,
        at_once: int = 1000,
    ) -> Iterator[list[Entity]]:
        """The same some at a time, as many as there may be."""
        with _told(self.address):
            iterator = self.client.query_iterator(
                collection,
                batch_size=at_once,
                filter=where,
                output_fields=list(fields),
                timeout=PATIENCE,
                consistency_level="Strong" if strong else self._level,
            )
            try:
                while some := iterator.next():
                    yield list(some)
            finally:
                iterator.close()

    def count(self, collection: str, where: str, *, strong: bool = False) -> int:
        """How many rows an expression lets through."""
        with _told(self.address):
            [found] = self.client.query(
                collection,
                filter=where,
                output_fields=["count(*)"],
                timeout=PATIENCE,
                consistency_level="Strong" if strong else self._level,
            )
        return int(found["count(*)"])

    def search(
        self,
        collection: str,
        queries: NDArray[np.float32],
        where: str,
        *,
        limit: int,
        fields: Sequence[str],
        parameters: Mapping[str, Any],
    ) -> list[list[Entity]]:
        """Of each query the nearest rows, with ``distance``: the higher, the nearer."""
        with _told(self.address):
            found = self.client.search(
                collection,
                data=list(queries),
                anns_field="embedding",
                filter=where,
                limit=limit,
                output_fields=list(fields),
                search_params={"metric_type": "IP", "params": dict(parameters)},
                timeout=PATIENCE,
                consistency_level=self._level,
            )
        return [[{"distance": hit["distance"], **hit["entity"]} for hit in hits] for hits in found]

    def put(self, collection: str, rows: Iterable[Entity], *, bytes_each: int = 2000) -> None:
        """Write rows, in place of those with the same keys; some at a time, as many as a request bears."""
        at_once = max(1, min(IDS_AT_ONCE, BYTES_AT_ONCE // bytes_each))
        some: list[Entity] = []
        for row in rows:
            some.append(row)
            if len(some) == at_once:
                self._put(collection, some)
                some = []
        self._put(collection, some)

    def _put(self, collection: str, rows: list[Entity]) -> None:
        if rows:
            with _told(self.address):
                self.client.upsert(collection, rows, timeout=PATIENCE)

    def delete(self, collection: str, keys: Sequence[Any]) -> None:
        for start in range(0, len(keys), IDS_AT_ONCE):
            with _told(self.address):
                self.client.delete(collection, ids=list(keys[start : start + IDS_AT_ONCE]), timeout=PATIENCE)

    def compact(self, collection: str) -> None:
        """Have the room of deleted rows given back."""
        with _told(self.address):
            self.client.flush(collection, timeout=PATIENCE)
            self.client.compact(collection, timeout=PATIENCE)

    def version(self) -> str:
        with _told(self.address):
            return str(self.client.get_server_version(timeout=PATIENCE))


class _told:
    """Errors of the server and of the way to it, in our words; bugs of ours as they are."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MilvusException | grpc.RpcError):
            raise _our_error(error, self._address) from error


_LOST = ("connect", "unavailable", "timeout", "deadline", "retry run out")
_NOT_ALLOWED = "the user {user} may not do this ({text}); ask the server's administrator for the right"
_REFUSED = (
    "the server refuses the user {user} or the password; give them in the address, as user:password@host"
)
_NO_DATABASE = "the server has no database {database}; make it there, or name another"
# What is in the server's text, and what we make of it. Whatever is not listed here is told as it is.
_REASONS = {
    "permission deny": _NOT_ALLOWED,
    "privilege": _NOT_ALLOWED,
    "auth": _REFUSED,
    "database not found": _NO_DATABASE,
    "database not exist": _NO_DATABASE,
    "rate limit": "the server takes no more for now ({text}); nothing was changed: try again later",
    "quota": "the server takes no more ({text}); nothing was changed: make room there",
    "no space left": "the server's disk is full; nothing was changed: make room there",
    "memory": "the server is out of memory ({text}); nothing was changed",
}


def _text_of(error: Exception) -> str:
    return short(getattr(error, "message", None) or error, 200)


def _our_error(error: Exception, address: Address) -> ReidError:
    text = _text_of(error)
    if address.password:
        text = text.replace(address.password, "***")
    lower = text.lower()
    for sign, reason in _REASONS.items():
        if sign in lower:
            user, database = address.user or "that is not named", address.database or "default"
            return UnavailableGallery(f"{address}: {reason.format(text=text, user=user, database=database)}")
    if any(sign in lower for sign in _LOST):
        return UnavailableGallery(
            f"{address}: no Milvus server answers at {address.server} ({text}); check host, port and that it "
            "runs, and the user and password if it asks for them"
        )
    return UnavailableGallery(f"{address}: the server says: {text}")


# --- Milvus Lite ------------------------------------------------------------------------------------------


# pymilvus asks every ten seconds whether its server is there. That of Milvus Lite, in the same process, takes
# so many questions without work for an attack and hangs up, of which a call at that moment fails.
_WITHOUT_PINGS = {"grpc.keepalive_time_ms": 2**31 - 1}


def _open_file(address: Address) -> MilvusClient:
    """A client of the one server that a process has for a file."""
    assert address.file is not None
    if not address.file.parent.is_dir():
        raise DataError(f"{address}: there is no folder {address.file.parent}; make it first")
    try:
        import milvus_lite  # noqa: F401
    except ImportError:
        raise DataError(f'{address}: Milvus Lite is not installed; pip install "milvus-lite>=3.2"') from None
    with _files_lock:
        try:
            client = MilvusClient(uri=address.uri, grpc_options=_WITHOUT_PINGS)
        except Exception as error:  # also what it raises where another process has the file
            raise DataError(
                f"{address}: Milvus Lite does not open the file ({_text_of(error)}); one process at a time "
                "may, and it must be able to write there"
            ) from error
        _files_open[address.uri] += 1
    return client


def _close_file(address: Address) -> None:
    from milvus_lite.server_manager import server_manager_instance

    with _files_lock:
        _files_open[address.uri] -= 1
        if not _files_open[address.uri]:
            server_manager_instance.release_server(address.uri)
