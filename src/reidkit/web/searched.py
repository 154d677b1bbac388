"""What a search found, as it is answered."""

from __future__ import annotations

import time
from typing import Any

from reidkit.web import answers as a
from reidkit.web.served import Served
from reidkit.web.wanted import SearchRequest


def search_answer(served: Served, request: SearchRequest) -> a.SearchAnswer:
    """Search, and tell what was found, or why nothing was."""
    started = time.perf_counter()
    answer, is_empty = _people_found(served, request) if request.group else _items_found(served, request)
    why = served.searcher.why_nothing(request.where) if is_empty else ""
    return a.SearchAnswer(**answer, why_nothing=why, seconds=time.perf_counter() - started)


def _items_found(served: Served, request: SearchRequest) -> tuple[dict[str, Any], bool]:
    """The answer, and whether there was nothing to find."""
    found = served.search(request)
    probabilities = found.probabilities or (None,) * len(found.hits)
    answer = {
        "hits": [
            a.hit_answer(hit, probability=one, is_query=found.is_own(hit))
            for hit, one in zip(found.hits, probabilities, strict=True)
        ],
        "no_probability": found.no_probability,
        "prior": found.prior.value if found.prior and found.probabilities else None,
        "num_low": found.num_low,
        "num_own": 0 if request.include_self else len(found.own),
        "num_rejected": found.num_rejected,
    }
    return answer, not found


def _people_found(served: Served, request: SearchRequest) -> tuple[dict[str, Any], bool]:
    found, query = served.search_people(request)
    answer = {
        "people": [a.person_answer(group, query.is_own) for group in found.people],
        "num_own": found.num_own,
        "num_rejected": found.num_rejected,
    }
    return answer, not found
