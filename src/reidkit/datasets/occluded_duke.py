"""Occluded-Duke (Miao et al., ICCV 2019)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reidkit.datasets._layouts import DUKE, DUKE_LICENCE, market_tree
from reidkit.registry import register
from reidkit.types import Dataset

PUBLISHED = {
    "train": {"images": 15_618, "identities": 702},
    "query": {"images": 2_210, "identities": 519},
    "gallery": {"images": 17_661, "identities": 519},
}


@register("dataset", "occluded_duke")
def occluded_duke(root: Path) -> Dataset:
    """Occluded-Duke: DukeMTMC-reID cut anew so that every query is partly hidden. For those who hold it.

    Miao, Wu, Liu, Ding, Yang, "Pose-Guided Feature Alignment for Occluded Person Re-Identification",
    ICCV 2019. The images are DukeMTMC-reID's, which its authors withdrew in 2019.

    ================== ======= ====================================
    folder             images  identities
    ================== ======= ====================================
    bounding_box_train 15,618  702
    query               2,210  519 others
    bounding_box_test  17,661  1,110, these among them
    ================== ======= ====================================

    Names are ``0001_c2_f0046182.jpg``: identity, camera, frame. Market-1501's rules.

    Args:
        root: the folder ``Occluded_Duke``, or one that holds it.

    Raises:
        DataError: see :func:`reidkit.datasets._layouts.market_tree`.
    """
    return replace(
        market_tree(Path(root), name="occluded_duke", names=DUKE), published=PUBLISHED, licence=DUKE_LICENCE
    )
