"""What the check of a data set finds."""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from reidkit.checks.check import DatasetCheck, Finding, SplitCounts, check_dataset
from reidkit.cli import cli
from reidkit.datasets import load_dataset
from reidkit.errors import DataError
from reidkit.images.speed import num_cores, reading_speed
from reidkit.types import Dataset, Sample, Split

DATA = Path(os.environ.get("REIDKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))

Labels = list[tuple[int, int]]


def split(root: Path, name: str, labels: Labels, *, size: tuple[int, int] = (32, 64)) -> Split:
    """One image for each (identity, camera), all different."""
    (root / name).mkdir(exist_ok=True)
    samples = []
    for index, (identity, camera) in enumerate(labels):
        path = root / name / f"{index}.png"
        pixels = np.random.default_rng([index, *name.encode()]).integers(0, 256, (*size[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(path)
        samples.append(Sample(path, identity, camera, index))
    return tuple(samples)


def sound(root: Path) -> Dataset:
    return Dataset(
        name="tiny",
        root=root,
        train=split(root, "train", [(1, 1), (1, 2), (2, 1), (2, 2)]),
        query=split(root, "query", [(3, 1), (4, 2)]),
        gallery=split(root, "gallery", [(3, 1), (3, 2), (4, 1), (0, 1), (-1, 2)]),
    )


def the_finding(check: DatasetCheck, title: str) -> Finding:
    (finding,) = [finding for finding in check.findings if title in finding.title]
    return finding


def titles(check: DatasetCheck) -> list[str]:
    return [finding.title for finding in check.findings]


def test_a_sound_data_set_has_counts_and_no_findings(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    check = check_dataset(sound(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert check.findings == ()
    assert not check.has_errors
    assert check.counts == {
        "train": SplitCounts(images=4, identities=2, cameras=2, junk=0, distractors=0),
        "query": SplitCounts(images=2, identities=2, cameras=2, junk=0, distractors=0),
        "gallery": SplitCounts(images=5, identities=2, cameras=2, junk=1, distractors=1),
    }
    assert check.num_valid_queries == 2
    assert seen == [(done, 11) for done in range(1, 12)]
    assert str(check).splitlines() == [
        f"tiny in {tmp_path}",
        "split    images  identities  cameras  junk  distractors",
        "train         4           2        2     0            0",
        "query         2           2        2     0            0",
        "gallery       5           2        2     1            1",
        "2 of 2 queries have a match in the gallery",
        "read measured by: protocol market1501, camera filter same_identity",
        "image train/0.png, part train, identity 1, camera 1",
        "image train/3.png, part train, identity 2, camera 2",
        "image query/0.png, part query, identity 3, camera 1",
        "image query/1.png, part query, identity 4, camera 2",
        "image gallery/0.png, part gallery, identity 3, camera 1",
        "image gallery/4.png, part gallery, identity junk, camera 2",
        "nothing to complain of",
    ]


def test_damaged_files_are_found_and_told_apart(tmp_path: Path) -> None:
    data = sound(tmp_path)
    cut, text, empty, gone, _, _ = [sample.path for sample in data.train + data.query]
    cut.write_bytes(cut.read_bytes()[:-200])
    text.write_text("not a picture")
    empty.write_bytes(b"")
    gone.unlink()
    check = check_dataset(data)
    unreadable = the_finding(check, "images that cannot be read")
    assert (unreadable.severity, unreadable.count) == ("error", 3)
    for example, path, words in zip(
        unreadable.examples, (cut, text, gone), ("truncated", "not an image", "missing"), strict=True
    ):
        assert str(path) in example
        assert words in example
    assert the_finding(check, "empty images (0 bytes)").count == 1
    assert check.has_errors


def test_only_five_examples_are_kept(tmp_path: Path) -> None:
    data = Dataset("x", tmp_path, train=split(tmp_path, "train", [(n // 2, n % 2) for n in range(14)]))
    for sample in data.train[:7]:
        sample.path.write_bytes(b"")
    finding = the_finding(check_dataset(data), "empty images")
    assert (finding.count, len(finding.examples)) == (7, 5)
    assert str(finding).startswith("error: empty images (0 bytes): 7 (")
    assert ", ...). Copy them again" in str(finding)


@pytest.mark.parametrize(
    ("first", "second", "severity", "title"),
    [
        ((1, 1), (2, 1), "error", "same picture under different identities"),
        ((1, 1), (1, 2), "warning", "same picture under different cameras"),
        ((1, 1), (1, 1), "note", "same picture twice in one identity and camera"),
        ((1, 1), (-1, 1), None, ""),
    ],
)
def test_copies_are_judged_by_their_labels(
    tmp_path: Path, first: tuple[int, int], second: tuple[int, int], severity: str | None, title: str
) -> None:
    data = Dataset("x", tmp_path, gallery=split(tmp_path, "gallery", [first, second, (1, 3), (2, 3)]))
    data.gallery[1].path.write_bytes(data.gallery[0].path.read_bytes())
    found = [finding for finding in check_dataset(data).findings if "same picture" in finding.title]
    if severity is None:
        assert found == []
    else:
        assert [(f.severity, f.title, f.count) for f in found] == [(severity, title, 1)]
        assert found[0].examples == ("gallery/0.png = gallery/1.png",)


def test_one_file_listed_twice_is_a_copy_only_if_its_labels_differ(tmp_path: Path) -> None:
    gallery = split(tmp_path, "gallery", [(1, 1), (1, 2)])
    data = Dataset("x", tmp_path, query=gallery[:1], gallery=gallery)
    assert titles(check_dataset(data)) == []
    relabelled = replace(data, query=(replace(gallery[0], identity=2),))
    assert "same picture under different identities" in titles(check_dataset(relabelled))


def test_crops_of_one_scene_are_no_copies(tmp_path: Path) -> None:
    scene = split(tmp_path, "scene", [(1, 1)], size=(200, 100))[0]
    crops = tuple(
        replace(scene, identity=identity, index=identity, box=(40 * identity, 0, 40 * identity + 30, 90))
        for identity in (0, 1, 5)
    )
    check = check_dataset(Dataset("x", tmp_path, gallery=crops))
    assert "same picture under different identities" not in titles(check)
    assert "holds no pixel of the 200 x 100 image" in the_finding(check, "cannot be read").examples[0]


def test_leaking_identities_are_errors(tmp_path: Path) -> None:
    data = sound(tmp_path)
    data = replace(
        data,
        train=data.train + split(tmp_path, "more", [(3, 1), (3, 2), (-1, 1)]),
        val=split(tmp_path, "val", [(2, 1), (2, 2), (4, 1), (4, 2)]),
    )
    check = check_dataset(data)
    for title, name in (
        ("identities of train that are also in val", "2"),
        ("identities of train that are also in query or gallery", "3"),
        ("identities of val that are also in query or gallery", "4"),
    ):
        finding = the_finding(check, title)
        assert (finding.severity, finding.examples) == ("error", (name,))


def test_queries_without_a_match_and_why(tmp_path: Path) -> None:
    data = Dataset(
        "x",
        tmp_path,
        query=split(tmp_path, "query", [(1, 1), (2, 1), (3, 1), (-1, 1)]),
        gallery=split(tmp_path, "gallery", [(1, 1), (1, 2), (2, 1), (-1, 2)]),
    )
    check = check_dataset(data)
    assert check.num_valid_queries == 1
    absent = the_finding(check, "since the identity is absent from the gallery")
    assert (absent.severity, absent.examples) == ("warning", ("query/2.png", "query/3.png"))
    same = the_finding(check, "since all matches are under the query's own camera")
    assert (same.severity, same.examples) == ("warning", ("query/1.png",))


def test_one_camera_everywhere_leaves_no_query_a_match(tmp_path: Path) -> None:
    data = Dataset(
        "x",
        tmp_path,
        query=split(tmp_path, "query", [(1, 5), (2, 5)]),
        gallery=split(tmp_path, "gallery", [(1, 5), (2, 5)]),
    )
    check = check_dataset(data)
    assert check.num_valid_queries == 0
    finding = the_finding(check, "queries without a match, since camera labels are all equal")
    assert (finding.severity, finding.count) == ("error", 2)
    whole = the_finding(check, "images that all come from one camera, 5")
    assert (whole.count, whole.examples) == (4, ())


def test_without_camera_labels_another_image_is_a_match_but_not_the_query_itself(tmp_path: Path) -> None:
    gallery = split(tmp_path, "gallery", [(1, 0), (1, 0), (2, 0)])
    data = Dataset("x", tmp_path, query=(gallery[0], gallery[2]), gallery=gallery, has_cameras=False)
    check = check_dataset(data)
    assert check.num_valid_queries == 1
    assert the_finding(check, "the only match is the query's own picture").examples == ("gallery/2.png",)
    assert the_finding(check, "queries whose own picture is in the gallery").count == 2
    assert the_finding(check, "images without camera labels").severity == "note"
    assert check.counts["gallery"].cameras == 0


def test_validation_images_query_each_other(tmp_path: Path) -> None:
    data = Dataset("x", tmp_path, val=split(tmp_path, "val", [(1, 1), (1, 2), (2, 1), (2, 1)]))
    finding = the_finding(
        check_dataset(data), "validation images without a match, since all matches are under"
    )
    assert finding.examples == ("val/2.png", "val/3.png")


def test_training_identities_that_teach_little(tmp_path: Path) -> None:
    train = split(tmp_path, "train", [(1, 1), (1, 2), (2, 1), (2, 1), (3, 2)])
    train = tuple(replace(s, identity_name={3: "cleo"}.get(s.identity)) for s in train)
    check = check_dataset(Dataset("x", tmp_path, train=train))
    assert the_finding(check, "with a single image").examples == ("cleo",)
    assert the_finding(check, "seen by one camera only").examples == ("2",)


def test_training_images_from_one_camera(tmp_path: Path) -> None:
    data = sound(tmp_path)
    data = replace(data, train=tuple(replace(sample, camera=1) for sample in data.train))
    check = check_dataset(data)
    assert titles(check) == ["training images that all come from one camera, 1"]


def test_skipped_files_are_named(tmp_path: Path) -> None:
    data = sound(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "query/phone").write_bytes(data.query[0].path.read_bytes())
    (tmp_path / "query/a.txt").write_text("seen on Monday")
    names = ("query/Thumbs.db", "query/odd.jpg", "query/phone", "query/a.txt", "query/gone.txt", "more")
    check = check_dataset(replace(data, skipped=tuple(tmp_path / name for name in names)))
    assert [(finding.severity, finding.title) for finding in check.findings] == [
        ("warning", "images left out"),
        ("warning", "pictures left out: 1 without a suffix (PNG by content, not by name: rename it)"),
        ("warning", "files left out: 1 .txt (cannot be opened)"),
        ("note", "folders left out"),
        ("note", "other files left out"),
    ]
    assert check.findings[0].examples == ("query/odd.jpg",)
    assert check.findings[-1].examples == ("query/Thumbs.db", "query/a.txt")


def test_tiny_and_wide_images(tmp_path: Path) -> None:
    data = sound(tmp_path)
    Image.new("RGB", (15, 40)).save(data.train[0].path)
    Image.new("RGB", (41, 40)).save(data.train[1].path)
    check = check_dataset(data)
    assert the_finding(check, "images under 16 x 32 pixels").examples == ("train/0.png is 15 x 40",)
    assert the_finding(check, "images wider than tall").examples == ("train/1.png is 41 x 40",)


def test_findings_come_worst_first_and_as_plain_values(tmp_path: Path) -> None:
    data = sound(tmp_path)
    data.train[0].path.write_bytes(b"")
    data = replace(data, query=data.query[:1], skipped=(tmp_path / "thumbs.db", tmp_path / "y.jpg"))
    check = check_dataset(data)
    assert [finding.severity for finding in check.findings] == ["error", "warning", "note"]
    plain = json.loads(json.dumps(check.as_dict()))
    assert plain["counts"]["train"]["images"] == 4
    assert plain["findings"][0]["severity"] == "error"
    assert plain["num_valid_queries"] == 1
    assert check_dataset(replace(data, gallery=())).num_valid_queries is None


# Protocols other than Market-1501's, and published counts


def tracks(split: Split, length: int) -> Split:
    return tuple(replace(sample, tracklet=sample.index // length) for sample in split)


def test_tracklets_are_what_is_counted(tmp_path: Path) -> None:
    query = tracks(split(tmp_path, "query", [(1, 1)] * 2 + [(2, 1)] * 2), 2)
    gallery = tracks(
        split(tmp_path, "gallery", [(1, 2)] * 3 + [(2, 1)] * 3 + [(-1, 2)] * 3 + [(0, 2)] * 3), 3
    )
    check = check_dataset(Dataset("x", tmp_path, query=query, gallery=gallery, protocol="tracklets"))
    assert check.counts["gallery"] == SplitCounts(
        images=12, identities=2, cameras=2, junk=1, distractors=1, tracklets=4
    )
    assert (check.num_valid_queries, check.num_queries) == (1, 2)
    assert "1 of 2 queries have a match" in str(check)
    assert "distractors  tracklets" in str(check)
    assert the_finding(check, "all matches are under the query's own camera").examples == ("query/2.png",)


def test_tracklets_that_share_some_frames_are_told(tmp_path: Path) -> None:
    gallery = tracks(split(tmp_path, "gallery", [(1, 2)] * 2 + [(2, 2)] * 2 + [(-1, 2)] * 2), 2)
    other = split(tmp_path, "query", [(1, 1), (2, 1), (3, 1)])
    query = (
        *(replace(sample, tracklet=7) for sample in gallery[:2]),  # the same frames: never its own match
        *(replace(sample, tracklet=8) for sample in (gallery[2], other[1])),
        replace(gallery[4], identity=3, tracklet=9),
        replace(other[2], tracklet=9),
    )
    check = check_dataset(Dataset("x", tmp_path, query=query, gallery=gallery, protocol="tracklets"))
    finding = the_finding(check, "query tracklets that share some of their frames with one of the gallery")
    assert finding.examples == ("query/1.png",)


def test_where_all_query_each_other_nothing_is_asked_of_a_gallery_or_cameras(tmp_path: Path) -> None:
    query = split(tmp_path, "query", [(1, 0), (1, 0), (2, 0)], size=(80, 60))
    data = Dataset("birds", tmp_path, query=query, protocol="recall", has_cameras=False, camera_filter="none")
    check = check_dataset(data)
    assert (check.num_valid_queries, check.num_queries) == (2, 3)
    assert [(f.title, f.examples) for f in check.findings] == [
        ("queries without a match, since the identity is absent from the gallery", ("query/2.png",))
    ]


def test_a_set_without_camera_filter_finds_matches_under_the_same_camera(tmp_path: Path) -> None:
    data = Dataset(
        "x",
        tmp_path,
        query=split(tmp_path, "query", [(1, 1), (2, 2)]),
        gallery=split(tmp_path, "gallery", [(1, 1), (2, 1)]),
    )
    assert check_dataset(data).num_valid_queries == 1
    assert check_dataset(replace(data, camera_filter="none")).num_valid_queries == 2


def test_a_query_finds_what_is_in_its_own_gallery(tmp_path: Path) -> None:
    data = Dataset(
        "x",
        tmp_path,
        query=split(tmp_path, "query", [(1, 1), (2, 1)]),
        gallery=split(tmp_path, "gallery", [(1, 2), (2, 2)]),
        galleries=((0, 1), (0,)),
    )
    check = check_dataset(data)
    assert check.num_valid_queries == 1
    assert the_finding(check, "the identity is absent from the gallery").examples == ("query/1.png",)


def test_counts_that_are_not_the_published_ones(tmp_path: Path) -> None:
    published = {
        "train": {"images": 4, "identities": 2},
        "query": {"images": 2, "tracklets": 7},
        "gallery": {"images": 1_005, "identities": 2, "junk": 1, "distractors": 1},
        "val": {"images": 3},
    }
    check = check_dataset(replace(sound(tmp_path), published=published))
    assert [(f.severity, f.title, f.examples) for f in check.findings] == [
        (
            "warning",
            "counts that are not the published ones",
            (
                "query: 0 tracklets, published are 7",
                "gallery: 5 images, published are 1,005",
                "val: 0 images, published are 3",
            ),
        )
    ]


def test_an_image_over_the_limit_is_refused_by_its_header(tmp_path: Path) -> None:
    data = sound(tmp_path)
    whole = data.train[0].path.read_bytes()
    header = b"IHDR" + (20_000).to_bytes(4, "big") + (15_000).to_bytes(4, "big") + whole[24:29]
    data.train[0].path.write_bytes(whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:])
    finding = the_finding(check_dataset(data), "images that cannot be read")
    assert "300,000,000 pixels, over the limit of 64,000,000" in finding.examples[0]
    assert "if the file can be trusted, raise the limit with `reid --max-pixels" in finding.examples[0]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_speed_of_reading(tmp_path: Path, num_workers: int) -> None:
    data = sound(tmp_path)
    data.train[0].path.write_bytes(b"damaged")
    assert 1 < reading_speed(data, num_workers=num_workers) < 1e6
    assert 1 < reading_speed(data, num_workers=num_workers, cache_size=(256, 128)) < 1e6
    with pytest.raises(DataError, match=r"'none' in .* has no images to read"):
        reading_speed(Dataset("none", tmp_path), num_workers=num_workers)


def test_the_command_prints_the_speed_on_demand(tmp_path: Path) -> None:
    split(tmp_path, "1", [(1, 1)] * 4)
    split(tmp_path, "2", [(2, 1)] * 4)
    words = ["check", "folder", str(tmp_path)]
    assert "images/s" not in CliRunner().invoke(cli, words).stdout
    shown = CliRunner().invoke(cli, [*words, "--speed"]).stdout
    assert re.search(r"reading and decoding, 1 worker: [\d,]+ images/s", shown)
    assert re.search(r"from a cache at 256 x 128, 1 worker: [\d,]+ images/s", shown)
    values = json.loads(CliRunner().invoke(cli, [*words, "--speed", "--json"]).stdout)
    for key in ("images_per_second", "images_per_second_cached"):
        assert values[key].keys() == {"1", str(num_cores())}


def test_where_the_cache_has_no_room_its_speed_alone_is_missing(tmp_path: Path, monkeypatch) -> None:
    def full(folder: Path, num_bytes: int) -> None:
        raise OSError("no room")

    monkeypatch.setattr("reidkit.images.cache._check_room", full)
    split(tmp_path, "1", [(1, 1)] * 4)
    split(tmp_path, "2", [(2, 1)] * 4)
    result = CliRunner().invoke(cli, ["check", "folder", str(tmp_path), "--speed"])
    assert result.exit_code == 0
    assert "reading and decoding, 1 worker" in result.stdout
    assert "from a cache at 256 x 128 cannot be measured: no room" in result.stderr


def test_real_data(tmp_path: Path) -> None:
    root = DATA / "market1501-500"
    if not root.is_dir():
        pytest.skip(f"no real images in {root}")
    start = time.perf_counter()
    check = check_dataset(load_dataset("market1501", root))
    seconds = time.perf_counter() - start
    images = {name: counts.images for name, counts in check.counts.items()}
    assert images == {"train": 7_519, "query": 425, "gallery": 1_229}
    identities = {name: counts.identities for name, counts in check.counts.items()}
    assert identities == {"train": 400, "query": 100, "gallery": 100}
    assert all(counts.cameras == 6 for counts in check.counts.values())
    assert check.num_valid_queries == 418
    assert not check.has_errors
    assert seconds < 60, f"{seconds:.0f} s for 9,173 small images"
