"""A synthetic world of pedestrians, written and read in Market-1501's folders and file names."""

from __future__ import annotations

import io
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reidkit.datasets._layouts import MARKET_FOLDERS, market_tree
from reidkit.datasets.synthetic.people import (
    Camera,
    draw_pedestrian,
    random_camera,
    random_framing,
    random_person,
    spoiled_framing,
)
from reidkit.errors import ConfigError, DataError
from reidkit.files import WriteError, from_home
from reidkit.registry import option_problems, register
from reidkit.types import Dataset

MANIFEST = "synthetic.json"
VERSION = 1
"""Of the drawing: raise it whenever the same parameters give other pixels."""

# Streams of random numbers that must not meet: what one draws changes nothing in another.
IDENTITY, CAMERA, VISITS, IMAGE, DISTRACTOR, JUNK_BOX = range(6)


@dataclass(frozen=True, slots=True)
class World:
    """The parameters of a synthetic data set. The same parameters give the same bytes.

    Each identity is seen by 2 to ``num_cameras`` cameras, and looks the same however many others there are.

    Attributes:
        num_train_identities, num_test_identities: 1 or more.
        num_cameras: 2 or more.
        images_per_camera: mean number of images of one identity by one camera, 2 or more; the numbers vary
            from 2 to ``2 * images_per_camera - 2``.
        height: of the images in pixels, 32 or more.
        width: of the images in pixels, 16 or more.
        num_distractors: gallery images of people that no query shows (identity 0).
        num_junk: gallery boxes that miss their person (identity -1).
        seed: of everything drawn.
    """

    num_train_identities: int = 150
    num_test_identities: int = 60
    num_cameras: int = 6
    images_per_camera: int = 4
    height: int = 128
    width: int = 64
    num_distractors: int = 100
    num_junk: int = 50
    seed: int = 0


DEFAULT_WORLD = World()


@dataclass(frozen=True, slots=True)
class _MakeOptions(World):
    """What `reid check synthetic --make` takes."""

    num_workers: int = 1


class Crop(NamedTuple):
    """One image to draw: where it goes, and the numbers that its look follows from.

    ``person`` seeds the identity; ``number`` tells apart the images of one person and camera.
    """

    path: str
    person: tuple[int, int]
    camera: int
    number: int
    junk: bool


@register("dataset", "synthetic")
def synthetic(root: Path) -> Dataset:
    """Made-up people, drawn by `reid check synthetic ROOT --make`: no download, nobody's privacy.

    See :func:`make_synthetic`.

    The folders and names are Market-1501's. Training identities are even, test identities odd.

    Raises:
        DataError: ``root`` holds no such tree.
    """
    return replace(market_tree(Path(root), name="synthetic"), licence="drawn, nobody's")


def make_synthetic_from(
    root: str | Path, options: Mapping[str, Any], *, progress: Callable[[int, int], None] | None = None
) -> Path:
    """:func:`make_synthetic` with the fields of :class:`World` and ``num_workers`` as options.

    Raises as :func:`make_synthetic` does, and :class:`ConfigError` for an unknown option.
    """
    problems = option_problems(_MakeOptions, options, where="synthetic")
    if problems:
        raise ConfigError(problems)
    world = {name: value for name, value in options.items() if name != "num_workers"}
    return make_synthetic(root, World(**world), num_workers=options.get("num_workers", 1), progress=progress)


def make_synthetic(
    root: str | Path,
    world: World = DEFAULT_WORLD,
    *,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a data set of made-up pedestrians into ``root``, in Market-1501's folders and file names.

    The first image of every test identity and camera is the query, the others are the gallery, together with
    distractors and junk. The number of workers changes nothing.

    The tree appears in ``root`` when it is complete. If ``root`` holds this very world already, it is kept
    as it is.

    Args:
        root: folder to make; it must be absent, empty, or hold this very world.
        world: what to draw.
        num_workers: processes to draw with. With more than one, a script must call this below
            ``if __name__ == "__main__":``, because the processes import the script.
        progress: called with (images drawn, images in all) as drawing goes on.

    Returns:
        ``root``, ready for ``load_dataset("synthetic", root)``.

    Raises:
        ConfigError: parameters that make no world.
        DataError: ``root`` holds something else.
        WriteError: the images could not be written; nothing is left behind.
    """
    _check(world, num_workers)
    root = from_home(root)
    if _holds(root, world):
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
            # A folder within, since temporary folders are private and this one is the user's.
            tree = Path(temporary) / root.name
            _write_tree(tree, world, num_workers, progress)
            if root.exists():
                root.rmdir()
            tree.rename(root)
    except OSError as error:
        raise WriteError(
            f"cannot write the synthetic data set to {root}: {error}; nothing is left behind. "
            "Free some space or choose another folder, then run it again"
        ) from error
    return root


def _check(world: World, num_workers: int) -> None:
    least = {
        "num_train_identities": 1,
        "num_test_identities": 1,
        "num_cameras": 2,
        "images_per_camera": 2,
        "height": 32,
        "width": 16,
        "num_distractors": 0,
        "num_junk": 0,
        "seed": 0,
        "num_workers": 1,
    }
    values = asdict(world) | {"num_workers": num_workers}
    problems = [
        f"{name} = {values[name]!r}: give a whole number of {low} or more"
        for name, low in least.items()
        if not isinstance(values[name], int) or values[name] < low
    ]
    if problems:
        raise ConfigError(problems)


def _manifest(world: World) -> dict[str, int]:
    return {"version": VERSION, **asdict(world)}


def _holds(root: Path, world: World) -> bool:
    """Whether ``root`` is this world already; an error where it is anything else but absent or empty."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    path = root / MANIFEST
    if not path.is_file():
        what = "is a file" if root.is_file() else "holds other files"
        raise DataError(f"{root} {what}; give a new or empty folder for the synthetic data set")
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise DataError(
            f"{path} cannot be read; give another folder, or delete {root} to have it drawn again"
        ) from None
    wanted = _manifest(world)
    differences = [
        f"{key} {found.get(key)}, not {wanted[key]}" for key in wanted if found.get(key) != wanted[key]
    ]
    if differences:
        raise DataError(
            f"{root} holds another synthetic data set ({', '.join(differences)}); "
            "give another folder, or delete this one to have it drawn again"
        )
    return True


def _write_tree(
    tree: Path, world: World, num_workers: int, progress: Callable[[int, int], None] | None
) -> None:
    for folder in MARKET_FOLDERS.values():
        (tree / folder).mkdir(parents=True)
    # A person's images go to one worker together: clothes are made once.
    crops: dict[tuple[int, int], list[Crop]] = {}
    for crop in plan(world):
        crops.setdefault(crop.person, []).append(crop)
    total = sum(map(len, crops.values()))
    done = 0
    for num_drawn in _drawn(partial(_draw_crops, tree, world), list(crops.values()), num_workers):
        done += num_drawn
        if progress:
            progress(done, total)
    (tree / MANIFEST).write_text(json.dumps(_manifest(world), indent=1) + "\n", encoding="utf-8")


def _drawn(draw: Callable[[list[Crop]], int], jobs: list[list[Crop]], num_workers: int) -> Iterator[int]:
    if num_workers == 1:
        yield from map(draw, jobs)
        return
    # Not forked: the caller may run threads, which forking breaks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        yield from pool.map(draw, jobs)


def plan(world: World) -> Iterator[Crop]:
    """All images of a world, person by person."""
    for number in range(1, world.num_train_identities + 1):
        for crop, _ in _visits(world, 2 * number):
            yield crop._replace(path=f"{MARKET_FOLDERS['train']}/{crop.path}")
    for number in range(1, world.num_test_identities + 1):
        for crop, first in _visits(world, 2 * number - 1):
            yield crop._replace(path=f"{MARKET_FOLDERS['query' if first else 'gallery']}/{crop.path}")
    gallery = MARKET_FOLDERS["gallery"]
    for number in range(world.num_distractors):
        camera = 1 + int(_rng(world, DISTRACTOR, number).integers(world.num_cameras))
        name = _market_name("0000", camera, 25 * number + 1, 1)
        yield Crop(f"{gallery}/{name}", (DISTRACTOR, number), camera, number, junk=False)
    for number in range(world.num_junk):
        rng = _rng(world, JUNK_BOX, number)
        camera = 1 + int(rng.integers(world.num_cameras))
        identity = 2 * int(rng.integers(world.num_test_identities)) + 1
        name = _market_name("-1", camera, 25 * number + 1, 1)
        yield Crop(f"{gallery}/{name}", (IDENTITY, identity), camera, number, junk=True)


def _visits(world: World, identity: int) -> Iterator[tuple[Crop, bool]]:
    """Images of an identity, and whether each is the first one of its camera."""
    rng = _rng(world, VISITS, identity)
    num_cameras = int(rng.integers(2, world.num_cameras + 1))
    for camera in sorted(rng.permutation(world.num_cameras)[:num_cameras].tolist()):
        frame = int(rng.integers(1, 90_000))
        for number in range(int(rng.integers(2, 2 * world.images_per_camera - 1))):
            name = _market_name(f"{identity:04d}", camera + 1, frame, number + 1)
            yield Crop(name, (IDENTITY, identity), camera + 1, number, junk=False), number == 0
            frame += 25


def _market_name(identity: str, camera: int, frame: int, box: int) -> str:
    return f"{identity}_c{camera}s1_{frame:06d}_{box:02d}.jpg"


def _draw_crops(tree: Path, world: World, crops: list[Crop]) -> int:
    """Draw and write the images of one person; returns how many."""
    for crop in crops:
        person = random_person(_rng(world, *crop.person))
        camera = _camera(world.seed, crop.camera)
        rng = _rng(world, JUNK_BOX if crop.junk else IMAGE, *crop.person, crop.camera, crop.number)
        empty = crop.junk and rng.random() < 0.3
        framing = spoiled_framing(rng) if crop.junk else random_framing(rng)
        image = draw_pedestrian(
            None if empty else person,
            camera,
            rng=rng,
            height=world.height,
            width=world.width,
            framing=framing,
        )
        # Through memory: Pillow, writing to a file itself, says nothing when a full disk cuts it short.
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=camera.jpeg_quality)
        (tree / crop.path).write_bytes(encoded.getvalue())
    return len(crops)


@lru_cache(maxsize=256)
def _camera(seed: int, number: int) -> Camera:
    return random_camera(np.random.default_rng((seed, CAMERA, number)))


def _rng(world: World, *key: int) -> np.random.Generator:
    return np.random.default_rng((world.seed, *key))
