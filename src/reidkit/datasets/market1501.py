"""Market-1501 (Zheng et al., ICCV 2015)."""

from __future__ import annotations

from pathlib import Path

from reidkit.folder_trees import market_tree
from reidkit.registry import register
from reidkit.types import Dataset


@register("dataset", "market1501")
def market1501(root: Path) -> Dataset:
    """Market-1501: six cameras before a supermarket, boxes found by a DPM detector.

    Zheng, Shen, Tian, Wang, Wang, Tian, "Scalable Person Re-identification: A Benchmark", ICCV 2015.
    Published counts, which the release's own file lists confirm:

    ================== ======= =================================================
    folder             images  of which
    ================== ======= =================================================
    bounding_box_train 12,936  751 identities
    query               3,368  750 other identities
    bounding_box_test  19,732  13,115 of these; 2,798 distractors; 3,819 junk
    ================== ======= =================================================

    Args:
        root: the folder ``Market-1501-v15.09.15``, or one that holds it.

    Names are ``0002_c1s1_000451_03.jpg``: identity, camera, sequence, frame, box. Identity -1 marks junk
    detections, 0 distractors: an ordinary identity, which no query bears. See
    :func:`reidkit.folder_trees.market_tree` for what is accepted and refused.
    """
    return market_tree(root, name="market1501")
