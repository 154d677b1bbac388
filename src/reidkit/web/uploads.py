"""Pictures that users send to be added, and where they are kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reidkit.errors import DataError
from reidkit.files import write_atomically
from reidkit.galleries._labels import seconds_of
from reidkit.images.reading import load_image
from reidkit.labels import label_text
from reidkit.search.pictures import new_picture
from reidkit.types import Sample
from reidkit.web.answers import AddedAnswer
from reidkit.web.served import Served, content_of
from reidkit.web.wanted import NewItem

SUFFIX = ".img"
"""Of pictures of any kind: what a file is, its content tells."""

_GRACE = 3600.0
"""Seconds for which a picture may wait for its item: it is written before."""


class Uploads:
    """Pictures in a folder, a folder a gallery, named by their content."""

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
                load_image(picture, box=labels.box, max_pixels=served.limits.pixels)
                readable.append((picture, labels))
            except DataError as error:
                unreadable.append(f"picture {place}: {error}")
        if not readable:
            raise DataError(f"none of the {len(pictures)} pictures can be read; {unreadable[0]}")
        add = self._add_kept if keep else self._add_embeddings
        return AddedAnswer(ids=add(served, readable), unreadable=unreadable)

    @contextmanager
    def erasing(self, served: Served) -> Iterator[None]:
        """Inside it items are removed; pictures that none names any more are removed at the end."""
        before = self._named(served)
        yield
        for path in before - self._named(served):
            Path(path).unlink(missing_ok=True)

    def sweep(self, served: Served) -> int:
        """Remove kept pictures that no item names, such as those whose adding was cut short; how many."""
        folder = self.folder / served.name
        if not folder.is_dir() or served.searcher.gallery is None:
            return 0
        named, num = self._named(served), 0
        for path in folder.iterdir():
            if str(path.resolve()) not in named and time.time() - path.stat().st_mtime >= _GRACE:
                path.unlink(missing_ok=True)
                num += 1
        return num

    def _named(self, served: Served) -> set[str]:
        """Kept pictures that items of a gallery name."""
        folder = str(self.folder.resolve() / served.name)
        sources = {str(item.source).partition("#")[0] for item in served.gallery.items()}
        return {source for source in sources if source.startswith(f"{folder}/")}

    def _add_kept(self, served: Served, pictures: Sequence[tuple[bytes, NewItem]]) -> list[int]:
        """As pictures of files are added everywhere, so that known ones are not embedded again."""
        folder = self.folder.resolve() / served.name
        samples = [_sample(folder, picture, labels) for picture, labels in pictures]
        for (picture, _), sample in zip(pictures, samples, strict=True):
            if not sample.path.is_file():
                write_atomically(sample.path, picture)
        with served.making:
            gallery = served.searcher.made()
        served.searcher.add(samples)
        sources = [new_picture(sample, None).source for sample in samples]
        ids = {item.source: item.id for item in gallery.items(where={"source": sources})}
        return [ids[source] for source in sources if source in ids]

    def _add_embeddings(self, served: Served, pictures: Sequence[tuple[bytes, NewItem]]) -> list[int]:
        """Pictures that are embedded and not kept. Known contents stay as they are."""
        with served.making:
            gallery = served.searcher.made()
        contents = [content_of(picture) for picture, _ in pictures]
        known = {item.content: item.id for item in gallery.items(where={"content": contents})}
        new = {content: one for content, one in zip(contents, pictures, strict=True) if content not in known}
        if new:
            said = [labels for _, labels in new.values()]
            images = [load_image(picture, box=labels.box) for picture, labels in new.values()]
            ids = gallery.add(
                served.searcher.encoder.encode(images),
                identities=[labels.identity for labels in said],
                cameras=[labels.camera for labels in said],
                times=[labels.time for labels in said],
                contents=list(new),
                tracklets=[labels.tracklet for labels in said],
            )
            known |= dict(zip(new, ids.tolist(), strict=True))
        return [known[content] for content in contents]


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
