"""A gallery behind a service, with the verbs of a gallery: nothing but Python is needed to use it.

>>> import reidkit as rk
>>> people = rk.connect("http://127.0.0.1:8000", token="reid_...")             # doctest: +SKIP
>>> for hit in people.search("query.jpg", where={"camera": {"not": 3}}).hits:  # doctest: +SKIP
...     print(hit.score, hit.identity)
"""

from __future__ import annotations

import json
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from numpy.typing import ArrayLike
from pydantic import TypeAdapter

from reidkit.arrays import plain_array
from reidkit.errors import ConfigError, ReidError, did_you_mean, shortened, shown
from reidkit.files import open_regular
from reidkit.galleries import without_password
from reidkit.web import answers as a

T = TypeVar("T")
Picture = str | Path | bytes
"""The path of a picture's file, or what is in it."""

_ATTEMPTS = 4
_PAGE = 1000


class ServiceError(ReidError):
    """What a service answers where it does not do what it is asked; ``status`` is that of HTTP."""

    def __init__(self, status: int, detail: str, to_do: str = "") -> None:
        self.status = status
        super().__init__(f"the service says: {detail}" + (f" ({to_do})" if to_do else ""))


def connect(
    address: str, *, token: str | None = None, gallery: str | None = None, timeout: float = 60.0
) -> RemoteGallery:
    """Connect to a gallery behind a service.

    Args:
        address: of the service, such as "https://people.example:8000".
        token: that `reid serve users token NAME` made; none where the service asks for none.
        gallery: its name; left out where there is one only.
        timeout: seconds to wait for an answer.

    Raises:
        ConfigError: the address is none, or the service has several galleries, or none of that name.
        ServiceError: the service does not let in who has this token.
    """
    service = _Service(address, token, timeout)
    names = [one.name for one in service.ask(list[a.GalleryAnswer], "GET", "/v1/galleries")]
    if gallery is None and len(names) == 1:
        gallery = names[0]
    if gallery is None or gallery not in names:
        near = did_you_mean(gallery or "", names)
        raise ConfigError(
            f"gallery is {shown(gallery)};{near} {address} has {', '.join(names) or 'none that you may see'}"
        )
    return RemoteGallery(service, gallery)


class RemoteGallery:
    """A gallery behind a service; :func:`connect` makes one. Each verb raises :class:`ServiceError`."""

    def __init__(self, service: _Service, name: str) -> None:
        self._service, self.name = service, name
        self._path = f"/v1/galleries/{quote(name, safe='')}"

    def __repr__(self) -> str:
        return f"<gallery {self.name!r} of {self._service}>"

    def __len__(self) -> int:
        return self._ask(a.ItemsAnswer, "GET", "items", query={"num": 1}).total

    def search(
        self,
        pictures: Picture | Sequence[Picture] = (),
        *,
        items: Sequence[int] = (),
        embeddings: ArrayLike | None = None,
        top: int = 10,
        where: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> a.SearchAnswer:
        """Who looks most like the person in the pictures, items and embeddings, all of them one query.

        Args:
            pictures: one or several.
            items: numbers of the gallery's own items.
            embeddings: (N, D) or (D,), of the encoder behind the gallery.
            top: hits, or people.
            where: conditions, as :class:`reidkit.galleries.Gallery` takes them.
            options: further fields of :class:`reidkit.web.wanted.SearchRequest`, such as
                ``group="identity"``, ``labels={"camera": 3}`` or ``purpose="case 1"``.
        """
        request = {"items": list(items), "top": top, "where": dict(where or {}), **options}
        if embeddings is not None:
            rows = plain_array(embeddings, "embeddings")
            request["embeddings"] = rows.reshape(-1, rows.shape[-1]).astype(float).tolist()
        read = [_read(picture) for picture in _listed(pictures)]
        if not read:
            return self._ask(a.SearchAnswer, "POST", "search", request)
        return self._ask(a.SearchAnswer, "POST", "search/pictures", {"request": request}, pictures=read)

    def add(
        self, pictures: Picture | Sequence[Picture], *, labels: Sequence[Mapping[str, Any]] = ()
    ) -> a.AddedAnswer:
        """Add pictures.

        Args:
            pictures: one or several.
            labels: of each: ``identity``, ``camera``, ``time``, ``tracklet``, ``box``; as far as known.
        """
        read = [_read(picture) for picture in _listed(pictures)]
        return self._ask(a.AddedAnswer, "POST", "items", {"items": list(map(dict, labels))}, pictures=read)

    def items(self, *, where: Sequence[str] = ()) -> Iterator[a.ItemAnswer]:
        """Items that meet conditions such as "camera!=3"; all, where there are none."""
        start, total = 0, 1
        while start < total:
            query = {"where": list(where), "start": start, "num": _PAGE}
            page = self._ask(a.ItemsAnswer, "GET", "items", query=query)
            yield from page.items
            start, total = start + _PAGE, page.total

    def item(self, item: int) -> a.ItemAnswer:
        """One item."""
        return self._ask(a.ItemAnswer, "GET", f"items/{int(item)}")

    def picture(self, item: int) -> bytes:
        """The picture of an item, as a JPEG."""
        return self._service.fetch("GET", f"{self._path}/items/{int(item)}/picture")

    def remove(
        self, items: Sequence[int] = (), *, where: Mapping[str, Any] | None = None, dry_run: bool = False
    ) -> int:
        """Remove items, or all that meet conditions, and every byte of them; how many."""
        request = {"items": list(items), "where": dict(where or {}), "dry_run": dry_run}
        return self._ask(a.RemovedAnswer, "POST", "items/remove", request).num_items

    def forget(self, identity: str, *, dry_run: bool = False) -> int:
        """Remove all items of a person, and every byte of them; how many."""
        request = {"identity": identity, "dry_run": dry_run}
        return self._ask(a.RemovedAnswer, "POST", "forget", request).num_items

    def expire(self, older_than: str, *, dry_run: bool = False) -> int:
        """Remove what is older than an age such as "30d"; how many items."""
        request = {"older_than": older_than, "dry_run": dry_run}
        return self._ask(a.RemovedAnswer, "POST", "expire", request).num_items

    def people(self) -> a.PeopleAnswer:
        """People who are known by name, those with most items first; the first thousand."""
        return self._ask(a.PeopleAnswer, "GET", "people", query={"num": _PAGE})

    def proposals(self) -> a.PeopleAnswer:
        """People who are proposed, to be reviewed; the first thousand."""
        return self._ask(a.PeopleAnswer, "GET", "queue", query={"num": _PAGE})

    def timeline(self, name: str, *, gap: float = 1800.0) -> a.TimelineAnswer:
        """Where and when a person was."""
        return self._ask(a.TimelineAnswer, "GET", "timeline", query={"name": name, "gap": gap})

    def decide(self, kind: str, **request: Any) -> list[a.DecisionAnswer]:
        """Accept, reject, merge, split or undo; fields as in :class:`reidkit.web.wanted.DecisionRequest`."""
        return self._ask(a.DecisionsAnswer, "POST", "decisions", {"kind": kind, **request}).decisions

    def decisions(self) -> list[a.DecisionAnswer]:
        """What was decided, the newest first; the last thousand."""
        return self._ask(a.DecisionsAnswer, "GET", "decisions", query={"num": _PAGE}).decisions

    def encoder(self) -> a.CardAnswer:
        """What is known of the encoder behind the gallery."""
        return self._ask(a.CardAnswer, "GET", "encoder")

    def start_job(self, kind: str, **request: Any) -> a.JobAnswer:
        """Start to index, import or cluster; fields as :class:`reidkit.web.wanted.JobRequest` has them."""
        return self._ask(a.JobAnswer, "POST", "jobs", {"kind": kind, **request})

    def job(self, job: str) -> a.JobAnswer:
        """A job as it is now."""
        return self._ask(a.JobAnswer, "GET", f"jobs/{quote(job, safe='')}")

    def _ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        pictures: Sequence[bytes] | None = None,
    ) -> T:
        asked = f"?{urlencode(query, doseq=True)}" if query else ""
        return self._service.ask(kind, method, f"{self._path}/{path}{asked}", body, pictures)


class _Service:
    """Sends requests, again where the service says that it is too busy."""

    def __init__(self, address: str, token: str | None, timeout: float) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"address is {shown(address)}; expected one such as http://127.0.0.1:8000")
        self._address, self._timeout = address.rstrip("/"), timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A token goes to nobody else, wherever an answer would lead.
        https = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        self._opener = urllib.request.build_opener(_NoRedirect, https)

    def __str__(self) -> str:
        return without_password(self._address)

    def ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        pictures: Sequence[bytes] | None = None,
    ) -> T:
        """An answer of this kind."""
        data, content = None if body is None else json.dumps(body).encode(), "application/json"
        if pictures is not None:
            data, content = _form(body or {}, pictures)
        adapter: TypeAdapter[T] = TypeAdapter(kind)
        return adapter.validate_json(self.fetch(method, path, data, content))

    def fetch(
        self, method: str, path: str, data: bytes | None = None, content: str = "application/json"
    ) -> bytes:
        """The body of an answer."""
        headers = {**self._headers, **({} if data is None else {"Content-Type": content})}
        request = urllib.request.Request(self._address + path, data, headers, method=method)
        for attempt in range(_ATTEMPTS):
            try:
                with self._opener.open(request, timeout=self._timeout) as answer:
                    body: bytes = answer.read()
                    return body
            except urllib.error.HTTPError as error:
                wait = error.headers.get("Retry-After", "")
                if error.code == 429 and wait.isdigit() and attempt + 1 < _ATTEMPTS:
                    time.sleep(min(60, int(wait)))
                    continue
                raise _told(error) from None
            except (OSError, urllib.error.URLError) as error:
                reason = getattr(error, "reason", error)
                raise ServiceError(0, f"nothing; {self._address} cannot be reached: {reason}") from None
        raise AssertionError


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *request: Any) -> None:
        return None


def _told(error: urllib.error.HTTPError) -> ServiceError:
    try:
        problem = json.loads(error.read(1 << 16))
        return ServiceError(error.code, str(problem["detail"]), str(problem.get("to_do", "")))
    except (ValueError, KeyError, TypeError, OSError):
        return ServiceError(error.code, f"{error.code} {shortened(str(error.reason))}")


def _form(fields: Mapping[str, Any], pictures: Sequence[bytes]) -> tuple[bytes, str]:
    """A form with JSON in its fields and pictures as its files; its content type."""
    boundary = secrets.token_hex(16)
    disposition = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    parts = [
        f'{disposition}{name}"\r\n\r\n{json.dumps(value)}\r\n'.encode() for name, value in fields.items()
    ]
    for picture in pictures:
        parts += [f'{disposition}pictures"; filename="picture"\r\n\r\n'.encode(), picture, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def _listed(pictures: Picture | Sequence[Picture]) -> Sequence[Picture]:
    return [pictures] if isinstance(pictures, str | Path | bytes) else pictures


def _read(picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    with open_regular(picture) as file:
        return file.read()
