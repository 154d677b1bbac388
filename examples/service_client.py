"""A client of the service: search, add, and see where a person was, over the network.

    reid serve people.gallery                                       # elsewhere; it prints how to make a token
    python examples/service_client.py http://127.0.0.1:8000 query.jpg --token reid_...

The client needs no encoder and no gallery of its own: pictures are sent, and the service embeds them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import reidkit as rk


def main(
    address: str, picture: Path, token: str | None = None, gallery: str | None = None
) -> list[str | None]:
    """Print who looks most like a picture, and the visits of the best of them; names of the hits."""
    people = rk.connect(address, token=token, gallery=gallery)
    answer = people.search(picture, top=5)
    for hit in answer.hits:
        likely = "" if hit.probability is None else f", {100 * hit.probability:.0f} % likely"
        print(f"{hit.score:.3f}{likely}  {hit.identity or 'nobody known'}, camera {hit.camera}, {hit.moment}")
    known = [hit.identity for hit in answer.hits if hit.identity]
    if known:
        for visit in people.timeline(known[0]).visits:
            print(f"{known[0]}: {visit}")
    return [hit.identity for hit in answer.hits]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--token", help="made by `reid serve users token NAME`")
    parser.add_argument("--gallery", help="where the service has several")
    main(**vars(parser.parse_args()))
