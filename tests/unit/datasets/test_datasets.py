"""Loading data sets by name: the validation part, one's own folders, tables."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reidkit.datasets import load_dataset
from reidkit.datasets.folder import folder
from reidkit.datasets.table import table
from reidkit.errors import ConfigError, DataError, MissingExtra, UnknownName
from reidkit.types import Dataset

Labels = list[tuple[str, int, int]]


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_table(root: Path, text: str, name: str = "samples.csv") -> Path:
    """A table whose images exist, except those called gone."""
    write(root, "a.jpg", "b.jpg", "sub/c.jpg")
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def labels(data: Dataset, split: str = "train") -> Labels:
    return [
        (s.path.relative_to(data.root).as_posix(), s.identity, s.camera) for s in data.splits.get(split, ())
    ]


def market(root: Path, *, num_identities: int = 6, num_one_camera: int = 2) -> Path:
    """Identities 1..n with three images; the last ones are seen by one camera only."""
    for identity in range(1, num_identities + 1):
        cameras = (1, 1, 1) if identity > num_identities - num_one_camera else (1, 2, 2)
        for frame, camera in enumerate(cameras):
            write(root, f"bounding_box_train/{identity:04}_c{camera}s1_{frame:06}_00.jpg")
    return write(root, "query/0099_c1s1_000001_00.jpg", "bounding_box_test/0099_c2s1_000001_00.jpg")


# load_dataset


def test_a_missing_root_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone does not exist .*; unpack the data set there"):
        load_dataset("market1501", tmp_path / "gone")


def test_misspelt_names_and_options_are_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'market1501'"):
        load_dataset("market1510", tmp_path / "gone")
    with pytest.raises(ConfigError, match="no option 'patern'; did you mean 'pattern'"):
        load_dataset("folder", tmp_path, patern="x")


def test_home_and_text_paths_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(market(tmp_path)))
    assert load_dataset("market1501", "~").root == tmp_path


def test_junk_leaves_the_training_part_and_is_listed(tmp_path: Path) -> None:
    market(tmp_path)
    write(tmp_path, "bounding_box_train/-1_c1s1_000001_00.jpg")
    data = load_dataset("market1501", tmp_path)
    assert {sample.identity for sample in data.train} == set(range(1, 7))
    assert [sample.index for sample in data.train] == list(range(18))
    assert data.skipped == (tmp_path / "bounding_box_train/-1_c1s1_000001_00.jpg",)


def test_validation_holds_out_whole_identities_with_two_cameras(tmp_path: Path) -> None:
    data = load_dataset("market1501", market(tmp_path), val_identities=3)
    everything = load_dataset("market1501", tmp_path)
    held_out = {sample.identity for sample in data.val}
    assert len(held_out) == 3
    assert held_out <= {1, 2, 3, 4}
    assert held_out.isdisjoint(sample.identity for sample in data.train)
    assert data.num_identities == 3
    for split in (data.train, data.val):
        assert [sample.index for sample in split] == list(range(len(split)))
        assert [sample.path for sample in split] == sorted(sample.path for sample in split)
    assert {s.path for s in data.train + data.val} == {s.path for s in everything.train}
    assert data.query == everything.query


def test_the_draw_depends_on_the_seed_alone(tmp_path: Path) -> None:
    market(tmp_path)

    def held_out(seed: int) -> frozenset[int]:
        data = load_dataset("market1501", tmp_path, val_identities=2, seed=seed)
        return frozenset(sample.identity for sample in data.val)

    assert held_out(1) == held_out(1)
    assert len({held_out(seed) for seed in range(20)}) > 3


def test_too_many_validation_identities_are_refused_with_the_numbers(tmp_path: Path) -> None:
    market(tmp_path)
    assert load_dataset("market1501", tmp_path, val_identities=4).num_identities == 2
    with pytest.raises(ConfigError, match=r"= 5 is outside 0..4: of 6 training identities 4 are seen by two"):
        load_dataset("market1501", tmp_path, val_identities=5)
    with pytest.raises(ConfigError, match="= -1 is outside"):
        load_dataset("market1501", tmp_path, val_identities=-1)


def test_two_identities_stay_to_train_on(tmp_path: Path) -> None:
    market(tmp_path, num_one_camera=0)
    with pytest.raises(ConfigError, match=r"= 5 is outside 0..4: .* 6 are seen .* two must stay"):
        load_dataset("market1501", tmp_path, val_identities=5)


def test_without_cameras_two_images_make_a_match(tmp_path: Path) -> None:
    write(tmp_path, "anna/1.jpg", "anna/2.jpg", "ben/1.jpg", "cleo/1.jpg")
    data = load_dataset("folder", tmp_path, val_identities=1)
    assert [sample.identity_name for sample in data.val] == ["anna", "anna"]
    with pytest.raises(ConfigError, match="of 3 training identities 1 are with two or more images"):
        load_dataset("folder", tmp_path, val_identities=2)


def test_a_layout_with_its_own_validation_part_needs_no_other(tmp_path: Path) -> None:
    write(tmp_path, *(f"{part}/{n}/{i}.jpg" for part in ("train", "val") for n in range(4) for i in range(2)))
    assert len(load_dataset("folder", tmp_path).val) == 8
    with pytest.raises(ConfigError, match="brings its own validation part of 8 images"):
        load_dataset("folder", tmp_path, val_identities=1)


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ("folder", {"pattern": {}}, "dataset 'folder': pattern is {}; expected a text or none"),
        ("folder", {"pattern": ["{identity}"]}, "pattern is ['{identity}']; expected a text or none"),
        ("folder", {"parts": True}, "parts is True; expected a text"),
        ("viper", {"split": "first"}, "dataset 'viper': split is 'first'; expected a whole number"),
        ("viper", {"split": True}, "split is True; expected a whole number"),
        ("market1501", {"distractors": "yes"}, "distractors is 'yes'; expected true or false"),
        ("folder", {"val_identities": "2"}, "val_identities = '2' is not a whole number"),
        ("folder", {"seed": 0.5}, "seed = 0.5 is not a whole number"),
        ("folder", {"corrupt_labels": []}, "corrupt_labels = [] is not a number"),
    ],
)
def test_options_of_another_type_are_refused(
    tmp_path: Path, layout: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_dataset(layout, tmp_path, **options)


# folder


def test_identity_folders(tmp_path: Path) -> None:
    write(tmp_path, "ben/1.jpg", "anna/2.PNG", "anna/deep/1.jpg", "stray.jpg", "anna/notes.txt")
    data = folder(tmp_path)
    assert labels(data) == [("anna/2.PNG", 1, None), ("anna/deep/1.jpg", 1, None), ("ben/1.jpg", 2, None)]
    assert [sample.identity_name for sample in data.train] == ["anna", "anna", "ben"]
    assert not data.has_cameras
    assert [path.name for path in data.skipped] == ["notes.txt", "stray.jpg"]
    assert data.splits.keys() == {"train"}


def test_split_folders_share_their_labels(tmp_path: Path) -> None:
    write(
        tmp_path, "train/ben/1.jpg", "val/cleo/1.jpg", "query/anna/1.jpg", "test/anna/2.jpg", "other/x/1.jpg"
    )
    data = folder(tmp_path, parts="named")
    assert labels(data) == [("train/ben/1.jpg", 2, None)]
    assert labels(data, "val") == [("val/cleo/1.jpg", 3, None)]
    assert labels(data, "query") == [("query/anna/1.jpg", 1, None)]
    assert labels(data, "gallery") == [("test/anna/2.jpg", 1, None)]
    assert data.skipped == (tmp_path / "other/x/1.jpg",)
    write(tmp_path, "gallery/anna/3.jpg")
    with pytest.raises(DataError, match="folders gallery and test, which mean the same"):
        folder(tmp_path)


@pytest.mark.parametrize(
    ("train", "query", "gallery"),
    [
        ("Train", "Query", "Test"),
        ("TRAIN", "QUERIES", "GALLERY"),
        ("training", "probe", "testing"),
        ("train_set", "query_set", "gallery_set"),
        ("TrainImages", "image_query", "Test-Data"),
        ("bounding_box_train", "query", "bounding_box_test"),
    ],
)
def test_parts_by_other_names(tmp_path: Path, train: str, query: str, gallery: str) -> None:
    write(tmp_path, f"{train}/ben/1.jpg", f"{query}/anna/1.jpg", f"{gallery}/anna/2.jpg", "readme/a.txt")
    data = folder(tmp_path)
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 1, "query": 1, "gallery": 1}
    assert data.reading[0] == (
        f"parts: folder {train} is train, folder {query} is query, folder {gallery} is gallery"
    )


def test_names_that_only_resemble_parts_are_identities(tmp_path: Path) -> None:
    write(tmp_path, "Valerie/1.jpg", "Tess/1.jpg", "trainer/1.jpg", "query1/1.jpg")
    data = folder(tmp_path)
    assert len(data.train) == data.num_identities == 4
    assert data.reading[0] == "parts: none, all images are train"


@pytest.mark.parametrize(
    "names",
    [
        *(("01_train", "02_test"), ("my_train", "my_val", "my_test"), ("train-1", "Test-1"), ("tr", "te")),
        *(("train2024", "eval2024"), ("photosTrain", "photosTest"), ("dev", "eval", "readme")),
    ],
)
def test_folders_called_much_as_parts_are_asked_for(tmp_path: Path, names: tuple[str, ...]) -> None:
    write(tmp_path, *(f"{name}/anna/1.jpg" for name in names))
    with pytest.raises(DataError, match=r'called much as parts of a data set are; rename .*parts="none"'):
        folder(tmp_path)
    assert folder(tmp_path, parts="none").num_identities == len(names)


def test_files_called_as_parts_are_images_of_a_pattern(tmp_path: Path) -> None:
    write(tmp_path, "anna_train.jpg", "anna_test.jpg")
    assert len(folder(tmp_path, pattern="{identity}_*.jpg").train) == 2


def test_identities_called_as_parts_are_told_how_to_be_read(tmp_path: Path) -> None:
    write(tmp_path, "Val/1.jpg", "Test/1.jpg")
    with pytest.raises(DataError, match=r'or give parts="none" if Val, Test are identities'):
        folder(tmp_path)
    assert folder(tmp_path, parts="none").num_identities == 2


def test_parts_beside_identities_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "anna/1.jpg", "ben/1.jpg", "Val/1.jpg")
    with pytest.raises(
        DataError, match=r'has Val, called .* beside anna, ben; give parts="none" if .*"named"'
    ):
        folder(tmp_path)
    assert folder(tmp_path, parts="none").num_identities == 3
    with pytest.raises(ConfigError, match=r"parts = 'no' is unknown; .*'auto', 'named', 'none'"):
        folder(tmp_path, parts="no")


def test_images_beside_parts_are_asked_for_where_a_pattern_could_read_them(tmp_path: Path) -> None:
    write(tmp_path, "train/anna_1.jpg", "ben_1.jpg")
    with pytest.raises(DataError, match=r"has train, called .* beside ben_1\.jpg; give"):
        folder(tmp_path, pattern="{identity}_*.jpg")
    assert [s.identity_name for s in folder(tmp_path, pattern="{identity}_*.jpg", parts="named").train] == [
        "anna"
    ]
    assert [path.name for path in folder(tmp_path, parts="none").skipped] == ["ben_1.jpg"]


def test_two_folders_for_one_part_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "Train/anna/1.jpg", "training/ben/1.jpg")
    with pytest.raises(
        DataError, match=r'folders Train and training, which mean the same, train; .*parts="none"'
    ):
        folder(tmp_path)


def test_a_folder_without_a_name_is_no_identity(tmp_path: Path) -> None:
    write(tmp_path, " /1.jpg", "anna/1.jpg")
    data = folder(tmp_path)
    assert (len(data.train), len(data.skipped)) == (1, 1)


def test_numbers_of_more_than_64_bits_are_refused_where_they_must_be_numbers(tmp_path: Path) -> None:
    write(tmp_path, f"anna_{'9' * 30}.jpg")
    with pytest.raises(DataError, match=r"frame 9{30}... has 30 digits; numbers have up to 18"):
        load_dataset("folder", tmp_path, pattern="{identity}_{frame}.jpg")
    data = load_dataset("folder", tmp_path, pattern="anna_{identity}.jpg")
    assert (data.train[0].identity, data.train[0].identity_name) == (1, "9" * 30)
    write(market(tmp_path / "m"), f"bounding_box_train/{'9' * 30}_c1s1_000001_00.jpg")
    with pytest.raises(DataError, match=r"identity 9{30}... has 30 digits"):
        load_dataset("market1501", tmp_path / "m")


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("{identity}_c{camera}_{frame}.jpg", "0007_c3_000451.jpg", (7, 3, 451, None, None)),
        ("{identity}_c{camera}_{frame}.jpg", "john_carter_c2_5.jpg", (1, 2, 5, None, None)),
        ("{identity}/cam{camera}/{frame}.jpg", "12/cam4/9.jpg", (12, 4, 9, None, None)),
        ("{identity}-{tracklet}-{time}.*", "12-3-4.5.jpeg", (12, None, None, 3, 4.5)),
        ("{identity}/{identity}_{frame}.*", "5/5_1.PNG", (5, None, 1, None, None)),
        ("{identity}_c{camera}s{tracklet}_{frame}_*.jpg", "0002_c1s1_000451_03.jpg", (2, 1, 451, 1, None)),
        ("a+(b) {identity}.jpg", "a+(b) -1.jpg", (-1, None, None, None, None)),
    ],
)
def test_patterns_read_fields(tmp_path: Path, pattern: str, name: str, expected: tuple[object, ...]) -> None:
    data = folder(write(tmp_path, name), pattern=pattern)
    (sample,) = data.train
    assert (sample.identity, sample.camera, sample.frame, sample.tracklet, sample.time) == expected
    assert data.has_cameras == ("{camera}" in pattern)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{identity}_{frame}.jpg", "anna_1.JPG"),
        ("{identity}_{frame}.jpg", "anna_1.jpg.jpg"),
        ("{identity}_{frame}.jpg", "sub/anna_1.jpg"),
        ("{identity}_{frame}.jpg", "anna_one.jpg"),
        ("{identity}/{identity}_{frame}.jpg", "anna/ben_1.jpg"),
        ("{identity}_*.jpg", "anna_1/2.jpg"),
        ("{identity}.*", "anna.txt"),
    ],
)
def test_names_off_the_pattern_are_skipped(tmp_path: Path, pattern: str, name: str) -> None:
    fitting = "ben/ben_1.jpg" if "/" in pattern else "ben_1.jpg"
    data = folder(write(tmp_path, name, fitting), pattern=pattern)
    assert [sample.path for sample in data.train] == [tmp_path / fitting]
    assert data.skipped == (tmp_path / name,)


def test_text_cameras_count_from_one_and_splits_are_cut_off_the_path(tmp_path: Path) -> None:
    write(tmp_path, "query/anna_door.jpg", "gallery/anna_lobby.jpg")
    data = folder(tmp_path, pattern="{identity}_{camera}.jpg")
    assert labels(data, "query") == [("query/anna_door.jpg", 1, 1)]
    assert labels(data, "gallery") == [("gallery/anna_lobby.jpg", 1, 2)]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "{identity}_c{camara}.jpg",
            "unknown field {camara}; did you mean 'camera'? Fields: identity, camera",
        ),
        ("c{camera}.jpg", "has no {identity}"),
        ("{identity}_{camera.jpg", "brace without its other half"),
        ("identity}.jpg", "brace without its other half"),
    ],
)
def test_bad_patterns_are_configuration_errors(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        folder(tmp_path, pattern=pattern)
    assert message in str(caught.value)


def test_all_faults_of_a_pattern_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        folder(tmp_path, pattern="{person}_{cam}_}.jpg")
    assert len(caught.value.problems) == 3


def test_folders_without_a_labelled_image_say_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images at any depth; image suffixes are"):
        folder(tmp_path)
    write(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(
        DataError, match=r"no identity folders with images: its 2 .* \(the first is 1.jpg\); give"
    ):
        folder(tmp_path)
    with pytest.raises(
        DataError, match=r"none of the 2 images in .* fits the pattern .*; the first is 1\.jpg"
    ):
        folder(tmp_path, pattern="{identity}/{frame}.jpg")
    with pytest.raises(DataError, match=r"1\.jpg is a file, not a folder; expected a folder of images"):
        folder(tmp_path / "1.jpg")


# table

FULL = """path,identity,camera,split,tracklet,time,frame
b.jpg,7,2,train,3,1.5,10
a.jpg,7.0,1,train,,,
sub/c.jpg,8,1,test,,,
"""


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_of_every_kind(tmp_path: Path, separator: str, mark: str, newline: str) -> None:
    text = mark + FULL.replace(",", separator).replace("\n", newline)
    write_table(tmp_path, "")
    (tmp_path / "samples.csv").write_bytes(text.encode())
    data = table(tmp_path / "samples.csv")
    assert labels(data) == [("a.jpg", 7, 1), ("b.jpg", 7, 2)]
    assert labels(data, "gallery") == [("sub/c.jpg", 8, 1)]
    second = data.train[1]
    assert (second.tracklet, second.time, second.frame, second.identity_name) == (3, 1.5, 10, None)
    assert (data.train[0].tracklet, data.train[0].time, data.train[0].frame) == (None, None, None)
    assert data.has_cameras


def test_a_parquet_table_reads_like_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    write_table(tmp_path, FULL)
    columns = {
        "path": ["b.jpg", "a.jpg", "sub/c.jpg"],
        "identity": [7, 7, 8],
        "camera": [2, 1, 1],
        "split": ["train", "train", "test"],
        "tracklet": [3.0, float("nan"), None],
        "time": [1.5, None, None],
        "frame": [10, None, None],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "samples.parquet")
    as_csv = table(tmp_path / "samples.csv")
    assert as_csv.reading == ("identities: numbers, written as floats", "cameras: numbers")
    assert table(tmp_path / "samples.parquet") == replace(
        as_csv, reading=("identities: numbers", "cameras: numbers")
    )
    (tmp_path / "samples.parquet").write_bytes((tmp_path / "samples.parquet").read_bytes()[:-50])
    with pytest.raises(DataError, match=r"samples\.parquet cannot be read as Parquet"):
        table(tmp_path / "samples.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").touch()
    with pytest.raises(MissingExtra, match=r'pip install "reidkit\[data\]"'):
        table(tmp_path)


def test_the_smallest_table_is_all_training_without_cameras(tmp_path: Path) -> None:
    data = table(write_table(tmp_path, 'Path,Identity,remark\na.jpg,"Smith, Anna",x\n\nb.jpg,ben,\n').parent)
    assert labels(data) == [("a.jpg", 1, None), ("b.jpg", 2, None)]
    assert [sample.identity_name for sample in data.train] == ["Smith, Anna", "ben"]
    assert not data.has_cameras


def test_times_of_several_zones_are_one_clock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ["a.jpg,1,2024-05-01T12:00+02:00", "b.jpg,1,2024-05-01T10:00Z", "a.jpg,1,2024-05-01T05:00-05:00"]
    header = "path,identity,time\n"
    data = table(write_table(tmp_path, header + "\n".join(rows)))
    assert {sample.time for sample in data.train} == {1_714_557_600.0}
    assert not any("times" in sentence for sentence in data.reading)
    data = table(write_table(tmp_path, header + "a.jpg,1,2024-05-01T10:00\nb.jpg,1,2024-05-01\na.jpg,1,12.5"))
    assert data.reading[0] == "times: as UTC, since they have no offset such as +02:00"
    assert not caplog.records
    data = table(write_table(tmp_path, header + "\n".join([*rows, "b.jpg,2,2024-05-01T10:00"])))
    assert data.reading[0] == "times: 1 of 4 have no offset, unlike the others, and are read as UTC"
    assert "1 of 4 have no offset" in caplog.text


def test_numbers_with_leading_zeros_are_cameras_like_others(tmp_path: Path) -> None:
    rows = [f"{'ab'[n % 2]}.jpg,1,{n:02}" for n in range(1, 30)]
    data = table(write_table(tmp_path, "\n".join(["path,identity,camera", *rows])))
    assert {sample.camera for sample in data.train} == set(range(1, 30))


def test_a_column_is_read_as_one_thing(tmp_path: Path) -> None:
    path = write_table(tmp_path, "path,who,camera\na.jpg,1,2\n")
    with pytest.raises(ConfigError, match=r"identity and camera are both 'who', by column\.KEY=NAME"):
        table(path, column={"identity": "who", "camera": "Who"})
    with pytest.raises(ConfigError, match="identity and camera are both 'camera'"):
        table(path, column={"identity": "camera"})


def test_an_empty_camera_column_means_no_cameras(tmp_path: Path) -> None:
    data = table(write_table(tmp_path, "path,identity,camera\na.jpg,1,\nb.jpg,2,\n"))
    assert not data.has_cameras


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,identty", "has no column 'identity'; did you mean 'identty'? Columns found: path, identty"),
        ("path,pid", "has no column 'identity'; rename 'pid', or give column.identity=pid? Columns found"),
        ("identity", "has no column 'path'; Columns found: identity"),
        ("path,identity,camid", "has a column 'camid' and none called 'camera'; rename it 'camera'"),
        ("path,identity,camera,Camera", "has the column 'camera' twice"),
        ("", "has no column 'path'; Columns found: none"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, header: str, message: str) -> None:
    path = write_table(tmp_path, header)
    with pytest.raises(DataError) as caught:
        table(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (",1,1,train,1", "path is empty"),
        ("a.jpg,,1,train,1", "identity is empty"),
        ("gone.jpg,1,1,train,1", "there is no file"),
        ("a.jpg,1,1,trian,1", "unknown split 'trian'; did you mean 'train'? Splits: train, val, query"),
        ("a.jpg,1,1,,1", "unknown split ''"),
        ("a.jpg,1,x,train,1", "camera 'x' is not an integer, as the others are"),
        ("a.jpg,1,,train,1", "camera is empty"),
        ("a.jpg,1,1,train,later", "time 'later' is not a number of seconds"),
        ("a.jpg,1,1,train,nan", "time 'nan' is not a number of seconds"),
        ("a.jpg,1,1", "3 cells under 5 columns"),
        ("a.jpg,1,1,train,1,9", "6 cells under 5 columns"),
    ],
)
def test_each_bad_row_is_told_with_its_number(tmp_path: Path, row: str, problem: str) -> None:
    good = "a.jpg,1,1,train,1\n"
    path = write_table(tmp_path, f"path,identity,camera,split,time\n{good}\n{row}\n{good}")
    with pytest.raises(DataError) as caught:
        table(path)
    assert f"{path} has bad rows, 1 in all (the header is row 1): row 4: {problem}" in str(caught.value)


def test_five_bad_rows_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    path = write_table(tmp_path, "path,identity,frame\n" + "a.jpg,1,2\n" * 3 + "a.jpg,1,x\n" * 8)
    with pytest.raises(DataError) as caught:
        table(path)
    message = str(caught.value)
    assert "has bad rows, 8 in all" in message
    assert message.count("is not an integer") == 5
    assert "row 9: " in message
    assert "row 10: " not in message
    assert "and 3 more problems" in message


def test_text_cameras_are_cameras_unless_most_are_numbers(tmp_path: Path) -> None:
    data = table(write_table(tmp_path, "path,identity,camera\na.jpg,1,door\nb.jpg,2,hall\nsub/c.jpg,3,7\n"))
    assert [sample.camera for sample in data.train] == [2, 3, 1]


def test_tables_that_cannot_be_found_or_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.csv does not exist; expected a table"):
        table(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"must hold exactly one table .*, found none"):
        table(tmp_path)
    write_table(tmp_path, "path,identity\n", "a.csv")
    with pytest.raises(DataError, match="has a header and no rows"):
        table(tmp_path)
    write_table(tmp_path, "", "b.tsv")
    with pytest.raises(DataError, match=r"found a\.csv, b\.tsv; give the file as root"):
        table(tmp_path)
    (tmp_path / "b.tsv").write_text("path,identity\nMüller.jpg,1\n", encoding="latin-1")
    with pytest.raises(
        DataError,
        match=r"b\.tsv is not UTF-8 text: byte 0xfc in line 2; in Windows-1252 it would read 'Mül",
    ):
        table(tmp_path / "b.tsv")


def test_identities_keep_their_images_together_whatever_the_layout(tmp_path: Path) -> None:
    """The same four images by folder, by pattern and by table."""
    names = ["anna/c1_1.jpg", "anna/c2_2.jpg", "ben/c1_3.jpg", "ben/c2_4.jpg"]
    write(tmp_path, *names)
    rows = [f"{name},{name.split('/')[0]},{name[-7]}" for name in names]
    (tmp_path / "t.csv").write_text("path,identity,camera\n" + "\n".join(rows))
    by_pattern = folder(tmp_path, pattern="{identity}/c{camera}_{frame}.jpg")
    by_table = table(tmp_path)
    assert labels(by_pattern) == labels(by_table)
    groups = defaultdict(list)
    for name, identity, _ in labels(folder(tmp_path)):
        groups[identity].append(name)
    assert dict(groups) == {1: names[:2], 2: names[2:]}


@pytest.mark.parametrize(("name", "root"), [(None, "."), (3, "."), ("folder", None), ("folder", 3)])
def test_names_and_places_of_another_type_are_refused(name: object, root: object) -> None:
    with pytest.raises(ConfigError, match=r"the name of a data set is|root is"):
        load_dataset(name, root)  # type: ignore[arg-type]
