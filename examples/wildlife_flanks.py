"""Animals: only photos of the same flank can be compared, and whoever is like nobody known is new.

    python examples/wildlife_flanks.py runs/leopards sightings.csv new.csv

Both tables have the columns path, flank and session, the first also individual. The session stands in the
place of the camera: two photos of one encounter prove nothing.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import reidkit as rk


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(encoder: Path, known: Path, new: Path, gallery: Path, lowest: float = 0.6) -> list[str]:
    """Name the animal in each new photo, or say that it is a new one; the names, "new" among them."""
    network = rk.load_encoder(encoder)
    sightings, asked = rows_of(known), rows_of(new)
    names = []
    with rk.open_gallery(gallery) as store:
        store.add(
            network.encode([row["path"] for row in sightings]),
            sources=[row["path"] for row in sightings],
            identities=[row["individual"] for row in sightings],
            cameras=[row["session"] for row in sightings],
            labels={"flank": [row["flank"] for row in sightings]},
        )
        found = store.search(
            network.encode([row["path"] for row in asked]),
            top=1,
            where={"flank": {"query": "same"}, "camera": {"query": "other"}},
            queries=[{"flank": row["flank"], "camera": row["session"]} for row in asked],
        )
    for row, hits in zip(asked, found, strict=True):
        is_known = bool(hits) and hits[0].score >= lowest
        names.append(str(hits[0].identity) if is_known else "new")
        score = f"{hits[0].score:.2f}" if hits else "no photo of that flank"
        print(f"{row['path']}, {row['flank']} flank: {names[-1]} ({score})")
    return names


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("known", type=Path, help="table with path, individual, flank, session")
    parser.add_argument("new", type=Path, help="table with path, flank, session")
    parser.add_argument("--gallery", type=Path, default=Path("animals.gallery"))
    parser.add_argument("--lowest", type=float, default=0.6, help="score below which an animal is new")
    main(**vars(parser.parse_args()))
