"""Two cameras' photos without names become people.

    python examples/two_cameras.py runs/demo/run door/ hall/

Proposals are labels, not identities; `reid review accept people.gallery new-1 --as anna` makes one a name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reidkit.clustering import ClusterOptions
from reidkit.clustering.proposals import propose
from reidkit.search import Searcher


def main(encoder: Path, first: Path, second: Path, gallery: Path, neighbours: int = 8) -> list[list[str]]:
    """Index both folders, a camera each, and cluster; the pictures of each person that was found."""
    with Searcher(str(gallery), encoder=encoder) as searcher:
        for folder in (first, second):
            searcher.add(sorted(folder.glob("*.jpg")), camera=folder.name)
        proposals = propose(searcher.gallery, ClusterOptions(k1=neighbours))
    for person in proposals.people:
        cameras = sorted({str(item.camera) for item in person.items})
        print(f"{person.name}: {len(person.items)} pictures at {' and '.join(cameras)}")
    return [[str(item.source) for item in person.items] for person in proposals.people]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--gallery", type=Path, default=Path("people.gallery"))
    parser.add_argument("--neighbours", type=int, default=8, help="about twice the pictures of a person")
    main(**vars(parser.parse_args()))
