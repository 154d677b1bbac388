"""A gallery of drawn people, to look around in a service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reidkit.clustering.proposals import propose
from reidkit.datasets import load_dataset
from reidkit.datasets.synthetic.dataset import World, make_synthetic
from reidkit.encoders.at_hand import encoders_in
from reidkit.encoders.own import OWN
from reidkit.files import user_cache
from reidkit.progress import ProgressCallback
from reidkit.search.searcher import Searcher
from reidkit.types import Sample
from reidkit.web.audit import hash_of

WORLD = World(
    num_train_identities=2,
    num_test_identities=40,
    images_per_camera=3,
    num_distractors=20,
    num_junk=0,
)
_START = 1_714_550_400.0  # a morning
_SECONDS_BETWEEN = 420.0


def demo_gallery(*, encoder: Path | None = None, progress: ProgressCallback | None = None) -> Path:
    """Draw people and fill a gallery with them, unless that is done already; where it is.

    Half of the people are known by name, and the others are proposed, to be reviewed.

    Args:
        encoder: what embeds them; left out, the encoder that is at hand in the current folder, else
            ``reidkit-small``, which comes with the package.
        progress: called with (done, total).
    """
    chosen = encoder or next(iter(encoders_in(Path())), Path(OWN))
    folder = user_cache("serve-demo")
    people = make_synthetic(folder / "people", WORLD, num_workers=1, progress=progress)
    data = load_dataset("synthetic", people)
    location = folder / f"{hash_of(str(chosen.resolve()))[:12]}.gallery"  # one an encoder
    with Searcher(location, encoder=chosen) as searcher:
        added = searcher.add(list(_seen([*data.query, *data.gallery])), progress=progress)
        if added.embedded:
            propose(searcher.made())
    return location


def _seen(samples: Sequence[Sample]) -> Iterator[Sample]:
    """Samples with times at which they may have been seen, every second person without a name."""
    for sample in samples:
        named = sample.identity > 0 and sample.identity % 4 == 1
        seconds = (
            _START + _SECONDS_BETWEEN * ((sample.camera or 0) + sample.identity % 20) + (sample.frame or 0)
        )
        yield replace(
            sample,
            time=seconds,
            identity_name=f"person {sample.identity}" if named else "",
        )
