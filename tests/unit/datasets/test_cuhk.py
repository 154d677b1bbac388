"""CUHK01, CUHK03 and CUHK-SYSU: protocols, pixels and boxes, damaged releases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.datasets._matlab import load_variable
from reidkit.datasets.cuhk01 import cuhk01
from reidkit.datasets.cuhk03 import cuhk03, new_protocol_samples
from reidkit.datasets.cuhksysu import cuhksysu
from reidkit.errors import ConfigError, DataError
from reidkit.files import WriteError
from reidkit.types import Sample, Split
from tests import dataset_writers as writers


def persons(split: Split) -> list[int]:
    return sorted({sample.identity for sample in split})


def labels(split: Split) -> list[tuple[str, int, int]]:
    return [(sample.path.name, sample.identity, sample.camera) for sample in split]


# CUHK01


@pytest.mark.parametrize("num_test", [100, 486])
def test_cuhk01_at_its_true_size(tmp_path: Path, num_test: int) -> None:
    writers.touch(tmp_path, *(f"campus/{i:04}{n:03}.png" for i in range(1, 972) for n in range(1, 5)))
    data = cuhk01(tmp_path, num_test=num_test, split=9)
    for part, counts in data.published.items():
        split = data.splits[part]
        assert (len(split), len(persons(split))) == (counts["images"], counts["identities"])
    assert {sample.camera for sample in data.query} == {1}
    assert {sample.camera for sample in data.gallery} == {2}


def test_cuhk01_shots(tmp_path: Path) -> None:
    writers.cuhk01(tmp_path)
    single, multi = cuhk01(tmp_path), cuhk01(tmp_path, shots="multi")
    assert single.protocol == "single_gallery_shot"
    assert multi.protocol == "tracklets"
    assert labels(single.gallery) == labels(multi.gallery)
    assert len({s.tracklet for s in multi.gallery}) == 100
    assert len({s.tracklet for s in multi.query}) == 200
    with pytest.raises(DataError, match="486 test identities are to be drawn from only 102"):
        cuhk01(tmp_path, num_test=486)
    with pytest.raises(ConfigError, match=r"num_test = 200 is unknown; allowed are 100, 486"):
        cuhk01(tmp_path, num_test=200)


# CUHK03


def test_cuhk03_new_protocol_and_pixels(tmp_path: Path) -> None:
    writers.cuhk03(tmp_path)
    data = cuhk03(tmp_path, boxes="labeled")
    assert persons(data.train) == list(range(1, 13))
    assert persons(data.query) == list(range(13, 31))
    assert labels(data.query)[0] == ("1_013_1_01.png", 13, 1)
    assert ("2_010_2_06.png", 30, 2) in labels(data.gallery)
    assert data.protocol == "market1501"
    for sample in data.train + data.query + data.gallery:
        pair, person, _, cell = (int(text) for text in sample.path.stem.split("_"))
        assert (np.asarray(Image.open(sample.path)) == writers.cuhk03_pixels(pair, person, cell)).all()


def test_cuhk03_classic_splits(tmp_path: Path) -> None:
    writers.cuhk03(tmp_path)
    for split in (0, 19):
        for boxes in ("labeled", "detected"):
            data = cuhk03(tmp_path, protocol="classic", boxes=boxes, split=split)
            assert persons(data.query) == [split + 1, 21]  # person 1 of pair 2 comes after the 20 of pair 1
            assert data.num_identities == 28
            assert data.query == data.gallery
            assert {sample.camera for sample in data.query} == {1, 2}
    assert data.camera_filter == "other_cameras"


def test_cuhk03_is_unpacked_once_and_says_where(tmp_path: Path, told: list[str]) -> None:
    writers.cuhk03(tmp_path)
    cache = tmp_path / "elsewhere"
    first = cuhk03(tmp_path, cache=str(cache))
    assert f"into {cache / 'labeled'}, once" in told[0]
    written = {path: path.stat().st_mtime_ns for path in cache.rglob("*.png")}
    assert cuhk03(tmp_path, cache=str(cache)) == first
    assert len(told) == 1
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.png")} == written
    assert {sample.path.parent for sample in first.train} == {cache / "labeled"}
    assert [path.name for path in (tmp_path / "cuhk03_release").iterdir()] == ["cuhk-03.mat"]


def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers.cuhk03(tmp_path)
    saved = 0

    def full_disk(*args: object, **options: object) -> None:
        nonlocal saved
        saved += 1
        if saved > 5:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full_disk)
        with pytest.raises(WriteError, match=r"images_labeled_png: No space left .* cache=FOLDER"):
            cuhk03(tmp_path)
    assert [path.name for path in (tmp_path / "cuhk03_release").iterdir()] == ["cuhk-03.mat"]
    assert len(cuhk03(tmp_path).train) > 0


def test_two_processes_may_unpack_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one finishes while this one writes; its folder stays."""
    writers.cuhk03(tmp_path)
    save = Image.Image.save

    def save_after_the_other(image: Image.Image, *args: object, **options: object) -> None:
        monkeypatch.undo()
        cuhk03(tmp_path)
        save(image, *args, **options)

    monkeypatch.setattr(Image.Image, "save", save_after_the_other)
    data = cuhk03(tmp_path)
    assert len(data.train) == 11 * 5 + 2
    assert sorted(path.name for path in (tmp_path / "cuhk03_release").iterdir()) == [
        "cuhk-03.mat",
        "images_labeled_png",
    ]


def test_cuhk03_faults_are_told(tmp_path: Path) -> None:
    writers.cuhk03(tmp_path)
    with pytest.raises(
        ConfigError, match=r"split = 3, but the new protocol has one split; ask for protocol="
    ):
        cuhk03(tmp_path, split=3)
    with pytest.raises(ConfigError, match="boxes = 'labelled' is unknown; did you mean 'labeled'"):
        cuhk03(tmp_path, boxes="labelled")
    cuhk03(tmp_path)
    (tmp_path / "cuhk03_release/images_labeled_png/1_001_1_01.png").unlink()
    with pytest.raises(DataError, match=r"lacks 1 images that .*labeled\.mat lists \(1_001_1_01\.png is the"):
        cuhk03(tmp_path)
    (tmp_path / "cuhk03_new_protocol_config_labeled.mat").unlink()
    with pytest.raises(DataError, match=r"no cuhk03_new_protocol_config_labeled\.mat in or beside"):
        cuhk03(tmp_path)
    release = tmp_path / "cuhk03_release/cuhk-03.mat"
    release.write_bytes(release.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"cuhk-03\.mat is truncated or damaged"):
        cuhk03(tmp_path, boxes="detected")
    assert not (tmp_path / "cuhk03_release/images_detected_png").exists()


@pytest.mark.parametrize(
    ("boxes", "counts"), [("labeled", (7_368, 1_400, 5_328)), ("detected", (7_365, 1_400, 5_332))]
)
def test_cuhk03_new_protocol_on_the_true_arrays(
    real_data: Path, boxes: str, counts: tuple[int, int, int]
) -> None:
    config = real_data / f"meta/cuhk03-np/cuhk03_new_protocol_config_{boxes}.mat"
    names, labels_, cameras = (load_variable(config, name) for name in ("filelist", "labels", "camId"))
    train, query, gallery = (
        new_protocol_samples(Path("x"), map(str, names), labels_, cameras, load_variable(config, part))
        for part in ("train_idx", "query_idx", "gallery_idx")
    )
    assert (len(train), len(query), len(gallery)) == counts
    assert (len(persons(train)), len(persons(query)), len(persons(gallery))) == (767, 700, 700)
    assert not {*persons(train)} & {*persons(query)}
    # Identities of the classic protocol, counted over the pairs, are the new protocol's own.
    order = sorted({tuple(map(int, str(name).split("_")[:2])) for name in names})
    assert [Counter(pair for pair, _ in order)[pair] for pair in range(1, 6)] == [843, 440, 77, 58, 49]
    for sample in train + query + gallery:
        pair, person, view = map(int, sample.path.name.split("_")[:3])
        assert (order[sample.identity - 1], sample.camera) == ((pair, person), view)


# CUHK-SYSU


def described(split: tuple[Sample, ...]) -> list[tuple[str, int, tuple[int, int, int, int] | None]]:
    return [(sample.path.name, sample.identity, sample.box) for sample in split]


def test_cuhksysu_boxes_and_galleries(tmp_path: Path) -> None:
    writers.cuhksysu(tmp_path)
    data = cuhksysu(tmp_path)
    assert described(data.train) == [
        ("s1.jpg", 3, (0, 0, 8, 16)),
        ("s1.jpg", 12, (20, 0, 28, 16)),
        ("s2.jpg", 3, (4, 4, 12, 20)),
    ]
    assert described(data.query) == [("s3.jpg", 7, (0, 2, 8, 18)), ("s4.jpg", 9, (24, 1, 32, 17))]
    assert data.query[0].identity_name == "p7"
    assert described(data.gallery) == [
        ("s3.jpg", 7, (0, 2, 8, 18)),
        ("s4.jpg", 7, (1, 1, 9, 17)),
        ("s4.jpg", 0, (12, 1, 20, 17)),
        ("s4.jpg", 9, (24, 1, 32, 17)),
        ("s5.jpg", 9, (3, 3, 11, 19)),
    ]
    assert data.galleries == ((1, 2, 3, 4), (0, 4))
    assert (data.has_cameras, data.camera_filter) == (False, "none")
    assert cuhksysu(tmp_path, gallery_size=50).galleries == ((0, 1, 2), (3,))


def test_cuhksysu_faults_are_told(tmp_path: Path) -> None:
    writers.cuhksysu(tmp_path)
    tree = tmp_path / "dataset"
    with pytest.raises(ConfigError, match="gallery_size = 99 is unknown; allowed are 50, 100, 500"):
        cuhksysu(tmp_path, gallery_size=99)
    with pytest.raises(DataError, match=r"TestG500\.mat is missing"):
        cuhksysu(tmp_path, gallery_size=500)
    (tree / "Image/SSM/s5.jpg").rename(tree / "Image/SSM/s6.jpg")
    with pytest.raises(DataError, match=r"SSM lacks 1 of the 5 files that Images\.mat lists: s5\.jpg"):
        cuhksysu(tmp_path)
    images = tree / "annotation/Images.mat"
    writers.save_mat(images, {"Img": writers.structs([{"name": "s1.jpg", "box": 1}] * 2)})
    with pytest.raises(DataError, match=r"Images\.mat has no field imname"):
        cuhksysu(tmp_path)
