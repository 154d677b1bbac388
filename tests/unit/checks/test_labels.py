"""What `reid check` says of how labels were read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reidkit.checks.check import DatasetCheck, check_dataset
from reidkit.checks.findings import Finding
from reidkit.datasets import load_dataset
from reidkit.datasets._pattern_guess import guess_pattern
from reidkit.datasets._splits import write_table
from reidkit.errors import DataError


def photos(root: Path, *names: str) -> Path:
    """Small pictures, each with pixels of its own."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 32), (number % 256, number // 256, 99)).save(path, "PNG")
    return root


def checked(root: Path, **options: Any) -> DatasetCheck:
    return check_dataset(load_dataset("folder", root, **options))


def the_finding(check: DatasetCheck, title: str) -> Finding:
    (finding,) = [finding for finding in check.findings if title in finding.title]
    return finding


def test_how_names_were_read_is_shown(tmp_path: Path) -> None:
    names = [f"{person}_c{camera}_{frame}.png" for person in "ab" for camera in (1, 2) for frame in (1, 2)]
    check = checked(photos(tmp_path, *names, "a_c1_-1.png"), pattern="{identity}_c{camera}_{frame}.png")
    assert check.reading == (
        "parts: none, all images are train",
        "identities: text, as written, since 'a' is not a plain whole number; numbered from 1 in sorted "
        "order",
        "cameras: numbers",
    )
    assert len(check.samples) == 5
    first = {"image": "a_c1_1.png", "part": "train", "identity": "a", "camera": "1", "frame": "1"}
    assert check.samples[0] == first
    assert check.as_dict()["samples"][0] == first
    assert "image a_c1_1.png, part train, identity a, camera 1, frame 1" in str(check)


def test_each_part_has_its_samples(tmp_path: Path) -> None:
    names = [
        f"{part}/{person}/{n}.png" for part, person in (("train", "a"), ("query", "b")) for n in range(9)
    ]
    parts = [sample["part"] for sample in checked(photos(tmp_path, *names, "gallery/b/9.png")).samples]
    assert parts == ["train", "train", "query", "query", "gallery"]


def test_names_that_look_alike_are_told(tmp_path: Path) -> None:
    names = [f"{person}_c{camera}.png" for person in ("0001", "1", "Anna", "anna") for camera in ("2", "02")]
    check = checked(photos(tmp_path, *names), pattern="{identity}_c{camera}.png")
    title = "whose names differ only by zeros, capitals or look-alike characters"
    assert the_finding(check, f"identities {title}").examples == ("0001 and 1", "Anna and anna")
    assert the_finding(check, f"cameras {title}").examples == ("02 and 2",)


@pytest.mark.parametrize(
    ("pattern", "title", "advice"),
    [
        ("{identity}_{camera}", "cameras that look like file endings", "end the pattern with .*"),
        ("{identity}_{camera}.png", "cameras, nearly as many as images (12)", "A counter or a time"),
    ],
)
def test_a_label_that_swallowed_something_else(tmp_path: Path, pattern: str, title: str, advice: str) -> None:
    names = [f"{'ab'[n % 2]}_{n}.png" for n in range(12)]
    finding = the_finding(checked(photos(tmp_path, *names), pattern=pattern), title)
    assert (finding.severity, finding.count) == ("warning", 12)
    assert advice in finding.advice


def test_dates_taken_for_cameras(tmp_path: Path) -> None:
    names = [f"{person}_{day}_{n}.png" for person in "ab" for day in (20240501, 20240502) for n in range(3)]
    check = checked(photos(tmp_path, *names), pattern="{identity}_{camera}_{frame}.png")
    assert the_finding(check, "cameras that look like dates").examples == ("20240501", "20240502")


def test_camera_minus_one_is_not_known(tmp_path: Path) -> None:
    names = [f"{person}_{camera}_{n}.png" for person in "ab" for camera in (1, 2, -1) for n in range(2)]
    root = photos(tmp_path, *names)
    check = checked(root, pattern="{identity}_{camera}_{frame}.png")
    assert the_finding(check, "images whose camera is not known").count == 4
    assert check.counts["train"].cameras == 2
    data = load_dataset("folder", root, pattern="{identity}_{camera}_{frame}.png")
    assert write_table(data, tmp_path / "t.csv").read_text().count(",-1,") == 4
    assert [s.camera for s in load_dataset("table", tmp_path / "t.csv").train] == [
        s.camera for s in data.train
    ]


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["cam1/anna", "cam1/ben", "cam1/cleo", "cam2/anna", "cam2/ben"], "cam{camera}/{identity}/*.*"),
        (["anna/door", "anna/hall", "ben/door", "cleo/hall"], 'pattern="{identity}/{camera}/*"'),
        (
            ["north/2024-05-01", "north/2024-05-02", "south/2024-05-01", "south/2024-05-02"],
            "They are called as dates are.",
        ),
        (
            ["north/cam/anna", "north/cam/ben", "north/cam/cleo", "south/cam/anna", "south/cam/ben"],
            'pattern="{camera}/*/{identity}/{frame}.*"',
        ),
        (
            ["anna/train", "anna/test", "ben/train", "ben/test"],
            "They are parts: put them above the identities.",
        ),
    ],
)
def test_folders_that_come_again_in_each_identity(tmp_path: Path, names: list[str], advice: str) -> None:
    root = photos(tmp_path, *(f"{name}/{n}.png" for name in names for n in range(2)))
    assert advice in the_finding(checked(root), "folders of the same names in several identities").advice


def test_plain_identity_folders_are_not_complained_about(tmp_path: Path) -> None:
    root = photos(tmp_path, *(f"{name}/{n}.png" for name in ("anna", "ben") for n in range(3)))
    assert [finding.title for finding in checked(root).findings] == ["images without camera labels"]


def test_a_pattern_that_fits_is_proposed(tmp_path: Path) -> None:
    names = [f"{person:04}_c{camera}_{n}.png" for person in (1, 2) for camera in (1, 2) for n in range(2)]
    root = photos(tmp_path, *(f"{name[:4]}/{name}" for name in names))
    finding = the_finding(checked(root), "a pattern that would read cameras, too")
    assert finding.examples == (
        'pattern="*/{identity}_c{camera}_{frame}.*" for names like 0001/0001_c1_0.png',
    )
    photos(tmp_path / "flat", *names)
    with pytest.raises(
        DataError, match=r"such as pattern='\{identity\}_c\{camera\}_\{frame\}\.\*', which fits"
    ):
        load_dataset("folder", tmp_path / "flat")


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("{p:04}_c{c}s1_{n:06}_00.jpg", "{identity}_c{camera}s{tracklet}_{frame}_*.*"),
        ("{p:04}_c{c}_f{n:07}.jpg", "{identity}_c{camera}_f{frame}.*"),
        ("{p:04}C{c}T0001F{n:03}.jpg", "{identity}C{camera}T{tracklet}F{frame}.*"),
        ("cam_{c}/{p:03}/{n}.bmp", "cam_{camera}/{identity}/*.*"),
        ("{p}-{c}-{n}.jpg", None),
        ("{p}_{n}_{c}.jpg", None),
    ],
)
def test_guesses(name: str, pattern: str | None) -> None:
    names = [name.format(p=p, c=c, n=n + 10 * p) for p in (1, 2, 3) for c in (1, 2) for n in range(4)]
    assert guess_pattern(names) == pattern


def test_a_gallery_without_queries_is_told(tmp_path: Path) -> None:
    root = photos(tmp_path, "Train/a/1.png", "Train/b/1.png", "Test/c/1.png", "Test/c/2.png")
    finding = the_finding(checked(root), "gallery images, but no query part")
    assert (finding.severity, finding.count) == ("warning", 2)


@pytest.mark.parametrize(
    ("names", "title", "severity", "examples"),
    [
        (["train1/a", "train2/b"], "called much as parts", "warning", ("train1", "train2")),
        (["cam1/a/1", "cam2/b/1", "x/c/1"], "called as cameras are", "warning", ("cam1", "cam2")),
        (["data/anna/1", "data/ben/1"], "one identity in all, data, with folders inside", "warning", ()),
        (["None/1", "anna/1"], "identities called as programs write an empty cell", "warning", ("None",)),
    ],
)
def test_folders_that_are_no_people(
    tmp_path: Path, names: list[str], title: str, severity: str, examples: tuple[str, ...]
) -> None:
    finding = the_finding(checked(photos(tmp_path, *(f"{name}.png" for name in names))), title)
    assert (finding.severity, finding.examples) == (severity, examples)
    people = photos(tmp_path / "people", "anna/1.png", "ben/2.png", "c1/3.png")
    assert all(title[:20] not in finding.title for finding in checked(people).findings)


@pytest.mark.parametrize(("num_cameras", "told"), [(12, True), (6, False)])
def test_a_counter_taken_for_cameras(tmp_path: Path, num_cameras: int, told: bool) -> None:
    names = [f"{person}_c{number:03}.png" for person in "abc" for number in range(num_cameras)]
    check = checked(photos(tmp_path, *names), pattern="{identity}_c{camera}.png")
    assert any("look like a counter" in finding.title for finding in check.findings) == told
