"""Search: a gallery and its encoder, from images to the people who look most like them."""

from reidkit.search.found import Found
from reidkit.search.pictures import Added
from reidkit.search.searcher import Searcher

__all__ = ["Added", "Found", "Searcher"]
