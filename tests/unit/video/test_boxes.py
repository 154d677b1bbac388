"""Boxes of all kinds of files mean the same boxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from reidkit.errors import ConfigError, DataError
from reidkit.video.boxes import (
    Boxes,
    BoxesOptions,
    boxes_from_detections,
    faults_of,
    given_options,
    load_boxes,
    make_boxes,
)

MOT = "1,7,10,20,30,40,0.9,-1,-1,-1\n3,8,5,5,10,20,0.5,-1,-1,-1\n3,7,12,20,30,40,0.8,-1,-1,-1\n"
CORNERS = [[10, 20, 40, 60], [5, 5, 15, 25], [12, 20, 42, 60]]


@dataclass
class Shape:
    """As much of a video as boxes need."""

    name: str = "door"
    width: int = 100
    height: int = 80


def load(path: Path, **options: object) -> Boxes:
    return load_boxes(path, Shape(), options=BoxesOptions(**options))  # type: ignore[arg-type]


def check(boxes: Boxes, *, confident: bool = True, tracked: bool = True) -> None:
    assert boxes.frames.tolist() == [0, 2, 2]
    np.testing.assert_allclose(boxes.corners, CORNERS, atol=1e-9)
    assert boxes.tracks.tolist() == ([7, 8, 7] if tracked else [-1, -1, -1])
    np.testing.assert_allclose(boxes.confidences, [0.9, 0.5, 0.8] if confident else [1, 1, 1])


def test_mot(tmp_path: Path) -> None:
    file = tmp_path / "det.txt"
    file.write_text(MOT)
    check(load(file))
    file.write_text(MOT.replace(",", " "))
    check(load(file))
    file.write_text("\n".join(line[: -len(",-1,-1,-1")] for line in MOT.split()))  # as detections have it
    check(load(file))
    assert load(file, first_frame=0).frames.tolist() == [1, 3, 3]


def test_mots_ground_truth_has_boxes_to_be_ignored_and_classes(tmp_path: Path) -> None:
    file = tmp_path / "gt.txt"
    file.write_text("1,7,10,20,30,40,1,1,0.5\n1,9,1,1,5,5,0,8,1\n2,8,5,5,10,20,1,7,1\n")
    boxes = load(file)
    assert (boxes.frames.tolist(), boxes.tracks.tolist()) == ([0, 1], [7, 8])
    assert (boxes.classes.tolist(), boxes.confidences.tolist()) == ([1, 7], [1, 1])
    assert "1 boxes marked as to be ignored left out" in boxes.reading
    assert load(file, classes=(7,)).tracks.tolist() == [8]
    with pytest.raises(ConfigError, match=r"no box of .* is of class 3; there are 1, 7"):
        load(file, classes=(3,))


def test_ultralytics(tmp_path: Path) -> None:
    def write(*columns: str) -> Path:
        folder = tmp_path / f"labels{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        lines = ["0 0.25 0.5 0.3 0.5", "0 0.1 0.1875 0.1 0.25", "0 0.27 0.5 0.3 0.5"]
        for number, line, more in zip((1, 3, 3), lines, columns, strict=True):
            with (folder / f"door_{number}.txt").open("a") as file:
                file.write(f"{line}{more}\n")
        return folder

    check(load(write(" 0.9 7", " 0.5 8", " 0.8 7")))
    check(load(write(" 7", " 8", " 7")), confident=False)
    check(load(write(" 0.9", " 0.5", " 0.8")), tracked=False)
    check(load(write("", "", "")), confident=False, tracked=False)
    with pytest.raises(DataError, match="outlines cannot be used"):
        load(write(" 0.1 0.2 0.3 0.4", "", ""))


def test_coco(tmp_path: Path) -> None:
    file = tmp_path / "boxes.json"
    rows = [
        {"image_id": image, "bbox": [x, y, w, h], "track_id": track, "score": score, "category_id": 1}
        for image, x, y, w, h, track, score in ((31, 10, 20, 30, 40, 7, 0.9), (33, 5, 5, 10, 20, 8, 0.5))
    ]
    rows += [{**rows[0], "image_id": 33, "bbox": [12, 20, 30, 40], "score": 0.8}]
    rows += [{**rows[0], "category_id": 3}]
    content = {
        "images": [{"id": 30 + n, "file_name": f"img/{n:06}.jpg"} for n in (1, 2, 3)],
        "annotations": rows,
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }
    file.write_text(json.dumps(content))
    check(load(file))
    assert "1 boxes of other categories than people left out" in load(file).reading
    for image in content["images"]:
        image |= {"frame_id": image["id"] - 31, "video_id": 5}  # type: ignore[operator]
    content["videos"] = [{"id": 5, "name": "door.mp4"}, {"id": 6, "name": "yard.mp4"}]
    content["images"] += [{"id": 99, "frame_id": 0, "video_id": 6}]  # type: ignore[operator]
    content["annotations"] += [{**rows[0], "image_id": 99}]  # type: ignore[operator]
    file.write_text(json.dumps(content))
    check(load(file))
    with pytest.raises(DataError, match=r"none is called 'hall'; there are door\.mp4, yard\.mp4"):
        load(file, video="hall")
    file.write_text(json.dumps([{**row, "image_id": row["image_id"] - 30} for row in rows[:3]]))
    check(load(file))
    file.write_text(json.dumps([{"image_id": 1, "bbox": [1, 2, 3]}]))
    with pytest.raises(DataError, match="annotation 0: bbox has 3 numbers"):
        load(file)
    file.write_text(json.dumps({"a": 1}))
    with pytest.raises(DataError, match="is no file of boxes"):
        load(file)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_supervision_in_memory_and_its_sinks(suffix: str, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    place = str(tmp_path / f"boxes{suffix}")
    xyxy = np.array(CORNERS, np.float32)
    scores, tracks = np.array([0.9, 0.5, 0.8]), np.array([7, 8, 7])
    frames = [
        sv.Detections(xyxy[rows], confidence=scores[rows], tracker_id=tracks[rows])
        for rows in ([0], [], [1, 2])
    ]
    frames[1] = sv.Detections.empty()
    check(boxes_from_detections(frames))
    with (sv.CSVSink if suffix == ".csv" else sv.JSONSink)(place) as sink:
        for number, detections in enumerate(frames):
            sink.append(detections, custom_data={"frame_index": number})
    check(load(Path(place)))


def test_a_table_with_columns_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text("nr;links;oben;w;h;who\n0;10;20;30;40;7\n2;5;5;10;20;8\n2;12;20;30;40;7\n")
    column = {"frame": "nr", "x": "links", "top": "oben", "track": "who"}
    check(load(file, column=column), confident=False)
    with pytest.raises(DataError, match=r"no column 'frame'; name it by --column frame=NAME"):
        load(file)
    with pytest.raises(ConfigError, match=r"column has no key 'lefft'; did you mean 'left'"):
        load(file, column={"lefft": "links"})
    with pytest.raises(ConfigError, match=r"no column 'linkss'.* did you mean 'links'"):
        load(file, column={**column, "x": "linkss"})
    file.write_text(file.read_text().replace("2;5;5", "2;five;5"))
    with pytest.raises(DataError, match="column links: no numbers: row 3: 'five'"):
        load(file, column=column)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"frame": [0, 2, 2], "track": [7, 8, 7], "confidence": [0.9, 0.5, 0.8]}
    columns |= dict(zip(("x_min", "y_min", "x_max", "y_max"), np.array(CORNERS).T.tolist(), strict=True))
    parquet.write_table(pyarrow.table(columns), tmp_path / "boxes.parquet")
    check(load(tmp_path / "boxes.parquet"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n", "has 3 columns; expected MOT's"),
        ("1,7,10,20,30,40,1\n1,7,10,x,30,40,1\n", "row 2: 'x' is no number"),
        ("1,7,10,20,30,40,1\n1,7,10\n", "row 2: 3 numbers, but 7 in the first row"),
        ("1.5,7,10,20,30,40,1\n", "frame 1.5 is not a whole number"),
        ("0,7,10,20,30,40,1\n", "a frame is 1 before the first one"),
        ("nan,7,10,20,30,40,1\n", "frame nan is not a whole number"),
    ],
)
def test_bad_text_is_told(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "frame,x,y,w,h\n99999999999999999999,1,1,5,5\n",
            "column frame: 1e.20 is not a whole number",
        ),
        ("a.csv", "frame,x,y,w,h\ninf,1,1,5,5\n", "column frame: inf is not a whole number"),
        ("a.csv", "frame,x,y,w,h,class\n1,1,1,5,5,9e99\n", "class 9e.99 is not a whole number"),
        ("a.json", '{"videos": [{"id": {}}], "annotations": []}', "'videos' is no list of objects"),
        ("a.json", '{"annotations": [3]}', "not every annotation is an object"),
    ],
)
def test_odd_numbers_and_objects_are_told(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


def test_other_files_are_no_boxes(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(DataError, match="is no file of boxes; expected"):
        load(tmp_path / "a.xyz")
    with pytest.raises(DataError, match="missing"):
        load(tmp_path / "none.txt")
    (tmp_path / "a.txt").write_text("")
    assert len(load(tmp_path / "a.txt")) == 0


def test_options_that_one_typed() -> None:
    typed = given_options({"column": {"x": "left"}, "first_frame": 0, "classes": [1, 2]})
    assert typed == BoxesOptions(column={"x": "left"}, first_frame=0, classes=(1, 2))
    with pytest.raises(ConfigError, match="first_frame"):
        given_options({"first_frame": "zero"})


def test_faults_are_found() -> None:
    nan = float("nan")
    corners = [
        [0, 0, 9, 9],
        [nan, 0, 9, 9],
        [9, 0, 3, 9],
        [-9, 0, 0, 9],
        [100, 0, 120, 9],
        [-5, -5, 900, 900],
    ]
    boxes = make_boxes(np.zeros(6), corners, confidences=[1, 1, 1, 1, 1, 1])
    assert faults_of(boxes, width=100, height=80).tolist() == [0, 1, 2, 3, 3, 0]


def test_boxes_come_by_frame() -> None:
    boxes = make_boxes([4, 0, 4], np.arange(12), tracks=[1, 2, 3])
    assert [(frame, boxes.tracks[rows].tolist()) for frame, rows in boxes.by_frame()] == [
        (0, [2]),
        (4, [1, 3]),
    ]
    assert list(make_boxes([], []).by_frame()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ";").replace(".", ","),  # as spreadsheets write decimal fractions
        lambda text: text.replace("\n", ",\n"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: text.replace(",", ", "),
    ],
)
def test_mots_text_in_other_hands(change: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(change(MOT), newline="")
    check(load(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "frame,id,x,y,w,h\n" + MOT, r"call the file \.csv"),
        ("a.txt", "1,7,10,20,30,40,0.9,-1,-1,-1,5\n", "has 11 columns"),
        ("a.txt", "1,7,0.1,0.2,0.3,0.4,0.9\n", "seem to be shares of the picture"),
        ("a.csv", "frame,x,y,w,h\n0,0.1,0.2,0.3,0.4\n", "seem to be shares of the picture"),
        ("a.csv", "frame,x,x,y,w,h\n0,1,2,3,40,50\n", "two columns 'x'"),
        ("a.csv", MOT, r"call it \.txt"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


def test_of_two_columns_the_one_that_says_more_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("frame,id,track_id,x,y,w,h\n0,1,7,10,20,30,40\n2,2,8,5,5,10,20\n")
    assert load(tmp_path / "a.csv").tracks.tolist() == [7, 8]


def test_confidences_that_are_not_known_are_1(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,-1,10,20,30,40,-1,-1,-1,-1\n")
    assert load(tmp_path / "a.txt").confidences.tolist() == [1]


def test_several_classes_are_told(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "a.csv").write_text("frame,x,y,w,h,class\n0,10,20,30,40,0\n2,5,5,10,20,2\n")
    load(tmp_path / "a.csv")
    assert "boxes of all classes are taken, 0, 2" in told[-1]
    load(tmp_path / "a.csv", classes=(0,))
    assert len(told) == 1


def test_ultralytics_text_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "a_1.txt").write_text("0 48 48 16 36 0.9\n")
    with pytest.raises(DataError, match=r"48\.0 is no share of the picture"):
        load(tmp_path)
    for name in ("a_1.txt", "b_1.txt"):
        (tmp_path / name).write_text("0 0.3 0.4 0.1 0.3 0.9\n")
    with pytest.raises(DataError, match=r"two files of frame 1, a_1\.txt and b_1\.txt"):
        load(tmp_path)


def coco(**changes: object) -> str:
    """A box of a person in one picture."""
    image = {"id": 5, "file_name": "a_000001.jpg", "width": 100, "height": 80}
    box = {"image_id": 5, "category_id": 3, "bbox": [10, 20, 30, 40]}
    held = {"images": [image], "annotations": [box], "categories": [{"id": 3, "name": "person"}]}
    return json.dumps(held | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 3, "name": "dog"}]}, "no category called person; .* 3 dog"),
        (
            {"images": [{"id": 5, "file_name": "1.jpg", "width": 50, "height": 40}]},
            "50 x 40 pixels, the video",
        ),
        ({"images": [{"id": 5, "file_name": "1.jpg"}] * 2}, "1 images have the id of another"),
        (
            {"annotations": [{"image_id": 6, "bbox": [1, 2, 30, 40], "category_id": 3}]},
            "image_id 6 is that of no",
        ),
    ],
)
def test_cocos_json_that_does_not_fit(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(coco())
    assert len(load(tmp_path / "a.json")) == 1
    (tmp_path / "a.json").write_text(coco(**changes))
    with pytest.raises(DataError, match=message):
        load(tmp_path / "a.json")


def test_crowds_are_no_people(tmp_path: Path) -> None:
    crowd = {"image_id": 5, "category_id": 3, "bbox": [1, 2, 60, 40], "iscrowd": 1}
    (tmp_path / "a.json").write_text(coco(annotations=[crowd]))
    boxes = load(tmp_path / "a.json")
    assert len(boxes) == 0
    assert "1 boxes around crowds left out" in boxes.reading


def test_a_long_file_that_is_no_text_of_numbers_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("nothing, but words\n" * 10_000)
    monkeypatch.setattr("reidkit.video.box_texts.read_text", None)
    with pytest.raises(DataError, match="begins with 'nothing, but words', no numbers"):
        load(tmp_path / "a.txt")
