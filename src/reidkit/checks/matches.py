"""Which queries have something to find, by the rules that evaluation goes by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reidkit.checks.findings import Finding, finding_if_any, short
from reidkit.evaluation.features import frames_by_tracklet
from reidkit.evaluation.same_picture import picture_names
from reidkit.types import JUNK, Dataset, Sample, Split

ABSENT = "the identity is absent from the gallery"
ALL_CAMERAS_EQUAL = "camera labels are all equal"
OWN_CAMERA = "all matches are under the query's own camera"
OWN_PICTURE = "the only match is the query's own picture"

_ADVICE = {
    ALL_CAMERAS_EQUAL: "Correct the camera labels, or load the set without them.",
    OWN_PICTURE: "A picture never is its own match: add other images of these identities to the gallery.",
}


@dataclass(frozen=True, slots=True)
class Matches:
    """What queries can find.

    Attributes:
        num_queries: images, or tracklets where the set is measured by them.
        unmatched: queries without a match under the set's protocol, by the reason.
        own_pictures: queries whose own picture is in their gallery, left out for no other reason than that.
    """

    num_queries: int
    unmatched: dict[str, list[str]]
    own_pictures: list[str]

    @property
    def num_valid(self) -> int:
        return self.num_queries - sum(map(len, self.unmatched.values()))


def find_matches(
    dataset: Dataset,
    query: Split,
    gallery: Split | None,
    galleries: Sequence[Sequence[int]] | None = None,
) -> Matches:
    """What the queries can find in the gallery, or among each other where there is none."""
    queries = items(dataset, query)
    if not queries or gallery == ():
        return Matches(len(queries), {}, [])
    search = _Search(dataset, queries, _pictures(dataset, query), gallery)
    unmatched: dict[str, list[str]] = defaultdict(list)
    own_pictures = []
    for place, sample in enumerate(queries):
        listed = None if galleries is None else set(galleries[place])
        reason = search.why_nothing(place, listed)
        if reason is not None:
            unmatched[reason].append(short(sample, dataset))
        if search.meets_itself(place, listed):
            own_pictures.append(short(sample, dataset))
    return Matches(len(queries), dict(unmatched), own_pictures)


def match_findings(what: str, matches: Matches) -> Iterator[Finding]:
    """Findings on what :func:`find_matches` found; ``what`` are the queries called."""
    for reason, queries in matches.unmatched.items():
        yield from finding_if_any(
            "warning" if matches.num_valid else "error",
            f"{what} without a match, since {reason}",
            queries,
            _ADVICE.get(
                reason,
                "They are left out of the mean; gallery images under another camera would make them count.",
            ),
        )
    yield from finding_if_any(
        "note",
        f"{what} whose own picture is in the gallery",
        matches.own_pictures,
        "It is left out of their lists, since a picture is found as itself without any skill.",
    )


def shared_frames(dataset: Dataset) -> Iterator[Finding]:
    """Tracklets of one person under several numbers that have some frames in common, and others not.

    Those of all the same frames are one picture, and never meet. Here a part of what is sought is found.
    """
    if dataset.protocol != "tracklets":
        return
    frames = {"query": dataset.query, "gallery": dataset.gallery}
    held = {
        part: {
            tuple(sorted(picture_names(tuple(group)))): short(group[0], dataset)
            for group in frames_by_tracklet(split).values()
            if group[0].identity != JUNK
        }
        for part, split in frames.items()
    }
    by_frame: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for pictures in held["gallery"]:
        for picture in pictures:
            by_frame[picture].add(pictures)
    partly = [
        name
        for pictures, name in held["query"].items()
        if any(other != pictures for picture in pictures for other in by_frame[picture])
    ]
    yield from finding_if_any(
        "warning",
        "query tracklets that share some of their frames with one of the gallery",
        partly,
        "Those frames are found without any skill; cut the tracklets so that no frame is in two.",
    )


def items(dataset: Dataset, split: Split) -> Split:
    """What the protocol compares: images, or the first frame of each tracklet."""
    if dataset.protocol != "tracklets":
        return split
    return tuple(frames[0] for frames in frames_by_tracklet(split).values())


class _Search:
    """Queries against a gallery: places of gallery items by identity and by picture."""

    def __init__(
        self, dataset: Dataset, queries: Split, query_pictures: list[str], gallery: Split | None
    ) -> None:
        self.queries = queries
        self.query_pictures = query_pictures
        self.is_one_set = gallery is None
        self.items = queries if gallery is None else items(dataset, gallery)
        self.pictures = query_pictures if gallery is None else _pictures(dataset, gallery)
        self.camera_filter = dataset.camera_filter if dataset.has_cameras else "none"
        cameras = {sample.camera for sample in (*queries, *self.items)}
        self.all_cameras_equal = self.camera_filter != "none" and len(cameras) == 1
        self.by_identity: dict[int, list[int]] = defaultdict(list)
        self.by_picture: dict[str, list[int]] = defaultdict(list)
        for place, sample in enumerate(self.items):
            if sample.identity != JUNK:
                self.by_identity[sample.identity].append(place)
                self.by_picture[self.pictures[place]].append(place)

    def why_nothing(self, place: int, listed: set[int] | None) -> str | None:
        """Why a query has no match, or ``None`` where it has one."""
        query = self.queries[place]
        positives = self._met(place, self.by_identity.get(query.identity, ()), listed)
        if not positives:
            return ABSENT
        if self.all_cameras_equal:
            return ALL_CAMERAS_EQUAL
        kept = [item for item in positives if not self._hides(query, self.items[item])]
        if not kept:
            return OWN_CAMERA
        picture = self.query_pictures[place]
        return OWN_PICTURE if all(self.pictures[item] == picture for item in kept) else None

    def meets_itself(self, place: int, listed: set[int] | None) -> bool:
        """Whether the query's picture would stand in its list, were it not its own."""
        query = self.queries[place]
        same = self._met(place, self.by_picture.get(self.query_pictures[place], ()), listed)
        return query.identity != JUNK and any(not self._hides(query, self.items[item]) for item in same)

    def _met(self, place: int, found: Sequence[int], listed: set[int] | None) -> list[int]:
        """Of gallery places those in the query's gallery; no query is in its own."""
        return [
            item
            for item in found
            if (listed is None or item in listed) and not (self.is_one_set and item == place)
        ]

    def _hides(self, query: Sample, item: Sample) -> bool:
        """Whether the camera filter leaves the item out; an unknown camera is nobody's."""
        if self.camera_filter == "none" or item.camera is None or item.camera != query.camera:
            return False
        return self.camera_filter == "other_cameras" or item.identity == query.identity


def _pictures(dataset: Dataset, split: Split) -> list[str]:
    """What stands for the picture, or for all frames, of each item."""
    if dataset.protocol != "tracklets":
        return picture_names(split)
    return ["\n".join(sorted(picture_names(tuple(frames)))) for frames in frames_by_tracklet(split).values()]
