"""Two toolkits' embeddings of the same images: which is better, and how sure is that?

    python examples/compare_toolkits.py theirs.npz ours.npz

Each file holds query_embeddings, query_identities, query_cameras and the same of the gallery, a row an image,
in the same order in both (docs/reference/files.md). `reid compare theirs.npz ours.npz` writes a page as well.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reidkit import evaluate_features, load_features
from reidkit.analysis.bootstrap import PairedDifference, paired_difference


def main(theirs: Path, ours: Path) -> PairedDifference:
    """Print both and the difference of their mean average precision, with its interval over people."""
    evaluations = []
    for file in (theirs, ours):
        query, gallery = load_features(file)
        evaluations.append(evaluate_features(query, gallery))
        print(f"{file}\n{evaluations[-1]}\n")
    found = paired_difference(*(e.average_precisions for e in evaluations), identities=query.identities)
    low, high = found.interval
    print(
        f"{ours} - {theirs}: {100 * found.difference:+.1f} mAP points, 95 % interval {100 * low:+.1f} to "
        f"{100 * high:+.1f}, p = {found.p_value:.3f}, {found.num_identities} people"
    )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("theirs", type=Path)
    parser.add_argument("ours", type=Path)
    main(**vars(parser.parse_args()))
