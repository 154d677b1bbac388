"""What the service does, for whoever asks and by whichever way: the page and the API call nothing else.

Each verb takes who asks. It refuses what they may not do, and writes the audit log before it does anything,
so that no caller can forget either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from reidkit.errors import ConfigError, ReidError, shown
from reidkit.galleries import Gallery, Item, Where, erase, expire, forget, in_force, proposals
from reidkit.galleries._decisions import Decision
from reidkit.labels import is_junk
from reidkit.logs import get_logger
from reidkit.search.visits import items_of, timeline
from reidkit.web import answers as a
from reidkit.web.audit import AuditLog, Entry, Verified, hash_of
from reidkit.web.deciding import Deciding
from reidkit.web.jobs import Jobs
from reidkit.web.label_values import LabelsAnswer, labels_answer
from reidkit.web.longer_work import work_of
from reidkit.web.opening import ServedGalleries
from reidkit.web.problems import told
from reidkit.web.roles import Actor, NoSuchGallery, Role
from reidkit.web.searched import search_answer
from reidkit.web.served import Served
from reidkit.web.settings import Settings
from reidkit.web.thumbnails import LARGE, SIZE, Thumbnails, jpeg_of
from reidkit.web.uploads import Uploads
from reidkit.web.wanted import DecisionRequest, JobRequest, NewItem, SearchRequest

logger = get_logger(__name__)

MOST_LISTED = 1000
LABELS_KEPT = 10.0
"""Seconds after which the labels of a gallery are looked up again."""

TIDY_SECONDS = 600.0
"""Between two looks for uploads that no item names any more."""


class PurposeNeeded(ConfigError):
    """The service asks for what a search is for, and nothing was said."""


class Service:
    """The galleries that are served, and what may be done with them."""

    def __init__(self, settings: Settings, audit: AuditLog | None = None) -> None:
        self.settings = settings
        self.audit = audit or AuditLog(settings.audit_file)
        self.jobs_done = Jobs(settings.folder / "jobs")
        self.thumbnails = Thumbnails(settings.limits.cached_bytes)
        self.uploads = Uploads(settings.folder / "pictures")
        self.deciding = Deciding(settings.folder / "rejected")
        self._closing = threading.Event()
        self._labels: dict[str, tuple[float, LabelsAnswer | None]] = {}
        self.served = ServedGalleries(settings)

    def keep_tidy(self) -> None:
        """Delete uploads of items that other programs erase, at once and then now and then, until the end."""
        while True:
            for served in self.served.values():
                try:
                    self.uploads.sweep(served)
                except Exception as error:  # a gallery that cannot be read is told of to whoever asks for it
                    logger.debug(f"uploads of the gallery {served.name} were not looked through: {error}")
            if self._closing.wait(TIDY_SECONDS):
                return

    def close(self) -> None:
        """End jobs, embed what waits, close galleries."""
        self._closing.set()
        self.jobs_done.close()
        self.served.close()
        self.audit.close()

    # --- looking ------------------------------------------------------------------------------------------

    def galleries(self, actor: Actor) -> list[a.GalleryAnswer]:
        """The galleries that somebody may look at."""
        found = []
        for name, served in self.served.items():
            role = actor.role(name)
            if role is not None:
                found.append(self._listed(served, role))
        return found

    def card(self, actor: Actor, gallery: str) -> a.CardAnswer:
        """What is known of the encoder behind a gallery."""
        return a.card_answer(self._served(actor, gallery, Role.viewer).searcher.encoder)

    def labels(self, actor: Actor, gallery: str) -> LabelsAnswer:
        """Which labels items have, as they were up to a few seconds ago."""
        served = self._served(actor, gallery, Role.viewer)
        made, found = self._labels.get(gallery, (0.0, None))
        if found is None or time.monotonic() - made > LABELS_KEPT:
            found = labels_answer(served.gallery.items())
            self._labels[gallery] = time.monotonic(), found
        return found

    def storage(self, actor: Actor, gallery: str) -> dict[str, Any]:
        """How a gallery is kept: its engine, its items, and what the engine adds; no path."""
        found = self._gallery(actor, gallery, Role.viewer).info()
        return {name: value for name, value in found.items() if name not in ("location", "encoder")}

    def search(self, actor: Actor, gallery: str, request: SearchRequest) -> a.SearchAnswer:
        """Search a gallery for who is in pictures, stored items or embeddings, all together one query.

        Raises :class:`reidkit.web.together.Busy` where too many pictures, or searches, wait.
        """
        served = self._served(actor, gallery, Role.viewer)
        if self.settings.require_purpose and not request.purpose.strip():
            raise PurposeNeeded("this service asks what a search is for; give a purpose")
        if request.top > self.settings.limits.top:
            raise ConfigError(
                f"top is {request.top:,}; this service tells {self.settings.limits.top:,} at most"
            )
        with self._audited(
            actor,
            "search",
            gallery,
            pictures=[hash_of(picture) for picture in request.pictures],
            items=list(request.items),
            embeddings=len(request.embeddings) or None,
            where=sorted(request.where),
            purpose=request.purpose,
        ):
            return search_answer(served, request)

    def items(
        self, actor: Actor, gallery: str, *, where: Where | None = None, start: int = 0, num: int = 100
    ) -> a.ItemsAnswer:
        """Items, ``num`` of them from place ``start`` on."""
        found = self._gallery(actor, gallery, Role.viewer).items(where=where)
        some = found[start : start + min(num, MOST_LISTED)]
        return a.ItemsAnswer(items=list(map(a.item_answer, some)), total=len(found), start=start)

    def item(self, actor: Actor, gallery: str, item: int) -> a.ItemAnswer:
        """One item. Raises :class:`NoSuchItem`."""
        return a.item_answer(self._served(actor, gallery, Role.viewer).item(item))

    def picture(self, actor: Actor, gallery: str, item: int) -> bytes:
        """An item's picture as a JPEG of 1024 x 2048 pixels at most. Raises :class:`NoPicture`."""
        served = self._served(actor, gallery, Role.viewer)
        return jpeg_of(served.gallery, served.item(item), LARGE)

    def thumbnail(self, actor: Actor, gallery: str, item: int) -> bytes:
        """An item's picture as a small JPEG. Raises :class:`NoPicture`."""
        served = self._served(actor, gallery, Role.viewer)
        return self.thumbnails.get(
            gallery, served.item(item), lambda found: jpeg_of(served.gallery, found, SIZE)
        )

    def people(
        self, actor: Actor, gallery: str, *, start: int = 0, num: int = 100, pictures: int = 6
    ) -> a.PeopleAnswer:
        """The people that a gallery knows by name, those with most items first."""
        known: dict[str, list[Item]] = {}
        for item in self._gallery(actor, gallery, Role.viewer).items():
            if item.identity is not None and not is_junk(item.identity):
                known.setdefault(item.identity, []).append(item)
        return a.people_answer(known, start, min(num, MOST_LISTED), pictures, is_proposal=False)

    def queue(
        self, actor: Actor, gallery: str, *, start: int = 0, num: int = 100, pictures: int = 12
    ) -> a.PeopleAnswer:
        """Whom items without an identity are proposed to show: what is to be reviewed."""
        open_ones = proposals(self._gallery(actor, gallery, Role.viewer))
        return a.people_answer(open_ones, start, min(num, MOST_LISTED), pictures, is_proposal=True)

    def person(self, actor: Actor, gallery: str, name: str) -> a.ItemsAnswer:
        """All items of a person, or of a proposal."""
        found = items_of(self._gallery(actor, gallery, Role.viewer), name)
        return a.ItemsAnswer(items=list(map(a.item_answer, found)), total=len(found))

    def timeline(self, actor: Actor, gallery: str, name: str, *, gap: float = 1800.0) -> a.TimelineAnswer:
        """Where and when a person was; sightings at one camera within ``gap`` seconds are one visit."""
        with self._audited(actor, "timeline", gallery, person=hash_of(name)):
            found = items_of(self._gallery(actor, gallery, Role.viewer), name)
            return a.timeline_answer(name, timeline(found, gap=gap))

    # --- deciding -----------------------------------------------------------------------------------------

    def decisions(self, actor: Actor, gallery: str, *, num: int = 100) -> a.DecisionsAnswer:
        """What was decided, the newest first."""
        found = self._gallery(actor, gallery, Role.viewer).decisions()
        valid = {decision.id for decision in in_force(found)}
        some = found[::-1][:num]
        told = [a.decision_answer(one, in_force=one.id in valid) for one in some]
        return a.DecisionsAnswer(decisions=told, total=len(found))

    def decide(self, actor: Actor, gallery: str, request: DecisionRequest) -> a.DecisionsAnswer:
        """Accept, reject, merge, split, or take back; as :class:`reidkit.web.deciding.Deciding` says."""
        found = self._gallery(actor, gallery, Role.reviewer)
        names = [request.identity, request.proposal, *request.others]
        with self._audited(
            actor,
            request.kind,
            gallery,
            durable=True,
            items=list(request.items),
            people=[hash_of(name) for name in names if name is not None],
            decision=request.undoes,
        ):
            made: Sequence[Decision] = self.deciding.decide(gallery, found, request, who=actor.name)
        return a.DecisionsAnswer(decisions=list(map(a.decision_answer, made)), total=len(made))

    def rejected(self, actor: Actor, gallery: str) -> str | None:
        """The proposal that they just rejected, which can be taken back."""
        self._served(actor, gallery, Role.viewer)
        return self.deciding.rejected(gallery, actor.name)

    # --- adding and removing ------------------------------------------------------------------------------

    def add(
        self, actor: Actor, gallery: str, pictures: Sequence[bytes], said: Sequence[NewItem] = ()
    ) -> a.AddedAnswer:
        """Add pictures, with what is said of each."""
        served = self._served(actor, gallery, Role.operator)
        limit = self.settings.limits.added
        if not 0 < len(pictures) <= limit:
            raise ConfigError(f"there are {len(pictures):,} pictures to add; give 1 to {limit:,}")
        if said and len(said) != len(pictures):
            raise ConfigError(f"{len(said):,} items are described, and there are {len(pictures):,} pictures")
        with self._audited(
            actor, "add", gallery, durable=True, pictures=[hash_of(picture) for picture in pictures]
        ):
            labels = said or [NewItem()] * len(pictures)
            return self.uploads.add(served, pictures, labels, keep=self.settings.keep_uploads)

    def remove(self, actor: Actor, gallery: str, items: Sequence[int]) -> a.RemovedAnswer:
        """Remove items, and every byte of them."""
        served = self._served(actor, gallery, Role.operator)
        with self._audited(actor, "remove", gallery, durable=True, items=list(items)):
            if not items:
                raise ConfigError("nothing to remove; give ids of items")
            with self.uploads.erasing(served):
                num = served.gallery.remove(ids=items)
                served.gallery.compact(erase=True)
            self.thumbnails.forget(gallery)
        return a.RemovedAnswer(num_items=num)

    def remove_where(
        self, actor: Actor, gallery: str, where: Where, *, dry_run: bool = False
    ) -> a.RemovedAnswer:
        """Remove all items that the conditions let through, and every byte of them."""
        served = self._served(actor, gallery, Role.operator)
        if not where:
            raise ConfigError("nothing says what to remove; give conditions in where")
        with self._erasing(actor, "remove", served, dry_run, where=sorted(where)):
            num = erase(served.gallery, where, dry_run=dry_run)
        return a.RemovedAnswer(num_items=num, dry_run=dry_run)

    def forget(self, actor: Actor, gallery: str, identity: str, *, dry_run: bool = False) -> a.RemovedAnswer:
        """Remove all items of a person, and every byte of them."""
        served = self._served(actor, gallery, Role.operator)
        with self._erasing(actor, "forget", served, dry_run, person=hash_of(identity)):
            num = forget(served.gallery, identity, dry_run=dry_run)
        return a.RemovedAnswer(num_items=num, dry_run=dry_run)

    def expire(
        self, actor: Actor, gallery: str, older_than: str, *, dry_run: bool = False
    ) -> a.RemovedAnswer:
        """Remove what is older than an age such as "30d"; what has no time stays."""
        served = self._served(actor, gallery, Role.administrator)
        with self._erasing(actor, "expire", served, dry_run, older_than=older_than):
            num = expire(served.gallery, older_than, dry_run=dry_run)
        return a.RemovedAnswer(num_items=num, dry_run=dry_run)

    # --- longer work --------------------------------------------------------------------------------------

    def start_job(self, actor: Actor, gallery: str, request: JobRequest) -> a.JobAnswer:
        """Start to index a folder, to import, or to cluster."""
        served = self._served(
            actor, gallery, Role.administrator if request.kind == "import" else Role.operator
        )
        work = work_of(served, request, self.settings)
        with self._audited(actor, request.kind, gallery, durable=True, folder=request.folder):
            return self.jobs_done.start(request.kind, gallery, actor.name, work)

    def jobs(self, actor: Actor, gallery: str) -> list[a.JobAnswer]:
        """The jobs of a gallery, the newest first."""
        self._served(actor, gallery, Role.viewer)
        return [job for job in self.jobs_done.all() if job.gallery == gallery]

    def job(self, actor: Actor, gallery: str, job: str) -> a.JobAnswer:
        """A job as it is now. Raises :class:`reidkit.web.jobs.NoSuchJob`."""
        self._served(actor, gallery, Role.viewer)
        return self.jobs_done.of_gallery(gallery, job)

    def cancel_job(self, actor: Actor, gallery: str, job: str) -> a.JobAnswer:
        """Let a job end at its next step."""
        self._served(actor, gallery, Role.operator)
        self.jobs_done.of_gallery(gallery, job)
        with self._audited(actor, "cancel", gallery, job=job):
            return self.jobs_done.cancel(job)

    # --- the log ------------------------------------------------------------------------------------------

    def audit_entries(self, actor: Actor, gallery: str, *, num: int = 100) -> list[Entry]:
        """The last entries of the audit log that are of a gallery, the newest first.

        With them come lines of which nothing tells any more what they were of.
        """
        self._served(actor, gallery, Role.administrator)
        with self._audited(actor, "audit", gallery):
            some = self.audit.last(100_000)
            return [entry for entry in some if _may_be_of(entry, gallery)][:num]

    def audit_verified(self, actor: Actor) -> Verified:
        """Follow the log's chain of hashes. Raises :class:`DataError` where it is broken."""
        actor.check_everywhere(Role.administrator)
        self.audit.write(actor.name, "verify audit")
        return self.audit.verify()

    # --- inside -------------------------------------------------------------------------------------------

    def _listed(self, served: Served, role: Role) -> a.GalleryAnswer:
        """A gallery as it is listed: also one that cannot be read now, so that it hides no other."""
        told_of: dict[str, Any] = {
            "name": served.name,
            "role": role.name,
            "require_purpose": self.settings.require_purpose,
        }
        try:
            searcher = served.searcher
            return a.GalleryAnswer(
                **told_of,
                num_items=len(searcher),
                dimension=searcher.encoder.dim,
                is_calibrated=searcher.calibration is not None,
            )
        except ReidError as error:
            logger.warning(f"the gallery {served.name} cannot be read: {error}")
            return a.GalleryAnswer(**told_of, unavailable=told(error, self.settings))

    def _served(self, actor: Actor, gallery: str, role: Role) -> Served:
        if gallery not in self.served:
            raise NoSuchGallery(f"there is no gallery {shown(gallery)}; /v1/galleries lists those there are")
        actor.check(gallery, role)
        return self.served[gallery]

    def _gallery(self, actor: Actor, gallery: str, role: Role) -> Gallery:
        return self._served(actor, gallery, role).gallery

    @contextmanager
    def _audited(
        self, actor: Actor, action: str, gallery: str, *, durable: bool = False, **details: Any
    ) -> Iterator[None]:
        """Write down what is going to be done, and, where that fails, that it did."""
        self.audit.write(actor.name, action, gallery=gallery, durable=durable, **details)
        try:
            yield
        except BaseException as error:
            self.audit.write(
                actor.name, f"{action} failed", gallery=gallery, durable=durable, error=type(error).__name__
            )
            raise

    @contextmanager
    def _erasing(
        self, actor: Actor, action: str, served: Served, dry_run: bool, **details: Any
    ) -> Iterator[None]:
        with self._audited(actor, action, served.name, durable=True, **details, dry_run=dry_run or None):
            with self.uploads.erasing(served):
                yield
            if not dry_run:
                self.thumbnails.forget(served.name)


def _may_be_of(entry: Entry, gallery: str) -> bool:
    return entry.gallery == gallery or (not entry.is_intact and not entry.gallery)
