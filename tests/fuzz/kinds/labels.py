"""Patterns that read labels from names."""

from __future__ import annotations

import shutil

from hypothesis import strategies as st

from tests.fuzz.cases import Case, Maker, kind
from tests.fuzz.hostile import texts

_PIECES = st.sampled_from(
    ("{identity}", "{identity}", "{camera}", "{frame}", "{time}", "{tracklet}", "*", "*", "**", "_", "-",
    ".", "/",
     ".jpg", ".*", "c", "{", "}", "{{", "{}", "{x}", "{identity!r}", "{identity:>10}", "{0}", "?", "[a-z]",
     "(", "(a+)+",
     "\\", "^", "$", "|", "é", "0")
)  # fmt: skip
_PATTERNS = st.one_of(
    st.lists(_PIECES, max_size=8).map("".join),
    st.lists(_PIECES, max_size=8).map("".join),
    st.builds(
        lambda piece, count, end: "{identity}" + piece * count + end, _PIECES, st.integers(1, 40), _PIECES
    ),
    st.just("{identity}{frame}{camera}{time}{tracklet}"),
    texts(),
)
_STEMS = (
    "7" * 60,
    "a" * 120,
    "1_c2_3",
    "0001_c1s1_000451_03",
    "-1_c1",
    "1.2.3.4.5.6.7.8.9.10.11.12",
    "_" * 100,
    "1-2-3" * 20,
)


@kind("patterns", weight=80)
def patterns(maker: Maker) -> Case:
    pattern = maker.draw(_PATTERNS).replace("\0", "")[:60_000]
    for stem in maker.random.sample(_STEMS, 3):
        path = maker.folder / "photos" / f"{stem}.jpg"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(maker.world.photo(".jpg"), path)
    if maker.random.random() < 0.6:
        # As the command line takes it: the value is TOML, or text where it is not.
        return Case(("check", "folder", "photos", f"pattern={pattern}"), codes=(0, 1, 2))
    return Case(("split", "photos", "--out", "o.csv", f"--pattern={pattern}"), writes=("o.csv",))
