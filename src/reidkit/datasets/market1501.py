"""Market-1501 (Zheng et al., ICCV 2015)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reidkit.datasets._layouts import MARKET, MARKET_NAME, fitting_files, market_tree, numbered
from reidkit.errors import ConfigError, DataError
from reidkit.images.reading import is_image, list_files
from reidkit.registry import register
from reidkit.types import Dataset, Sample

MULTI_QUERY_FOLDER = "gt_bbox"
DISTRACTOR_FOLDERS = ("distractors_500k", "images/distractors_500k", "images")
NUM_DISTRACTORS = 500_000
PUBLISHED = {
    "train": {"images": 12_936, "identities": 751},
    "query": {"images": 3_368, "identities": 750},
    "gallery": {"images": 19_732, "identities": 750, "junk": 3_819, "distractors": 2_798},
}


@register("dataset", "market1501")
def market1501(root: Path, *, distractors: bool | int = False) -> Dataset:
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
        distractors: append the 500,000 images of ``distractors_500k`` (or of ``images``, as the archive
            unpacks) to the gallery, all as identity 0, camera 0 where the name tells none; of a number, so
            many of them, the first by name.

    Names are ``0002_c1s1_000451_03.jpg``: identity, camera, sequence, frame, box. Identity -1 marks junk
    detections, 0 distractors: an ordinary identity, which no query bears. The hand-drawn boxes of
    ``gt_bbox``, where that folder is, are the set's multi-query images. See
    :func:`reidkit.datasets._layouts.market_tree` for what is accepted and refused.
    """
    if distractors < 0:
        raise ConfigError(f"distractors = {distractors}; give true, false, or how many")
    data = replace(market_tree(Path(root), name="market1501"), published=PUBLISHED, licence="research only")
    data = _with_multi_query(data)
    return _with_distractors(data, distractors) if distractors else data


def _with_multi_query(data: Dataset) -> Dataset:
    folder = data.root / MULTI_QUERY_FOLDER
    if not folder.is_dir():
        return data
    files, others = fitting_files(folder, MARKET_NAME, example=MARKET.example)
    samples = [
        Sample(
            path,
            int(fields["identity"]),
            int(fields["camera"]),
            0,
            frame=int(fields["frame"]),
            dataset="market1501",
        )
        for path, fields in files
    ]
    return replace(data, multi_query=numbered(samples), skipped=(*data.skipped, *others))


def _with_distractors(data: Dataset, wanted: bool | int) -> Dataset:
    folder = next((data.root / name for name in DISTRACTOR_FOLDERS if (data.root / name).is_dir()), None)
    if folder is None:
        raise DataError(
            f"{data.root} has no folder {' or '.join(DISTRACTOR_FOLDERS)}; "
            "unpack distractors_500k.zip there, or load the set with distractors=False"
        )
    files = list_files(folder)
    samples = [_distractor(path) for path in files if is_image(path)]
    if not samples:
        raise DataError(f"{folder} holds no images; unpack distractors_500k.zip there again")
    number = NUM_DISTRACTORS if wanted is True else wanted
    if wanted is not True and len(samples) < wanted:
        raise DataError(f"{folder} holds {len(samples)} images, {wanted} are asked for; take fewer")
    gallery = PUBLISHED["gallery"]
    more = {name: gallery[name] + number for name in ("images", "distractors")}
    return replace(
        data,
        gallery=numbered(data.gallery + tuple(samples[:number])),
        skipped=data.skipped + tuple(path for path in files if not is_image(path)),
        published=PUBLISHED | {"gallery": gallery | more},
    )


def _distractor(path: Path) -> Sample:
    fields = MARKET_NAME.fullmatch(path.name)
    return Sample(path, 0, int(fields["camera"]) if fields else None, 0, dataset="market1501")
