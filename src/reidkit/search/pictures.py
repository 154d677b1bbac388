"""Pictures on their way into a gallery: what is said of each, and which item it is already."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

from reidkit.errors import DataError
from reidkit.files import open_regular
from reidkit.galleries import Item
from reidkit.labels import camera_value, moment
from reidkit.types import Sample

T = TypeVar("T")

HASH_LENGTH = 32  # hexadecimal digits


@dataclass(slots=True)
class Added:
    """What became of pictures that were to be added, counted.

    ``known`` were there already, with the same content and labels; of ``relabelled`` the labels changed;
    ``moved`` have the content of an item whose file is gone, and are that item in its new place;
    ``newly_shown`` were there without a thumbnail, and have one now.
    ``unreadable`` pictures were left out, each for a reason.
    """

    embedded: int = 0
    known: int = 0
    relabelled: int = 0
    moved: int = 0
    newly_shown: int = 0
    unreadable: list[tuple[Path, str]] = field(default_factory=list)

    def __str__(self) -> str:
        counts = {
            "embedded": self.embedded,
            "there already": self.known,
            "with other labels now": self.relabelled,
            "found again in a new place": self.moved,
            "with a thumbnail now": self.newly_shown,
            "left out, since they cannot be read": len(self.unreadable),
        }
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "no images"

    def first_read(self, paths: Iterable[Path]) -> Path | None:
        """The first of the pictures that was not left out."""
        left_out = {path for path, _ in self.unreadable}
        return next((path for path in paths if path not in left_out), None)


def searched_for(images: Sequence[Path], unread: Mapping[int, DataError]) -> list[Path]:
    """Images but those whose places are unread; raises the first one's error where none could be read."""
    if len(unread) == len(images):
        raise unread[0]
    return [image for place, image in enumerate(images) if place not in unread]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to be added, and what is said of it; ``None`` is nothing. ``content`` is read when needed."""

    path: Path
    box: tuple[int, int, int, int] | None
    identity: str | None
    camera: int | str | None
    time: float | None
    content: str = ""
    tracklet: str | None = None
    frame: int | None = None

    @property
    def source(self) -> str:
        """Names the item: crops of one image have names of their own."""
        whole = str(self.path.resolve())
        return whole if self.box is None else f"{whole}#{','.join(map(str, self.box))}"

    @property
    def moment(self) -> str | None:
        """The time, for people."""
        return None if self.time is None else moment(self.time)

    def differs_from(self, item: Item) -> bool:
        """Whether an item has other labels than what is said."""
        said = [(self.identity, item.identity), (self.camera, item.camera), (self.time, item.time)]
        said += [(self.tracklet, item.tracklet), (self.frame, item.frame)]
        return any(new is not None and new != old for new, old in said)


def each(images: Iterable[T]) -> list[T]:
    """Images one by one: of a path that stands alone, nobody means the letters."""
    return [cast(T, images)] if isinstance(images, str | PathLike) else list(images)


def new_picture(image: str | Path | Sample, camera: int | str | None) -> Picture:
    """``camera``, where one is given, is in place of the sample's own."""
    if not isinstance(image, Sample):
        return Picture(Path(image), None, None, camera_value(camera), None)
    if camera is None:
        camera = image.camera if image.camera_name is None else image.camera_name
    identity = str(image.identity) if image.identity_name is None else image.identity_name
    tracklet = None if image.tracklet is None else str(image.tracklet)
    return Picture(
        image.path,
        image.box,
        identity or None,
        camera_value(camera),
        image.time,
        tracklet=tracklet,
        frame=image.frame if (image.frame or 0) >= 0 else None,
    )


def once(pictures: Iterable[Picture]) -> list[Picture]:
    """Each picture once, though it may be given by several ways."""
    by_source: dict[str, Picture] = {}
    for picture in pictures:
        first = by_source.setdefault(picture.source, picture)
        if replace(first, path=picture.path) != picture:
            raise DataError(
                f"{picture.path} is given twice, once with identity {first.identity}, camera {first.camera}, "
                f"time {first.moment}, once with {picture.identity}, {picture.camera}, {picture.moment}; "
                "remove one"
            )
    return list(by_source.values())


def with_contents(pictures: list[Picture], added: Added) -> list[Picture]:
    """The pictures whose files can be read, with the hash of their content."""
    readable = []
    for picture in pictures:
        try:
            readable.append(replace(picture, content=content_hash(picture.path, box=picture.box)))
        except DataError as error:
            added.unreadable.append((picture.path, str(error)))
    return readable


def content_hash(path: str | Path, *, box: tuple[int, int, int, int] | None = None) -> str:
    """The same for the same bytes and box, wherever the file lies; 128 bits in hexadecimal.

    Raises :class:`DataError` where the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if box is not None:
        digest.update(repr(tuple(box)).encode())
    return digest.hexdigest()[:HASH_LENGTH]


def is_there(source: str | None) -> bool:
    """Whether an item's file is still where it was."""
    if source is None:
        return True  # it never was a file
    whole, is_crop, _ = source.rpartition("#")
    try:
        return Path(source).exists() or (bool(is_crop) and Path(whole).exists())
    except (OSError, ValueError):
        return False


def labelled(picture: Picture, item: Item) -> Picture:
    """The picture with an item's labels, where nothing else is said; none if that item showed another."""
    if item.content not in (None, picture.content):
        return picture
    return replace(
        picture,
        identity=said(picture.identity, item.identity),
        camera=said(picture.camera, item.camera),
        time=said(picture.time, item.time),
        tracklet=said(picture.tracklet, item.tracklet),
        frame=said(picture.frame, item.frame),
    )


def not_overruling(
    pictures: list[Picture], there: dict[str | None, Item], decided: Set[int]
) -> list[Picture]:
    """The pictures, without the identities of those whose items people decided on since they were added."""
    return [
        replace(picture, identity=None)
        if (item := there.get(picture.source)) is not None
        and item.id in decided
        and item.content == picture.content
        else picture
        for picture in pictures
    ]


def moved(pictures: list[Picture], gone: list[Item]) -> dict[str | None, Item]:
    """Items whose files are gone, by the sources of pictures that have the same content: each at most once.

    Of several with one content, that which has the file's name, as in a renamed folder; else the first.
    """
    left: dict[str | None, list[Item]] = defaultdict(list)
    for item in gone:
        left[item.content].append(item)
    found: dict[str | None, Item] = {}
    for by_name in (True, False):
        for picture in pictures:
            same = left[picture.content] if picture.source not in found else []
            for item in same:
                if not by_name or Path(item.source or "").name == Path(picture.source).name:
                    found[picture.source] = item
                    same.remove(item)
                    break
    return found


def said(new: Any, old: Any) -> Any:
    return old if new is None else new
