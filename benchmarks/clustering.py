"""How well `reid cluster` finds out who is who, without a name; write the tables into docs/results.md.

    python benchmarks/clustering.py $REIDKIT_DATA --write

The defaults were chosen on Market-1501's training people; those of its test part, and VIPeR's, had no say.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np

import reidkit as rk
from reidkit.clustering import Agreement, ClusterOptions, agreement, cluster
from reidkit.clustering.proposals import propose
from reidkit.galleries import open_gallery
from reidkit.types import Features, Split
from results import processor, write_section

NETWORK = "models/person-reidentification-retail-0288/person-reidentification-retail-0288.xml"
FRAMES_PER_SECOND = 25
SEQUENCE = 7200.0  # seconds; Market-1501's sequences are of two hours at most


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help=f"folder with market1501-500/, viper/ and {NETWORK}")
    parser.add_argument("--keep", type=Path, help="folder for embeddings, so that they are made once")
    parser.add_argument("--write", action="store_true", help="into docs/results.md")
    options = parser.parse_args()
    market = rk.load_dataset("market1501", options.data / "market1501-500")
    viper = rk.load_dataset("viper", options.data / "viper")
    parts = {
        "Market-1501, 400 training people": market.train,
        "Market-1501, 100 test people": tuple(
            sample for sample in market.query + market.gallery if sample.identity > 0
        ),
        "VIPeR, 632 people": tuple(
            {sample.path: sample for part in viper.splits.values() for sample in part}.values()
        ),
    }
    embedded = {name: features(options, name, split) for name, split in parts.items()}
    rows = []
    for name, found in embedded.items():
        variants = [ClusterOptions(), ClusterOptions(method="dbscan", farthest=0.5)]
        if name.startswith("VIPeR"):
            variants += [ClusterOptions(k1=4), ClusterOptions(method="dbscan", farthest=0.5, k1=4)]
        rows += [row(name, variant, found) for variant in variants]
    test = "Market-1501, 100 test people"
    table = "\n".join([*HEADER, *rows, "", walks(parts[test], embedded[test]), "", f"{processor()}."])
    print(table)
    if options.write:
        write_section("clustering", table)


HEADER = (
    "| people | method | neighbours | pairwise F1 | precision | recall | V-measure | people found |",
    "|---|---|---|---|---|---|---|---|",
)


def row(name: str, options: ClusterOptions, found: Features) -> str:
    result = agreement(found.identities, cluster(found.embeddings, options))
    percent = [
        100 * value for value in (result.pairwise_f1, result.precision, result.recall, result.v_measure)
    ]
    cells = [name, f"{options.method}, distance {options.farthest:g}", str(options.k1)]
    return f"| {' | '.join(cells + [f'{value:.1f}' for value in percent])} | {result.num_clusters:,} |"


def walks(split: Split, found: Features) -> str:
    """What times between cameras add, where half of the people are known by name."""
    known = set(np.unique(found.identities)[::2].tolist())
    with tempfile.TemporaryDirectory() as folder, open_gallery(Path(folder) / "g") as gallery:
        gallery.add(
            found.embeddings,
            identities=[str(i) if i in known else None for i in found.identities.tolist()],
            cameras=[sample.camera for sample in split],
            times=[time(sample.path.name) for sample in split],
        )
        results = [of_unknown(gallery, found, known, walks=walks) for walks in (False, True)]
    first, second = (f"{100 * result.pairwise_f1:.1f}" for result in results)
    return (
        f"Of the test people, with every second one known by name: the others' pairwise F1 is {first} "
        f"without times between cameras, {second} with them."
    )


def of_unknown(gallery: rk.galleries.Gallery, found: Features, known: set[int], *, walks: bool) -> Agreement:
    proposed = propose(gallery, walks=walks, dry_run=True)
    clusters = -1 - np.arange(len(found))
    for number, person in enumerate(proposed.people):
        clusters[[item.id - 1 for item in person.items]] = number
    others = ~np.isin(found.identities, list(known))
    return agreement(found.identities[others], clusters[others])


def time(name: str) -> float:
    """Seconds, from the sequence and the frame in a file's name."""
    match = re.search(r"_c\ds(\d)_(\d+)", name)
    assert match is not None
    return SEQUENCE * int(match[1]) + int(match[2]) / FRAMES_PER_SECOND


def features(options: argparse.Namespace, name: str, split: Split) -> Features:
    place = options.keep and options.keep / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.npz"
    if place and place.exists():
        return rk.load_features(place)[0]
    found = rk.load_encoder(options.data / NETWORK).features(split)
    if place:
        rk.save_features(place, found)
    return found


if __name__ == "__main__":
    main()
