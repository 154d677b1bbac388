"""The synthetic world: people one can tell apart by looking, cameras that colours alone do not get past."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reidkit.datasets.synthetic.dataset as synthetic_module
from reidkit.datasets import load_dataset
from reidkit.datasets.synthetic.clothes import Person
from reidkit.datasets.synthetic.dataset import World, make_synthetic, make_synthetic_from
from reidkit.datasets.synthetic.figures import View, render
from reidkit.datasets.synthetic.people import (
    Camera,
    Framing,
    Pose,
    draw_pedestrian,
    figure,
    random_camera,
    random_person,
    spoiled_framing,
)
from reidkit.datasets.synthetic.scenes import street
from reidkit.errors import ConfigError, DataError, ReidError
from reidkit.files import WriteError
from reidkit.types import Sample

SMALL = World(
    num_train_identities=3,
    num_test_identities=4,
    num_cameras=3,
    images_per_camera=3,
    height=64,
    width=32,
    num_distractors=5,
    num_junk=4,
)
STANDING = Pose(
    phase=0.0, stride=0.0, arm_swing=0.0, elbows=(0.1, 0.1), arm_spread=0.1, lean=0.0, head_turn=0.0
)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.jpg")}


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("small") / "world", SMALL)


@pytest.fixture(scope="module")
def street_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(
        tmp_path_factory.mktemp("test") / "world", World(num_train_identities=1, images_per_camera=3)
    )


def person(seed: int = 0, **changes: object) -> Person:
    return replace(random_person(np.random.default_rng(seed)), **changes)


def camera(seed: int = 0) -> Camera:
    return random_camera(np.random.default_rng(seed))


# --- the tree ------------------------------------------------------------------------------------------


def test_writes_market_folders_and_names(small_world: Path) -> None:
    assert sorted(path.name for path in small_world.iterdir()) == [
        "bounding_box_test",
        "bounding_box_train",
        "query",
        "synthetic.json",
    ]
    for path in contents(small_world):
        assert re.fullmatch(r"\w+/(-1|\d{4})_c[1-3]s1_\d{6}_\d{2}\.jpg", path)


def test_loads_as_a_registered_dataset(small_world: Path) -> None:
    data = load_dataset("synthetic", small_world)
    assert data.name == "synthetic"
    assert data.num_identities == 3
    assert len({sample.identity for sample in data.query}) == 4
    assert sum(sample.identity == 0 for sample in data.gallery) == 5
    assert sum(sample.identity == -1 for sample in data.gallery) == 4
    assert data.skipped == ()
    assert len(data.train) + len(data.query) + len(data.gallery) == len(contents(small_world))


def test_train_and_test_identities_are_different_people(street_world: Path) -> None:
    data = load_dataset("synthetic", street_world)
    tested = {sample.identity for sample in (*data.query, *data.gallery)}
    assert not tested & {sample.identity for sample in data.train}


def test_one_query_for_each_identity_and_camera_and_a_match_under_another(street_world: Path) -> None:
    data = load_dataset("synthetic", street_world)
    asked = [(sample.identity, sample.camera) for sample in data.query]
    found = {(sample.identity, sample.camera) for sample in data.gallery if sample.identity > 0}
    assert len(asked) == len(set(asked))
    assert set(asked) == found
    for identity, seen_by in asked:
        assert any(other == identity and camera != seen_by for other, camera in found)


def test_identities_are_seen_by_some_cameras_in_ragged_numbers(street_world: Path) -> None:
    data = load_dataset("synthetic", street_world)
    cameras: dict[int, set[int]] = {}
    visits: dict[tuple[int, int], int] = {}
    for sample in (*data.query, *data.gallery):
        if sample.identity > 0:
            cameras.setdefault(sample.identity, set()).add(sample.camera)
            visits[sample.identity, sample.camera] = visits.get((sample.identity, sample.camera), 0) + 1
    assert {len(seen_by) for seen_by in cameras.values()} == {2, 3, 4, 5, 6}
    assert set(visits.values()) == {2, 3, 4}


def test_all_images_have_the_size_asked_for(tmp_path: Path) -> None:
    for height, width in ((256, 128), (96, 48), (33, 17)):
        world = replace(SMALL, num_train_identities=1, num_test_identities=1, height=height, width=width)
        root = make_synthetic(tmp_path / f"{height}x{width}", world)
        for path in root.rglob("*.jpg"):
            with Image.open(path) as image:
                assert image.size == (width, height)
                assert image.format == "JPEG"


def test_progress_counts_to_the_number_of_images(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    root = make_synthetic(tmp_path / "world", SMALL, progress=lambda done, total: calls.append((done, total)))
    num_images = len(contents(root))
    assert calls == sorted(calls)
    assert {total for _, total in calls} == {num_images}
    assert calls[-1] == (num_images, num_images)


# --- the same parameters, the same bytes ---------------------------------------------------------------


def test_number_of_workers_changes_no_byte(small_world: Path, tmp_path: Path) -> None:
    again = make_synthetic(tmp_path / "again", SMALL, num_workers=2)
    assert contents(again) == contents(small_world)


def test_an_identity_looks_the_same_among_more_people(small_world: Path, tmp_path: Path) -> None:
    more = replace(SMALL, num_train_identities=5, num_test_identities=6, num_distractors=8, num_junk=0)
    before, after = contents(small_world), contents(make_synthetic(tmp_path / "more", more))
    shared = {path for path in before if "/-1_" not in path}
    assert shared < set(after)
    assert all(before[path] == after[path] for path in shared)


def test_another_seed_is_another_world(small_world: Path, tmp_path: Path) -> None:
    other = contents(make_synthetic(tmp_path / "other", replace(SMALL, seed=1)))
    assert not set(other.values()) & set(contents(small_world).values())


def test_the_same_state_draws_the_same_pixels() -> None:
    images = [draw_pedestrian(person(), camera(), rng=np.random.default_rng(5)) for _ in range(2)]
    assert images[0].tobytes() == images[1].tobytes()
    assert images[0].size == (64, 128)
    other = draw_pedestrian(person(), camera(), rng=np.random.default_rng(6))
    assert images[0].tobytes() != other.tobytes()


# --- kept, refused, never half-written -----------------------------------------------------------------


def test_the_same_world_is_kept(small_world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_world.rglob("*")}

    def drawn(done: int, total: int) -> None:
        raise AssertionError("drawn again")

    assert make_synthetic(small_world, SMALL, progress=drawn) == small_world
    assert {path: path.stat().st_mtime_ns for path in small_world.rglob("*")} == before


def test_another_world_is_refused_with_what_differs(small_world: Path) -> None:
    with pytest.raises(DataError, match=r"num_junk 4, not 9.*seed 0, not 3"):
        make_synthetic(small_world, replace(SMALL, num_junk=9, seed=3))


def test_another_version_is_refused(small_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_module, "VERSION", synthetic_module.VERSION + 1)
    with pytest.raises(DataError, match=r"holds another synthetic data set .*version"):
        make_synthetic(small_world, SMALL)


def test_other_files_are_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="holds other files"):
        make_synthetic(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(DataError, match=r"letter.txt is a file"):
        make_synthetic(tmp_path / "letter.txt", SMALL)


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_damaged_manifest_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "synthetic.json").write_text(text)
    with pytest.raises(DataError, match=r"synthetic\.json cannot be read"):
        make_synthetic(tmp_path, SMALL)


def test_an_empty_folder_is_filled(tmp_path: Path, small_world: Path) -> None:
    make_synthetic(tmp_path, SMALL)
    assert contents(tmp_path) == contents(small_world)
    assert json.loads((tmp_path / "synthetic.json").read_text())["num_junk"] == 4


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), WriteError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failure_in_the_middle_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    expected: type[BaseException],
) -> None:
    write, num_saved = Path.write_bytes, 0

    def fail_at_the_tenth(path: Path, data: bytes) -> int:
        nonlocal num_saved
        num_saved += 1
        if num_saved == 10:
            raise failure
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail_at_the_tenth)
    with pytest.raises(expected):
        make_synthetic(tmp_path / "world", SMALL)
    assert num_saved == 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_images_cut_short_by_the_disk_are_noticed(tmp_path: Path, num_workers: int) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))  # the workers inherit it
    try:
        with pytest.raises(WriteError, match="nothing is left behind"):
            make_synthetic(tmp_path / "world", SMALL, num_workers=num_workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write the synthetic data set to"):
        make_synthetic(tmp_path / "file" / "world", SMALL)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_cameras", 1),
        ("num_train_identities", 0),
        ("num_test_identities", 0),
        ("images_per_camera", 1),
        ("height", 31),
        ("width", 15),
        ("num_distractors", -1),
        ("num_junk", -1),
        ("seed", -1),
        ("num_workers", 0),
        ("images_per_camera", 2.5),
    ],
)
def test_bad_parameters_are_told_by_name_and_value(tmp_path: Path, name: str, value: float) -> None:
    num_workers, world = (value, World()) if name == "num_workers" else (1, World(**{name: value}))
    with pytest.raises(ConfigError, match=rf"{name} = {value}: give a whole number of \d+ or more"):
        make_synthetic(tmp_path / "world", world, num_workers=num_workers)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_of_the_command_is_told_with_all_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no option 'num_worker'; .*num_train_identities.*num_workers"):
        make_synthetic_from(tmp_path / "world", {"num_worker": 2})
    with pytest.raises(ConfigError, match=r"num_workers is 'two'; expected a whole number"):
        make_synthetic_from(tmp_path / "world", {"num_workers": "two"})
    assert list(tmp_path.iterdir()) == []


def test_all_bad_parameters_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        make_synthetic(tmp_path / "world", World(num_cameras=1, width=0))
    assert len(told.value.problems) == 2
    assert isinstance(told.value, ReidError)


# --- what the pictures show ----------------------------------------------------------------------------


def test_no_image_is_flat_or_all_black_or_white(street_world: Path) -> None:
    for path in street_world.rglob("*.jpg"):
        with Image.open(path) as image:
            pixels = np.asarray(image, dtype=float)
        assert pixels.std() > 10, path.name
        assert 25 < pixels.mean() < 235, path.name


def test_figures_stand_off_from_their_background() -> None:
    """With the same random numbers, a box with a person differs from the empty one, most in its middle."""
    changes = []
    for seed in range(40):
        images = [
            draw_pedestrian(
                who, camera(seed % 6), rng=np.random.default_rng(seed), framing=Framing(0.9, 0.0, 0.0)
            )
            for who in (person(seed), None)
        ]
        changes.append(
            np.abs(np.subtract(*[np.asarray(image, dtype=float) for image in images])).mean(axis=2)
        )
    middle, border = np.mean(changes, axis=0)[16:112, 22:42], np.mean(changes, axis=0)[:64, :6]
    assert middle.mean() > 2 * border.mean()
    assert middle.mean() > 35


def coverage(who: Person, yaw: float) -> tuple[np.ndarray, np.ndarray]:
    view = View(yaw, tilt=0.1, scale=100.0, x=64.0, y=190.0, light=(0.0, 0.6, 0.8), ambient=0.6)
    colour, covered = render(figure(who, STANDING), view, height=200, width=128)
    return colour, covered[..., 0]


def test_a_figure_is_narrower_from_the_side() -> None:
    who = person(bag="none")
    front, side = (coverage(who, yaw)[1][60:90].sum() for yaw in (0.0, np.pi / 2))
    assert side < 0.8 * front


def test_a_backpack_shows_at_the_back_only() -> None:
    def num_red(yaw: float) -> int:
        who = person(bag="backpack", bag_colour=(0.9, 0.0, 0.0))
        who = replace(who, top=who.top._replace(colour=(0.2, 0.3, 0.8), pattern="plain"), opening=0.0)
        colour, _ = coverage(who, yaw)
        return int(((colour[..., 0] > 0.3) & (colour[..., 1] < 0.05)).sum())

    assert num_red(np.pi) > 3 * num_red(0.0) > 0  # the straps show in front


def test_a_logo_shows_in_front_only() -> None:
    who = person(bag="none", opening=0.0, seed=2, hair="short")
    top = who.top._replace(kind="t-shirt", colour=(0.1, 0.1, 0.6), accent=(0.1, 0.9, 0.1), pattern="logo")
    green = [
        int((colour[..., 1] > 2 * colour[..., 2] + 0.1).sum())
        for colour, _ in (coverage(replace(who, top=top), yaw) for yaw in (0.0, np.pi))
    ]
    assert green[0] > 100
    assert green[1] == 0


def test_a_person_stands_with_both_feet_near_the_ground_and_the_head_on_top() -> None:
    who = person(hat="none", hair="cropped")
    rows = np.flatnonzero(coverage(who, 0.0)[1].max(axis=1) > 0.5)
    seen_height = (rows[-1] - rows[0]) / 100  # metres
    assert seen_height == pytest.approx(who.build.height, rel=0.06)


def test_every_camera_and_person_can_be_drawn() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        seen_by = random_camera(rng)
        assert street(seen_by).size == (1536, 192)
        image = draw_pedestrian(
            random_person(rng), seen_by, rng=rng, height=40, width=20, framing=spoiled_framing(rng)
        )
        assert image.size == (20, 40)


# --- hard enough to mean something ---------------------------------------------------------------------


def colour_histogram(image: Image.Image, *, mode: str, num_stripes: int) -> np.ndarray:
    """Normalised 8 x 8 x 8 histograms of horizontal stripes, one after the other."""
    pixels = np.asarray(image.convert(mode), dtype=int) // 32
    histograms = []
    for stripe in np.array_split(pixels, num_stripes, axis=0):
        counts = np.bincount(stripe.reshape(-1, 3) @ (64, 8, 1), minlength=512)
        histograms.append(counts / counts.sum())
    return np.concatenate(histograms)


def market_mean_average_precision(
    query: tuple[Sample, ...], gallery: tuple[Sample, ...], scores: np.ndarray
) -> float:
    """Slow and obvious: rank, leave out junk and the query's own camera, average the precisions."""
    average_precisions = []
    for asked, row in zip(query, scores, strict=True):
        precisions, rank = [], 0
        for place in np.argsort(-row, kind="stable"):
            found = gallery[place]
            same_person = found.identity == asked.identity
            if found.identity == -1 or (same_person and found.camera == asked.camera):
                continue
            rank += 1
            if same_person:
                precisions.append((len(precisions) + 1) / rank)
        average_precisions.append(np.mean(precisions))
    return float(np.mean(average_precisions))


def test_colours_alone_do_not_find_people(street_world: Path) -> None:
    data = load_dataset("synthetic", street_world)
    assert len({sample.identity for sample in data.query}) == 60

    def ranked_by_histogram(mode: str, num_stripes: int) -> float:
        query, gallery = (
            np.array([_histogram_of(sample.path, mode, num_stripes) for sample in split])
            for split in (data.query, data.gallery)
        )
        intersections = np.array([np.minimum(row, gallery).sum(axis=1) for row in query])
        return market_mean_average_precision(data.query, data.gallery, intersections)

    best = max(ranked_by_histogram(mode, stripes) for mode in ("RGB", "HSV") for stripes in (1, 6))
    by_chance = market_mean_average_precision(
        data.query,
        data.gallery,
        np.random.default_rng(0).random((len(data.query), len(data.gallery))),
    )
    # Not impossible either: colours say more than nothing.
    assert 1.3 * by_chance < best < 0.34


def _histogram_of(path: Path, mode: str, num_stripes: int) -> np.ndarray:
    with Image.open(path) as image:
        return colour_histogram(image, mode=mode, num_stripes=num_stripes)
