"""Search: a gallery and the encoder that filled it, at work together."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from reidkit.analysis.calibration import Calibration
from reidkit.encoders.encoder import Encoder, SkipCallback
from reidkit.encoders.loading import load_encoder
from reidkit.encoders.own import NO_CALIBRATION, is_own, place_of, place_to_record
from reidkit.errors import ConfigError, DataError, shown
from reidkit.galleries import Gallery, Hit, NoGallery, Where, open_gallery, without_password
from reidkit.galleries._relative import apart_from_query
from reidkit.images.reading import ImageSource
from reidkit.logs import get_logger
from reidkit.search.adding import embedded, not_yet_there, show_known, store
from reidkit.search.encoder_place import recorded_place
from reidkit.search.found import Found
from reidkit.search.nothing_found import why_nothing
from reidkit.search.own_picture import Query, file_of, known_queries, labels_of_queries
from reidkit.search.people import FoundPeople, IsHidden, PeopleSearch, search_people
from reidkit.search.pictures import Added, each, new_picture, once, with_contents
from reidkit.search.probabilities import Plausibility, Prior, gallery_prior, given_prior, is_number
from reidkit.search.rejected import LeftOut, Rejected
from reidkit.search.whole_paths import with_whole_paths
from reidkit.types import Sample

if TYPE_CHECKING:
    from reidkit.galleries._storage import Storage
    from reidkit.progress import ProgressCallback

logger = get_logger(__name__)

AT_A_TIME = 512  # images whose embeddings are stored together; an interrupted run keeps what is stored
_NUM_OWN = 4  # places asked for beyond the top: those of the query's own picture


class Searcher:
    """A gallery, opened with the encoder that filled it.

    Args:
        location: the gallery, as :func:`reidkit.open_gallery` takes it. If there is none, it is made when
            the first pictures are added, once they are embedded.
        encoder: an encoder, or where to load it from; left out, the one that filled the gallery, from where
            it was then. Where it has moved, give its new place, which the gallery then keeps.
        backend: what embeds, where the encoder is loaded; as :func:`reidkit.load_encoder` takes it.
        storage: how a gallery in a folder stores its vectors, as :func:`reidkit.open_gallery` takes it.

    Raises:
        NoGallery: there is no gallery, and no encoder to fill one with.
        ConfigError: the gallery does not say where its encoder is, or it is no longer there.
        DataError: the gallery was filled by another encoder, or is damaged.

    Example:
        >>> searcher = Searcher("people.gallery")                             # doctest: +SKIP
        >>> searcher.search(["query.jpg"], where={"camera": {"not": 3}})      # doctest: +SKIP
    """

    def __init__(
        self,
        location: str | Path,
        *,
        encoder: Encoder | str | Path | None = None,
        backend: str = "auto",
        storage: Storage | None = None,
    ) -> None:
        self._address, self.location = str(location), without_password(location)
        self._storage = storage
        self.gallery: Gallery | None = None
        self._converted = False
        self._plausibility: tuple[int, Plausibility] | None = None  # of the gallery when it held so many
        self._judging = threading.Lock()
        try:
            self.gallery = open_gallery(location, create=False)
            self._converted = bool(self.gallery.info().get("converted"))
        except NoGallery:
            if encoder is None:
                raise
        try:
            origin = (
                recorded_place(self.gallery, self._address, self.location) if encoder is None else encoder
            )
            self.encoder = origin if isinstance(origin, Encoder) else load_encoder(origin, backend=backend)
            self.place = None if isinstance(origin, Encoder) else place_of(origin)
            self._description = self.encoder.origin
            if self.place is not None:
                self._description["path"] = place_to_record(self.place)
            if self.gallery is not None:
                self._open(create=False)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return 0 if self.gallery is None else len(self.gallery)

    @property
    def converted(self) -> bool:
        """Whether the gallery was of an earlier format, and was converted just now."""
        return self._converted

    @property
    def calibration(self) -> Calibration | None:
        """What scores mean; ``None`` where that was not found out."""
        return self.encoder.calibration

    @property
    def no_calibration(self) -> str:
        """A sentence on how to come by a calibration."""
        from reidkit.encoders.network_file import is_network_file

        if is_own(self.place):
            return NO_CALIBRATION
        place = self.place or "the encoder"
        return f"{place} has no calibration, which would say what scores mean; " + (
            "a network's file that was made elsewhere cannot keep one: leave the option out"
            if self.place is not None and is_network_file(self.place)
            else f"make one with `reid evaluate {self.place or 'FILE'} --store-calibration`"
        )

    def lowest_score(self, false_match_rate: float) -> float:
        """The score from which on no more than this share of two persons' pairs are taken for one person.

        A warning is logged where the calibration does not fit this gallery, so that the rate is another here.

        Raises :class:`ConfigError` without a calibration, or for a rate that it cannot tell.
        """
        if self.calibration is None:
            raise ConfigError(self.no_calibration)
        if not is_number(false_match_rate):
            raise ConfigError(
                f"the false-match rate is {shown(false_match_rate)}; give a share, such as 0.001"
            )
        lowest = self.calibration.threshold_at(false_match_rate)
        if self.gallery is not None and (doubt := self._plausible(self.gallery, self.calibration).doubt):
            logger.warning("a false-match rate of %g may not hold here: %s", false_match_rate, doubt)
        return lowest

    def prior(self, *, where: Where | None = None, given: float | None = None) -> Prior:
        """How probable it is, before looking, that an item shows who is searched for.

        It is the share of the items that ``where`` lets through which shows one identity, by their labels;
        ``given`` is taken in its place. Raises :class:`ConfigError` where that is no probability.
        """
        if given is not None:
            return given_prior(given)
        where = apart_from_query(with_whole_paths(where))
        return gallery_prior([] if self.gallery is None else self.gallery.items(where=where))

    def search(
        self,
        images: Sequence[ImageSource],
        *,
        top: int = 10,
        where: Where | None = None,
        include_self: bool = False,
        lowest: float | None = None,
        prior: float | None = None,
        queries: Sequence[Mapping[str, Any]] | None = None,
        skip: SkipCallback | None = None,
    ) -> list[Found]:
        """The ``top`` nearest items of each image, nearest first.

        An image that the gallery holds itself is not found as its own match, unless ``include_self``, and
        neither is whoever was told apart from the person in it (:func:`reidkit.galleries.reject`).

        Args:
            images: paths, or pictures in memory; or a single path. Of arrays, and of what Pillow was given
                without a path, it is not known which item is their own.
            top, where: as :meth:`reidkit.galleries.Gallery.search`; a source may also be given as a path
                from the current folder.
            lowest: hits that score less are left out; :meth:`lowest_score` gives one for an error rate.
            prior: how probable it is, before looking, that an item shows the person; left out, that of the
                gallery, as :meth:`prior` tells.
            queries: labels of each image, for conditions that refer to the query; of an image that the
                gallery holds, they come before those of its item.
            skip: called with (place, error) of each image that cannot be read; nothing is returned for it.
                Without it the first such error is raised.
        """
        return self.search_for(
            *self._embedded(images, queries, skip),
            top=top,
            where=where,
            include_self=include_self,
            lowest=lowest,
            prior=prior,
        )

    def search_for(
        self,
        embeddings: NDArray[np.float32],
        queries: Sequence[Query],
        *,
        top: int = 10,
        where: Where | None = None,
        include_self: bool = False,
        lowest: float | None = None,
        prior: float | None = None,
    ) -> list[Found]:
        """The ``top`` nearest items of each embedding, as :meth:`search` finds those of images.

        Args:
            embeddings: (Q, D), of this searcher's encoder.
            queries: what is known of each besides.
            top, where, include_self, lowest, prior: as :meth:`search` takes them.
        """
        if lowest is not None and not is_number(lowest):
            raise ConfigError(f"lowest is {shown(lowest)}; give a score, a number from -1 to 1")
        gallery = self._filled()
        before = None if self.calibration is None else self.prior(where=where, given=prior)
        where = with_whole_paths(where)
        known = known_queries(gallery, where, queries)
        found = gallery.search(embeddings, top=top, where=where, queries=known)  # checks top itself
        own, rejected = self._left_out(queries)
        hidden = [_any_of(*([] if include_self else [own[row]]), rejected[row]) for row in range(len(own))]
        asked = top
        if any(is_hidden(hit) for is_hidden, hits in zip(hidden, found, strict=True) for hit in hits):
            asked += _NUM_OWN
            found = gallery.search(embeddings, top=asked, where=where, queries=known)
        results = []
        for row, (is_hidden, hits) in enumerate(zip(hidden, found, strict=True)):
            places = asked
            while len(hits) == places and places - sum(map(is_hidden, hits)) < top:
                places *= 2  # copies of the picture fill them, or people who were rejected
                [hits] = gallery.search(
                    embeddings[row : row + 1],
                    top=places,
                    where=where,
                    queries=known and known[row : row + 1],
                )
            others = [hit for hit in hits if not is_hidden(hit)][:top]
            high = tuple(hit for hit in others if lowest is None or hit.score >= lowest)
            probabilities, doubt = self._probabilities(embeddings[row], high, before)
            results.append(
                Found(
                    high,
                    own=tuple(filter(own[row], hits)),
                    probabilities=probabilities,
                    num_low=len(others) - len(high),
                    no_probability=doubt,
                    prior=before,
                    num_rejected=sum(map(rejected[row], hits)),
                )
            )
        return results

    def search_people(
        self,
        images: Sequence[ImageSource],
        options: PeopleSearch | None = None,
        *,
        include_self: bool = False,
        queries: Sequence[Mapping[str, Any]] | None = None,
        skip: SkipCallback | None = None,
    ) -> list[FoundPeople]:
        """The people, or tracklets, that look most like the person in each image, best first.

        Args:
            images: as :meth:`search` takes them; what that leaves out is left out here, and counts for
                nobody's score.
            options: how people are searched for (:class:`reidkit.search.people.PeopleSearch`).
            include_self: let the image itself count where the gallery holds it.
            queries, skip: as :meth:`search` takes them.
        """
        return self.search_people_for(
            *self._embedded(images, queries, skip), options, include_self=include_self
        )

    def search_people_for(
        self,
        embeddings: NDArray[np.float32],
        queries: Sequence[Query],
        options: PeopleSearch | None = None,
        *,
        include_self: bool = False,
    ) -> list[FoundPeople]:
        """The people who look most like each embedding (Q, D); otherwise as :meth:`search_people`."""
        gallery = self._filled()
        options = options or PeopleSearch()
        options = replace(options, where=with_whole_paths(options.where))
        own, rejected = self._left_out(queries)
        if include_self:
            own = [lambda hit: False] * len(own)
        hidden = list(map(LeftOut, own, rejected))
        known = known_queries(gallery, options.where, queries)
        found = search_people(gallery, embeddings, options, hidden=hidden, queries=known)
        return [
            FoundPeople(tuple(people), len(left_out.own), len(left_out.rejected))
            for people, left_out in zip(found, hidden, strict=True)
        ]

    def why_nothing(self, where: Where | None) -> str:
        """Why a search with these conditions found nothing: what each leaves, and which labels there are."""
        if self.gallery is None:
            return f"{self.location} holds no items"
        return why_nothing(self.gallery, where)

    def add(
        self,
        images: Iterable[str | Path | Sample],
        *,
        camera: int | str | None = None,
        thumbnails: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Added:
        """Embed pictures and store them, with their labels where they are samples.

        What the gallery holds already is not embedded again: pictures of the same path and content, and
        those whose content it holds under a path where nothing is left. So what was interrupted goes on.
        A label that is not given leaves that of an item as it is, unless it showed another picture before;
        an identity that somebody decided on stays (:meth:`reidkit.galleries.Gallery.decide`).
        Pictures that cannot be read are left out.

        Args:
            images: paths, whose labels are not known, or samples; or a single path.
            camera: of all of them, in place of their own; -1 says that it is not known.
            thumbnails: keep a small picture of each, which pages show when the picture itself is gone; those
                that the gallery holds already get one, too.
            progress: called with (done, total) after each portion is stored.

        Raises:
            DataError: none of the pictures can be read; one is given twice, with different labels.
        """
        pictures = once(new_picture(image, camera) for image in each(images))
        added = Added()
        self.encoder.expect(len(pictures))
        for start in range(0, len(pictures), AT_A_TIME):
            part = with_contents(pictures[start : start + AT_A_TIME], added)
            if self.gallery is not None:
                whole, part = part, not_yet_there(self.gallery, part, added)
                if thumbnails:
                    show_known(self.gallery, whole, part, added)
            part, embeddings = embedded(self.encoder, part, added)
            if part:
                gallery = self.gallery or self._open(create=True)
                store(gallery, part, embeddings, with_thumbnails=thumbnails)
                added.embedded += len(part)
            if progress is not None:
                progress(min(start + AT_A_TIME, len(pictures)), len(pictures))
        if added.unreadable and len(added.unreadable) == len(pictures):
            raise DataError(
                f"none of {len(pictures)} images can be read; the first: {added.unreadable[0][1]}"
            )
        return added

    def made(self) -> Gallery:
        """The gallery, which is made if it is not there."""
        return self._open(create=True) if self.gallery is None else self.gallery

    def close(self) -> None:
        if self.gallery is not None:
            self.gallery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _probabilities(
        self, embedding: NDArray[np.float32], hits: Sequence[Hit], prior: Prior | None
    ) -> tuple[tuple[float, ...], str]:
        """Those of the hits, or why there are none."""
        calibration = self.calibration
        if calibration is None or prior is None or self.gallery is None:
            return (), NO_CALIBRATION if is_own(self.place) else ""
        if doubt := self._plausible(self.gallery, calibration).doubt_of(embedding):
            return (), doubt
        given = calibration.probability([hit.score for hit in hits], prior=prior.value)
        return tuple(given.tolist()), ""

    def _plausible(self, gallery: Gallery, calibration: Calibration) -> Plausibility:
        """Whether the calibration fits the gallery; looked at again once a tenth is new, or gone."""
        with self._judging:
            num = len(gallery)
            if self._plausibility is None or abs(num - self._plausibility[0]) > self._plausibility[0] / 10:
                self._plausibility = num, Plausibility(gallery, calibration)
            return self._plausibility[1]

    def _filled(self) -> Gallery:
        if self.gallery is None:
            raise NoGallery(f"there is no gallery at {self.location}; add pictures first")
        return self.gallery

    def _embedded(
        self,
        images: Sequence[ImageSource],
        labels: Sequence[Mapping[str, Any]] | None,
        skip: SkipCallback | None,
    ) -> tuple[NDArray[np.float32], list[Query]]:
        """Embeddings (Q, D) of the images that can be read, and what is known of each."""
        self._filled()  # before anything is embedded
        images = each(images)
        known = labels_of_queries(len(images), labels)
        unread = set()

        def left_out(place: int, error: DataError) -> None:
            if skip is None:
                raise error
            unread.add(place)
            skip(place, error)

        embeddings = self.encoder.encode(images, skip=left_out)
        return embeddings, [
            Query((file_of(image),), labels=known[place])
            for place, image in enumerate(images)
            if place not in unread
        ]

    def _left_out(self, queries: Sequence[Query]) -> tuple[list[IsHidden], list[IsHidden]]:
        """For each query, which hits are its own pictures, and which show somebody else by decision."""
        rejected = Rejected(self._filled())
        return [query.is_own for query in queries], [rejected.by(query) for query in queries]

    # --- the encoder --------------------------------------------------------------------------------------

    def _open(self, *, create: bool) -> Gallery:
        """The gallery, checked to be the encoder's, whose place it then keeps."""
        if self.gallery is not None:
            self.gallery.close()
        self.gallery = open_gallery(
            self._address, create=create, encoder=self._description, storage=self._storage
        )
        return self.gallery


def _any_of(*conditions: IsHidden) -> IsHidden:
    return lambda hit: any(holds(hit) for holds in conditions)
