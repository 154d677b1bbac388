"""Pictures that users send to be added, and where they are kept."""

from __future__ import annotations

import fcntl
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reidkit.errors import DataError
from reidkit.files import write_atomically
from reidkit.galleries import without_password
from reidkit.galleries._labels import seconds_of
from reidkit.labels import label_text
from reidkit.logs import get_logger
from reidkit.search.pictures import new_picture
from reidkit.types import Sample
from reidkit.web.answers import AddedAnswer
from reidkit.web.served import Served, content_of, read_picture
from reidkit.web.settings import gallery_name
from reidkit.web.wanted import NewItem

logger = get_logger(__name__)

SUFFIX = ".img"
"""Of pictures of any kind: what a file is, its content tells."""

MARK = "gallery"
"""The file in a folder of uploads that says which gallery they are of, by its address."""

_KEPT = re.compile(rf"(.*/[0-9a-f]+{re.escape(SUFFIX)})(#[^/]*)?", re.DOTALL)


class Uploads:
    """Pictures in a folder, which has a folder for each gallery, named by their content.

    The address tells galleries apart: the names that they are served under may change, and services that
    share a folder may give two galleries the same. A picture is written before its item is; until both are
    there, whoever adds it shares the lock of its folder, and whoever deletes pictures has it alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self, served: Served, pictures: Sequence[bytes], said: Sequence[NewItem], *, keep: bool
    ) -> AddedAnswer:
        """Add pictures to a gallery; those that cannot be read are left out.

        Args:
            served: the gallery.
            pictures: files of images.
            said: what is known of each.
            keep: keep the pictures too, so that they can be looked at.

        Raises :class:`DataError` where none can be read, or a time is none.
        """
        unreadable, readable = [], []
        for place, (picture, labels) in enumerate(zip(pictures, said, strict=True)):
            try:
                read_picture(picture, labels.box, served.limits)
                readable.append((picture, labels))
            except DataError as error:
                unreadable.append(f"picture {place}: {error}")
        if not readable:
            raise DataError(f"none of the {len(pictures)} pictures can be read; {unreadable[0]}")
        add = self._add_kept if keep else self._add_embeddings
        ids, known = add(served, readable)
        return AddedAnswer(ids=ids, known=known, unreadable=unreadable)

    @contextmanager
    def erasing(self, served: Served) -> Iterator[None]:
        """Inside it items are removed; pictures that none names any more are removed at the end.

        Raises :class:`DataError` where one cannot be.
        """
        before = _named(served)
        yield
        gone = before - _named(served)
        for folder in {path.parent for path in gone}:
            if _is_of(folder, served):
                with _locked(folder, fcntl.LOCK_EX):
                    _delete({path for path in gone if path.parent == folder} - _named(served))

    def sweep(self, served: Served) -> int:
        """Remove kept pictures of a gallery that no item names; how many.

        Those are of items that another program erased, or of an adding that was cut short.
        """
        folder = self.folder_of(served)
        if not folder.is_dir() or served.is_to_be_made:
            return 0
        with _locked(folder, fcntl.LOCK_EX):
            unnamed = set(folder.glob(f"*{SUFFIX}")) - _named(served)
            _delete(unnamed)
        return len(unnamed)

    def folder_of(self, served: Served) -> Path:
        """Where new pictures of a gallery are kept."""
        address = _address(served)
        digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder.resolve() / f"{gallery_name(address)}-{digest[:16]}"

    def _add_kept(
        self, served: Served, pictures: Sequence[tuple[bytes, NewItem]]
    ) -> tuple[list[int], list[int]]:
        """Their items, and those that were there already, which stay as they are."""
        folder = self.folder_of(served)
        samples = [_sample(folder, picture, labels) for picture, labels in pictures]
        for place in (self.folder, folder):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with served.making:
            gallery = served.searcher.made()
            if not (folder / MARK).is_file():
                write_atomically(folder / MARK, _address(served), private=True)
        with _locked(folder, fcntl.LOCK_SH):
            for (picture, _), sample in zip(pictures, samples, strict=True):
                if not sample.path.is_file():
                    write_atomically(sample.path, picture, private=True)
            sources = [new_picture(sample, None).source for sample in samples]
            known = {item.source: item.id for item in gallery.items(where={"source": sources})}
            new = [sample for sample, source in zip(samples, sources, strict=True) if source not in known]
            if new:
                served.searcher.add(new)
        ids = {item.source: item.id for item in gallery.items(where={"source": sources})}
        return [ids[source] for source in sources if source in ids], sorted(known.values())

    def _add_embeddings(
        self, served: Served, pictures: Sequence[tuple[bytes, NewItem]]
    ) -> tuple[list[int], list[int]]:
        """The same of pictures that are embedded and not kept."""
        with served.making:
            gallery = served.searcher.made()
        contents = [content_of(picture) for picture, _ in pictures]
        known = {item.content: item.id for item in gallery.items(where={"content": contents})}
        new = {content: one for content, one in zip(contents, pictures, strict=True) if content not in known}
        ids: list[int] = []
        if new:
            said = [labels for _, labels in new.values()]
            images = [read_picture(picture, labels.box, served.limits) for picture, labels in new.values()]
            added = gallery.add(
                served.searcher.encoder.encode(images),
                identities=[labels.identity for labels in said],
                cameras=[labels.camera for labels in said],
                times=[labels.time for labels in said],
                contents=list(new),
                tracklets=[labels.tracklet for labels in said],
            )
            ids = added.tolist()
        all_ids = known | dict(zip(new, ids, strict=True))
        return [all_ids[content] for content in contents], sorted(known.values())


def _address(served: Served) -> str:
    """Of a gallery, the same by whichever way to it."""
    address = served.address
    return without_password(address) if "://" in address else str(Path(address).resolve())


def _named(served: Served) -> set[Path]:
    """Files that items of a gallery name and that may be uploads, by their names."""
    found = (_KEPT.fullmatch(str(item.source)) for item in served.gallery.items())
    return {Path(match[1]) for match in found if match}


def _is_of(folder: Path, served: Served) -> bool:
    """Whether a folder holds uploads of a gallery: by its mark, or since the one of the mark has moved."""
    try:
        owner = (folder / MARK).read_text()
    except (OSError, UnicodeDecodeError):
        return False  # no folder of uploads
    if owner == _address(served) or ("://" not in owner and not Path(owner).exists()):
        return True
    logger.warning(f"pictures that {served.name} does not name any more stay in {folder}: they are {owner}'s")
    return False


def _delete(pictures: set[Path]) -> None:
    for path in pictures:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"the item is erased, and its picture {path.name} cannot be deleted: {error.strerror}; "
                "delete it where the service keeps uploads"
            ) from None


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Hold the lock of a folder of uploads, shared or alone, among threads and processes.

    All queue at a second lock, so that those who share it cannot keep out who wants it alone.
    """
    with (folder / ".queue").open("a") as queue, (folder / ".lock").open("a") as lock:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(lock, kind)
        fcntl.flock(queue, fcntl.LOCK_UN)
        yield


def _sample(folder: Path, picture: bytes, labels: NewItem) -> Sample:
    try:
        moment = None if labels.time is None else seconds_of(labels.time)
    except ValueError as error:
        raise DataError(f"time: {error}") from None
    return Sample(
        folder / f"{content_of(picture)}{SUFFIX}",
        0,
        None,
        0,
        tracklet=labels.tracklet,
        time=moment,
        box=labels.box,
        identity_name=label_text(labels.identity) or "",
        camera_name=None if labels.camera is None else str(labels.camera),
    )
