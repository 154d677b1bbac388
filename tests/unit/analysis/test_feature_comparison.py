"""Branches side by side, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reidkit.analysis.feature_comparison import compare_branches
from reidkit.errors import DataError
from reidkit.types import Evaluation, Sample

SPLIT = tuple(Sample(Path(f"{row}.jpg"), 10 + row, 1, row) for row in range(5))


def evaluation(ranks: list[int]) -> Evaluation:
    """Of queries whose first match has these ranks; 0 is not valid."""
    found = np.array(ranks)
    precisions = np.where(found > 0, 1 / np.maximum(found, 1), np.nan)
    cmc = np.array([np.mean(found[found > 0] <= k) for k in (1, 2)])
    return Evaluation(
        float(np.nanmean(precisions)), cmc, 0.5, precisions, found, precisions, int((found > 0).sum()), 9, "p"
    )


def test_counts_by_hand() -> None:
    found = compare_branches(
        {
            "global": evaluation([1, 3, 1, 5, 0]),
            "local": evaluation([2, 1, 1, 4, 0]),
            "both": evaluation([4, 3, 1, 4, 0]),
        }
    )
    rows = {row["feature"]: row for row in found.rows()}
    assert rows["global"] == {
        "feature": "global",
        "mAP": pytest.approx((1 + 1 / 3 + 1 + 1 / 5) / 4),
        "rank-1": 0.5,
        "right": 2,  # queries 0 and 2
        "alone_right": 1,  # query 0
        "soonest": 1,  # query 0
    }
    counted = {name: (row["right"], row["alone_right"], row["soonest"]) for name, row in rows.items()}
    # Query 2 is right by all, query 3 is a tie: nobody's alone.
    assert counted == {"global": (2, 1, 1), "local": (2, 1, 1), "both": (1, 0, 0)}
    assert found.table(SPLIT).splitlines() == [
        "query,identity,camera,global,local,both",
        "0.jpg,10,1,1,2,4",
        "1.jpg,11,1,3,1,3",
        "2.jpg,12,1,1,1,1",
        "3.jpg,13,1,5,4,4",
        "4.jpg,14,1,,,",
    ]


def test_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="nothing to compare: the network has 1 feature \\(neck\\)"):
        compare_branches({"neck": evaluation([1])})
    with pytest.raises(DataError, match="different numbers of queries"):
        compare_branches({"a": evaluation([1]), "b": evaluation([1, 2])})
    with pytest.raises(DataError, match="5 samples for 1 queries"):
        compare_branches({"a": evaluation([1]), "b": evaluation([2])}).table(SPLIT)
