"""Boxes in JSON: COCO's annotations and results, and what supervision's JSON sink writes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.datasets._table_files import Table, column_name
from reidkit.errors import DataError, shortened, shown
from reidkit.texts.files import parse_json
from reidkit.texts.foreign import read_text
from reidkit.video.box_tables import boxes_of_table
from reidkit.video.boxes import (
    NO_CLASS,
    NO_TRACK,
    Boxes,
    BoxesOptions,
    PictureSize,
    make_boxes,
    whole_numbers,
)

_PEOPLE = {"person", "people", "pedestrian", "human"}
_TRACK_KEYS = ("track_id", "instance_id", "tracker_id")


def read_json_boxes(path: Path, options: BoxesOptions, size: PictureSize) -> Boxes:
    """COCO's annotations (an object), COCO's results or supervision's rows (a list)."""
    content = parse_json(read_text(path), path, error=DataError)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _annotations(content, options, size, str(path))
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        if not content or "x_min" in content[0]:
            return _supervision(content, options, str(path))
        if "image_id" in content[0]:
            return _of_annotations(content, _by_number(content, options), options, str(path), people=None)
    raise DataError(
        f"{path} is no file of boxes; expected COCO's JSON with \"annotations\", a list of COCO's results "
        "with image_id and bbox, or what supervision's JSON sink writes"
    )


def _supervision(rows: list[dict[str, Any]], options: BoxesOptions, source: str) -> Boxes:
    if not rows:
        return make_boxes([], [], source=source, reading=["no boxes"])
    header = list(dict.fromkeys(column_name(str(name)) for row in rows for name in row))
    texts = {
        number: {column_name(str(name)): "" if cell is None else str(cell) for name, cell in row.items()}
        for number, row in enumerate(rows, start=1)
    }
    given = {key: column_name(str(name)) for key, name in (options.column or {}).items()}
    return boxes_of_table(Table(header, texts), options, given=given, source=source)


def _annotations(content: Mapping[str, Any], options: BoxesOptions, size: PictureSize, source: str) -> Boxes:
    images = _objects(content, "images", source)
    _check_images(images, size, source)
    videos = {v["id"]: str(v.get("name", v["id"])) for v in _objects(content, "videos", source)}
    if len(videos) > 1:
        wanted = [key for key, name in videos.items() if options.video in (name, Path(name).stem, str(key))]
        if not wanted:
            raise DataError(
                f"{source} holds {len(videos)} videos, and none is called {shown(options.video)}; there are "
                f"{shortened(', '.join(videos.values()), 200)}; name the video's file so, or split the JSON"
            )
        images = [image for image in images if image.get("video_id") in wanted]
    frames = _frames_of(images, options, source)
    annotations = [a for a in content["annotations"] if isinstance(a, dict)]
    if len(annotations) < len(content["annotations"]):
        raise DataError(f"{source}: not every annotation is an object with bbox and image_id")
    if len(videos) > 1:
        here = {str(image) for image in frames}
        annotations = [a for a in annotations if str(a.get("image_id")) in here]
    objects = _objects(content, "categories", source)
    categories = {category["id"]: str(category.get("name", "")).casefold() for category in objects}
    people = {key for key, name in categories.items() if name in _PEOPLE}
    if categories and not people and not options.classes:
        listed = ", ".join(f"{key} {name}" for key, name in categories.items())
        raise DataError(
            f"{source} has no category called person; say by --class NUMBER, in Python "
            f"classes=[NUMBER], which one is to be followed: {shortened(listed, 200)}"
        )
    return _of_annotations(annotations, frames, options, source, people=people or None)


def _check_images(images: Sequence[Mapping[str, Any]], size: PictureSize, source: str) -> None:
    """Each is there once, and of the video's size where the file says of which it is."""
    ids = {image["id"] for image in images}
    if len(ids) < len(images):
        raise DataError(
            f"{source}: {len(images) - len(ids):,} images have the id of another; ids must differ"
        )
    sizes = {(image.get("width"), image.get("height")) for image in images} - {(None, None), (0, 0)}
    other = next((one for one in sizes if one != size), None)
    if other is not None:
        raise DataError(
            f"{source} is of pictures of {shown(other[0])} x {shown(other[1])} pixels, the video of "
            f"{size[0]} x {size[1]}; make the boxes on this video, or change them and the sizes in the file"
        )


def _of_annotations(
    annotations: Sequence[Any],
    frames: Mapping[Any, int],
    options: BoxesOptions,
    source: str,
    *,
    people: set[Any] | None,
) -> Boxes:
    rows = []
    num_others = num_crowds = 0
    for number, annotation in enumerate(annotations):
        if people is not None and not options.classes and not _is_of(annotation, people):
            num_others += 1
            continue
        if annotation.get("iscrowd") == 1:
            num_crowds += 1
            continue
        rows.append(_row(annotation, frames, f"{source}, annotation {number}"))
    values: NDArray[np.float64] = np.array(rows, np.float64).reshape(-1, 8)
    left, top, width, height = values[:, 1:5].T
    others = [f"{num_others:,} boxes of other categories than people left out"] if num_others else []
    others += [f"{num_crowds:,} boxes around crowds left out"] if num_crowds else []
    return make_boxes(
        whole_numbers(values[:, 0], f"{source}: frame"),
        np.stack([left, top, left + width, top + height], axis=1),
        tracks=whole_numbers(values[:, 5], f"{source}: track"),
        confidences=values[:, 6],
        classes=whole_numbers(values[:, 7], f"{source}: category"),
        source=source,
        reading=["COCO's JSON", *others],
    )


def _objects(content: Mapping[str, Any], key: str, source: str) -> list[dict[str, Any]]:
    """A list of objects that have an id."""
    objects = content.get(key) or []
    if not isinstance(objects, list) or not all(
        isinstance(one, dict) and isinstance(one.get("id"), int | str) for one in objects
    ):
        raise DataError(f"{source}: {shown(key)} is no list of objects that each have an id")
    return objects


def _is_of(annotation: Mapping[str, Any], categories: set[Any]) -> bool:
    category = annotation.get("category_id")
    return isinstance(category, int | str) and category in categories


def _row(annotation: Any, frames: Mapping[Any, int], where: str) -> tuple[float, ...]:
    """Frame, left, top, width, height, track, confidence, class."""
    image = annotation.get("image_id") if isinstance(annotation, Mapping) else None
    if isinstance(image, int | str) and image not in frames:
        raise DataError(f"{where}: image_id {shown(image)} is that of no image whose frame is known")
    try:
        box = [float(value) for value in annotation["bbox"]]
        frame = frames[annotation["image_id"]]
        track = next((annotation[key] for key in _TRACK_KEYS if annotation.get(key) is not None), NO_TRACK)
        numbers = (
            int(track),
            float(annotation.get("score", 1)),
            int(annotation.get("category_id", NO_CLASS)),
        )
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{where}: no bbox, image_id, track or score that can be read ({shown(error)})"
        ) from None
    if len(box) != 4:
        raise DataError(f"{where}: bbox has {len(box)} numbers; expected left, top, width, height")
    return (frame, *box, *numbers)


def _frames_of(images: Sequence[Mapping[str, Any]], options: BoxesOptions, source: str) -> dict[Any, int]:
    """Frame by the id of the image: as ``frame_id`` says, from 0; else by the number in the file's name."""
    try:
        if all("frame_id" in image for image in images):
            return {image["id"]: int(image["frame_id"]) - (options.first_frame or 0) for image in images}
        numbers = {
            image["id"]: int(re.findall("[0-9]+", Path(image["file_name"]).stem)[-1]) for image in images
        }
    except (KeyError, IndexError, TypeError, ValueError):
        raise DataError(
            f"{source}: not every image has an id, and a frame_id or a file_name with the number of its frame"
        ) from None
    return _from_first(numbers, options)


def _by_number(results: Sequence[Mapping[str, Any]], options: BoxesOptions) -> dict[Any, int]:
    ids = {row.get("image_id") for row in results}
    return _from_first({key: key for key in ids if isinstance(key, int)}, options)


def _from_first(numbers: Mapping[Any, int], options: BoxesOptions) -> dict[Any, int]:
    """Counted from 0: numbers begin at 1 unless one is 0."""
    first = options.first_frame if options.first_frame is not None else int(0 not in numbers.values())
    return {key: number - first for key, number in numbers.items()}
