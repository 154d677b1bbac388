"""VeRi-776: vehicles (Liu et al., ICME 2016)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from reidkit.datasets._layouts import TreeNames, market_tree
from reidkit.registry import register
from reidkit.types import Dataset

NAMES = TreeNames(
    "VeRi-776",
    re.compile(r"(?P<identity>\d+)_c(?P<camera>\d+)_(?P<frame>\d+)_\d+\.jpg", re.IGNORECASE),
    "0001_c001_00016450_0.jpg",
    {"train": "image_train", "query": "image_query", "gallery": "image_test"},
)
PUBLISHED = {
    "train": {"images": 37_778, "identities": 576},
    "query": {"images": 1_678, "identities": 200},
    "gallery": {"images": 11_579, "identities": 200},
}


@register("dataset", "veri776")
def veri776(root: Path) -> Dataset:
    """VeRi-776: vehicles under twenty traffic cameras.

    Liu, Liu, Ma, Fu, "Large-scale Vehicle Re-identification in Urban Surveillance Videos", ICME 2016.

    =========== ======= ==========
    folder      images  identities
    =========== ======= ==========
    image_train 37,778  576
    image_query  1,678  200 others
    image_test  11,579  these 200
    =========== ======= ==========

    Names are ``0001_c001_00016450_0.jpg``: vehicle, camera, time, box. Market-1501's rules.

    Args:
        root: the folder ``VeRi``, or one that holds it.

    Raises:
        DataError: see :func:`reidkit.datasets._layouts.market_tree`.
    """
    return replace(market_tree(Path(root), name="veri776", names=NAMES), published=PUBLISHED)
