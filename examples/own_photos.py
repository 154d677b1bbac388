"""A folder of photos becomes a gallery, and is searched.

python examples/own_photos.py runs/demo/run photos query.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reidkit.search import Searcher


def main(encoder: Path, photos: Path, query: Path, gallery: Path) -> list[str]:
    """Index all photos, search for one; the sources of the hits, nearest first."""
    with Searcher(str(gallery), encoder=encoder) as searcher:
        added = searcher.add(sorted(photos.glob("*.jpg")))
        print(added)
        [found] = searcher.search([query], top=5)
    for hit in found.hits:
        print(hit)
    return [str(hit.source) for hit in found.hits]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("encoder", type=Path, help="run folder, .safetensors, .onnx or .xml")
    parser.add_argument("photos", type=Path)
    parser.add_argument("query", type=Path)
    parser.add_argument("--gallery", type=Path, default=Path("photos.gallery"))
    main(**vars(parser.parse_args()))
