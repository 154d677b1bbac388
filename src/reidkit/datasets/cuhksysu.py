"""CUHK-SYSU: persons cut from whole scenes (Xiao et al., CVPR 2017)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reidkit.datasets._layouts import check_option, find_tree, unlisted_files
from reidkit.datasets._matlab import load_variable, understood
from reidkit.errors import DataError
from reidkit.registry import register
from reidkit.types import Dataset, Sample, Split

Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

SCENES = "Image/SSM"
ANNOTATION = "annotation"
LISTS = "annotation/test/train_test"
GALLERY_SIZES = (50, 100, 500, 1000, 2000, 4000)
PUBLISHED = {
    "train": {"identities": 5_532},
    "query": {"images": 2_900, "identities": 2_900},
    "gallery": {"identities": 2_900},
}


@register("dataset", "cuhksysu")
def cuhksysu(root: Path, *, gallery_size: int = 100) -> Dataset:
    """CUHK-SYSU: persons in 18,184 scenes from the streets and from films; no cameras.

    Xiao, Li, Wang, Lin, Wang, "Joint Detection and Identification Feature Learning for Person Search",
    CVPR 2017. Samples are boxes of the annotation, cut from their scenes when read (``Sample.box``).

    ===== ======= ==========
    part  scenes  identities
    ===== ======= ==========
    train 11,206  5,532
    test   6,978  2,900, one query each
    ===== ======= ==========

    A query has a gallery of its own (``Dataset.galleries``): every annotated box of the scenes that
    ``TestG100.mat`` lists for it, its own scene not among them. Boxes of persons nobody asks for have
    identity 0; boxes without width or height are left out. Training images are the boxes with a person's
    name. Identities are the numbers of the release, "p123" being 123.

    Args:
        root: the folder with Image and annotation (``dataset``), or one that holds it.
        gallery_size: scenes in a query's gallery: 50, 100 (the usual), 500, 1000, 2000 or 4000. Reading
            takes seconds for 100, and minutes and several gigabytes of memory for 4000.

    Raises:
        DataError: scenes or annotations are missing or damaged.
        ConfigError: unknown gallery size.
    """
    check_option("gallery_size", gallery_size, GALLERY_SIZES)
    tree = find_tree(Path(root), (SCENES, f"{ANNOTATION}/Images.mat", LISTS), known_as="CUHK-SYSU")
    name = f"TestG{gallery_size}"
    with understood(tree / ANNOTATION):
        boxes = scene_boxes(load_variable(tree / ANNOTATION / "Images.mat", "Img"))
        train = train_part(tree / SCENES, load_variable(tree / LISTS / "Train.mat", "Train"))
        queries = load_variable(tree / LISTS / f"{name}.mat", name)
        query, gallery, galleries = search_part(tree / SCENES, queries, boxes)
    return Dataset(
        name="cuhksysu",
        root=tree,
        train=train,
        query=query,
        gallery=gallery,
        has_cameras=False,
        camera_filter="none",
        galleries=galleries,
        skipped=tuple(unlisted_files(tree / SCENES, boxes.keys(), source="Images.mat")),
        published=PUBLISHED,
    )


def scene_boxes(images: Any) -> dict[str, list[Box]]:
    """Boxes of each scene, from ``Img``: structs of imname, nAppear, box (structs of idlocate)."""
    _check_fields(images, ("imname", "box"), "Images.mat")
    return {
        str(image["imname"]): [
            box for cell in _each(image["box"]) if (box := _box(cell["idlocate"])) is not None
        ]
        for image in _each(images)
    }


def train_part(scenes: Path, identities: Any) -> Split:
    """Named boxes, from ``Train``: cells of structs idname, nAppear, scene (structs imname, idlocate)."""
    samples = []
    for cell in _each(identities):
        identity = _first(cell)
        _check_fields(identity, ("idname", "scene"), "Train.mat")
        name = str(_value(identity["idname"]))
        for scene in _each(_value(identity["scene"])):
            box = _box(scene["idlocate"])
            if box is not None:
                samples.append(_sample(scenes, str(scene["imname"]), box, _number(name), name))
    return _in_order(samples)


def search_part(
    scenes: Path, queries: Any, boxes: dict[str, list[Box]]
) -> tuple[Split, Split, tuple[tuple[int, ...], ...]]:
    """Queries, all boxes of all their scenes, and each query's places among these.

    ``queries`` are structs of Query (imname, idlocate, idname) and Gallery (structs imname, idlocate;
    idlocate is empty where the scene does not show the person).
    """
    _check_fields(queries, ("Query", "Gallery"), "the list of queries")
    identities: dict[tuple[str, Box], str] = {}
    asked: list[tuple[Sample, list[str]]] = []
    for entry in _each(queries):
        query = _first(entry["Query"])
        identity = str(_value(query["idname"]))
        scene, box = str(_value(query["imname"])), _box(_value(query["idlocate"]))
        if box is None:
            raise DataError(f"the query {identity} in {scene} has no box; copy the annotation again")
        identities[scene, box] = identity
        listed = []
        for item in _each(entry["Gallery"]):
            listed.append(str(item["imname"]))
            shown = _box(item["idlocate"])
            if shown is not None:
                identities[listed[-1], shown] = identity
        asked.append((_sample(scenes, scene, box, _number(identity), identity), listed))
    searched = {scene for _, listed in asked for scene in listed}
    unknown = sorted(searched - boxes.keys())
    if unknown:
        raise DataError(f"Images.mat lacks {len(unknown)} scenes of the galleries; {unknown[0]} is the first")
    gallery = _gallery(scenes, searched, boxes, identities)
    indices: defaultdict[str, list[int]] = defaultdict(list)
    for sample in gallery:
        indices[sample.path.name].append(sample.index)
    asked.sort(key=lambda pair: _order(pair[0]))
    galleries = tuple(
        tuple(sorted(index for scene in set(listed) for index in indices[scene])) for _, listed in asked
    )
    return _in_order([sample for sample, _ in asked]), gallery, galleries


def _gallery(
    scenes: Path, searched: set[str], boxes: dict[str, list[Box]], identities: dict[tuple[str, Box], str]
) -> Split:
    """All boxes of the scenes searched, those with a person's name also where Images.mat lacks them."""
    places = {(scene, box) for scene in searched for box in boxes[scene]}
    places |= {(scene, box) for scene, box in identities if scene in searched}
    samples = []
    for scene, box in places:
        identity = identities.get((scene, box))
        samples.append(_sample(scenes, scene, box, _number(identity) if identity else 0, identity))
    return _in_order(samples)


def _sample(scenes: Path, scene: str, box: Box, identity: int, name: str | None) -> Sample:
    return Sample(scenes / scene, identity, None, 0, box=box, dataset="cuhksysu", identity_name=name)


def _in_order(samples: list[Sample]) -> Split:
    return tuple(replace(sample, index=index) for index, sample in enumerate(sorted(samples, key=_order)))


def _order(sample: Sample) -> tuple[str, Box]:
    return sample.path.as_posix(), sample.box or (0, 0, 0, 0)


def _number(name: str) -> int:
    if not (name.startswith("p") and name[1:].isdecimal()):
        raise DataError(f"a person is named {name!r} in the annotation; expected p and a number, as p123")
    return int(name[1:])


def _box(idlocate: Any) -> Box | None:
    """(x, y, width, height) as corners; ``None`` where there is none, or one without a pixel."""
    numbers = np.atleast_1d(_value(idlocate)).astype(np.int64).ravel().tolist()
    if len(numbers) != 4:
        return None
    left, top, width, height = numbers
    return (left, top, left + width, top + height) if width > 0 and height > 0 else None


def _each(cells: Any) -> Iterator[Any]:
    """The elements of a cell or struct array, which with one element has lost its axis."""
    yield from np.atleast_1d(_value(cells)).ravel()


def _first(cells: Any) -> Any:
    return np.atleast_1d(_value(cells)).ravel()[0]


def _value(cell: Any) -> Any:
    """What a field of a struct holds; a field of one element may be an object array without axes."""
    while isinstance(cell, np.ndarray) and cell.ndim == 0 and cell.dtype == object:
        cell = cell.item()
    return cell


def _check_fields(structs: Any, fields: tuple[str, ...], source: str) -> None:
    found = getattr(_value(structs), "dtype", np.dtype(float)).names or ()
    missing = [field for field in fields if field not in found]
    if missing:
        raise DataError(f"{source} has no field {' and '.join(missing)}; copy the annotation again")
