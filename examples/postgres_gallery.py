"""A gallery on a PostgreSQL server with pgvector: the same verbs as in a folder.

    pip install "reidkit[postgres]"
    python examples/postgres_gallery.py 'postgresql://ann@localhost/people?gallery=shop' runs/demo/run photos

The password is PostgreSQL's affair: ~/.pgpass, or PGPASSWORD in the environment.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import reidkit as rk
from reidkit.galleries import forget


def main(address: str, encoder: Path, photos: Path) -> int:
    """Add photos named 0017_c2_000451.jpg, search among other cameras, forget a person; how many are left."""
    network = rk.load_encoder(encoder)
    paths = sorted(photos.glob("*_c*_*.jpg"))
    names = [path.stem.split("_") for path in paths]
    with rk.open_gallery(address) as gallery:
        gallery.add(
            network.encode(paths),
            sources=[str(path) for path in paths],
            identities=[name[0] for name in names],
            cameras=[int(name[1][1:]) for name in names],
        )
        [hits] = gallery.search(
            network.encode(paths[0]), top=5, where={"camera": {"not": int(names[0][1][1:])}}
        )
        for hit in hits:
            print(hit)
        forget(gallery, names[0][0])
        return len(gallery)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("encoder", type=Path)
    parser.add_argument("photos", type=Path)
    main(**vars(parser.parse_args()))
