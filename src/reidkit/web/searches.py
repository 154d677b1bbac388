"""Searches of several requests in one gallery, made together where they ask for the same."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidkit.arrays import Embeddings
from reidkit.errors import ConfigError
from reidkit.galleries import Where
from reidkit.galleries._relative import keys_of_query
from reidkit.search.found import Found
from reidkit.search.own_picture import Query
from reidkit.search.people import FoundPeople, PeopleSearch
from reidkit.search.probabilities import Prior
from reidkit.search.searcher import Searcher
from reidkit.web.together import Together
from reidkit.web.wanted import SearchRequest

MOST_AT_ONCE = 256
ENOUGH = 32
"""Searches from which on a pass costs each of them little more than it adds by itself."""

_PRIOR_SECONDS = 600.0
_MOST_PRIORS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Who is searched for, by one embedding (1, D), and how."""

    embedding: NDArray[np.float32]
    query: Query
    request: SearchRequest


class Searches:
    """One pass over the gallery serves all that asked for the same while the pass before was made.

    Args:
        searcher: what searches.
        waiting: searches that may wait.
        pause: seconds, as :class:`reidkit.web.together.Together` takes it.
    """

    def __init__(self, searcher: Searcher, *, waiting: int, pause: float) -> None:
        self._num_coming, self._counting = 0, threading.Lock()
        self._searcher, self._fingerprints = searcher, searcher.encoder.fingerprints
        self._priors: dict[str, tuple[float, int, Prior]] = {}
        self._together: Together[Asked, Found | FoundPeople] = Together(
            self._search_all,
            name="searching",
            at_once=MOST_AT_ONCE,
            waiting=waiting,
            pause=pause,
            what="searches wait",
            enough=ENOUGH,
            are_coming=lambda: self._num_coming > 0,
        )

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Inside it, a search is made ready; a pass that has not begun yet waits for it a little."""
        with self._counting:
            self._num_coming += 1
        try:
            yield
        finally:
            with self._counting:
                self._num_coming -= 1

    def items(self, asked: Asked) -> Found:
        """The items that look most like who is searched for."""
        found = self._together.do(asked)
        assert isinstance(found, Found)
        return found

    def people(self, asked: Asked) -> FoundPeople:
        """The people, or tracklets, that look most like who is searched for."""
        found = self._together.do(asked)
        assert isinstance(found, FoundPeople)
        return found

    def close(self) -> None:
        """Make the searches that wait, and take no more."""
        self._together.close()

    def _search_all(self, asked: list[Asked]) -> list[Found | FoundPeople | Exception]:
        """What each asked for, those of equal options at once."""
        groups: dict[str | int, list[int]] = {}
        for place, one in enumerate(asked):
            options = _options(one.request)
            groups.setdefault(place if options is None else options, []).append(place)
        found: dict[int, Found | FoundPeople | Exception] = {}
        for places in groups.values():
            try:
                answers: Sequence[Found | FoundPeople | Exception] = self._search_equal(
                    [asked[place] for place in places]
                )
            except Exception as error:  # they asked for the same, and so for the same mistake
                answers = [error] * len(places)
            found |= zip(places, answers, strict=True)
        return [found[place] for place in range(len(asked))]

    def _search_equal(self, asked: Sequence[Asked]) -> Sequence[Found | FoundPeople]:
        request, queries = asked[0].request, [one.query for one in asked]
        rows = Embeddings(np.concatenate([one.embedding for one in asked]), self._fingerprints)
        where = request.where or None
        if request.group is not None:
            options = PeopleSearch(request.group, request.pool, request.top, request.items_each, where)
            return self._searcher.search_people_for(rows, queries, options, include_self=request.include_self)
        rate = request.false_match_rate
        if rate is not None and self._searcher.calibration is None:
            raise ConfigError(  # in other words than the searcher's, which name the encoder's place
                "the encoder of this gallery has no calibration, which would say what scores mean; leave "
                "false_match_rate out, or make one with `reid evaluate ENCODER --store-calibration`"
            )
        return self._searcher.search_for(
            rows,
            queries,
            top=request.top,
            where=where,
            include_self=request.include_self,
            lowest=None if rate is None else self._searcher.lowest_score(rate),
            prior=self.prior(where, request.prior),
        )

    def prior(self, where: Where | None, given: float | None) -> float | None:
        """The gallery's prior, which takes a look at every item, kept while the gallery is about as large."""
        if given is not None or self._searcher.calibration is None:
            return given
        key, now, num = json.dumps(where, sort_keys=True, default=str), time.monotonic(), len(self._searcher)
        kept = self._priors.get(key)
        if kept is None or now > kept[0] or abs(num - kept[1]) > kept[1] / 100:
            if len(self._priors) >= _MOST_PRIORS:
                self._priors.clear()
            kept = self._priors[key] = now + _PRIOR_SECONDS, num, self._searcher.prior(where=where)
        return kept[2].value


def _options(request: SearchRequest) -> str | None:
    """Equal where two ask for the same; ``None`` where nobody else can."""
    if keys_of_query(request.where):
        return None  # its conditions are of this query alone
    told = request.model_dump(exclude={"boxes", "items", "embeddings", "labels", "pictures", "purpose"})
    return json.dumps(told, sort_keys=True, default=str)
