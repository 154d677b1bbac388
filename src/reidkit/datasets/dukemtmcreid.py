"""DukeMTMC-reID (Ristani et al., ECCV Workshops 2016; Zheng et al., ICCV 2017)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reidkit.datasets._layouts import DUKE, DUKE_LICENCE, market_tree
from reidkit.registry import register
from reidkit.types import Dataset

PUBLISHED = {
    "train": {"images": 16_522, "identities": 702},
    "query": {"images": 2_228, "identities": 702},
    "gallery": {"images": 17_661, "identities": 702},
}


@register("dataset", "dukemtmcreid")
def dukemtmcreid(root: Path) -> Dataset:
    """DukeMTMC-reID: eight cameras on a campus. Withdrawn by its authors in 2019; for those who hold it.

    Ristani, Solera, Zou, Cucchiara, Tomasi, "Performance Measures and a Data Set for Multi-Target,
    Multi-Camera Tracking", ECCV Workshops 2016; crops by Zheng, Zheng, Yang, ICCV 2017.

    ================== ======= ======================================
    folder             images  identities
    ================== ======= ======================================
    bounding_box_train 16,522  702
    query               2,228  702 others
    bounding_box_test  17,661  these, and 408 that nobody asks for
    ================== ======= ======================================

    Names are ``0001_c2_f0046182.jpg``: identity, camera, frame. Market-1501's rules.

    Args:
        root: the folder ``DukeMTMC-reID``, or one that holds it.

    Raises:
        DataError: see :func:`reidkit.datasets._layouts.market_tree`.
    """
    return replace(
        market_tree(Path(root), name="dukemtmcreid", names=DUKE), published=PUBLISHED, licence=DUKE_LICENCE
    )
