"""Drawn people who walk through several cameras, one after the other: pictures of video, and who is where.

Everybody walks through some of the cameras, straight across the picture at a distance of their own; who is
nearer covers who is farther, and posts cover all. Cameras see people from other sides and in other colours,
and their clocks begin at other times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import pi, sin
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.datasets.synthetic.clothes import Person, random_person
from reidkit.datasets.synthetic.figures import Pixels, Pose, View, render
from reidkit.datasets.synthetic.people import figure
from reidkit.datasets.synthetic.scenes import Camera, random_camera, street, to_pixels
from reidkit.errors import ConfigError

Picture = NDArray[np.uint8]
Corners = tuple[float, float, float, float]

_PERSON, _CAMERA, _WALKS, _SENSOR, _DETECTOR = range(5)
_PHASES = 12  # pictures of one stride
_STRIDE = 1.3  # metres of two steps
_POSTS = 2
_SIDES = 1.2  # a figure's picture is so much wider than half its height
_LEAST_SEEN = 0.15  # share of a person that must be in sight for the truth to name it


@dataclass(frozen=True, slots=True)
class WalksWorld:
    """What is drawn; the same values give the same pictures.

    ``rate`` is pictures a second, ``visits`` how many cameras a person walks through, on average;
    ``width`` and ``height`` are in pixels, ``seed`` is of all.
    """

    num_people: int = 30
    num_cameras: int = 4
    seconds: float = 300.0
    rate: int = 10
    width: int = 640
    height: int = 360
    visits: float = 3.0
    seed: int = 0


class Visit(NamedTuple):
    """One person before one camera: enters at ``enter`` (seconds), walks ``speed`` pixels a second.

    ``direction`` is 1 to the right and -1 to the left, ``depth`` 0 for the farthest and 1 for the nearest,
    ``yaw`` how the person is turned to the camera. In ``rests`` seconds from ``rest_at`` on nobody moves.
    """

    person: int
    camera: int
    enter: float
    speed: float
    direction: int
    depth: float
    yaw: float
    rest_at: float
    rests: float


class Seen(NamedTuple):
    """A person in a picture: the box around what could be seen, and the share that is in sight."""

    person: int
    corners: Corners
    visible: float


def plan_walks(world: WalksWorld) -> list[Visit]:
    """Who walks where and when: every person through some cameras in turn, with a pause between.

    Raises :class:`ConfigError` for numbers that make no world.
    """
    if min(world.num_people, world.num_cameras, world.seconds, world.rate) < 1 or world.height < 64:
        raise ConfigError(f"{world} makes no world: give 1 or more of each, and 64 pixels of height or more")
    visits = []
    for person in range(world.num_people):
        rng = np.random.default_rng((world.seed, _WALKS, person))
        num = int(np.clip(rng.poisson(world.visits - 1) + 1, 1, world.num_cameras))
        now = float(rng.uniform(0, 0.7 * world.seconds))
        for camera in rng.permutation(world.num_cameras)[:num].tolist():
            depth = float(rng.uniform(0, 1))
            direction = int(rng.choice((-1, 1)))
            scale = _scale(world, depth)
            rests = float(rng.uniform(2, 6)) if rng.random() < 0.3 else 0.0
            visit = Visit(
                person,
                camera,
                now,
                speed=float(rng.uniform(0.9, 1.6)) * scale,
                direction=direction,
                depth=depth,
                yaw=direction * pi / 2 + float(rng.uniform(-0.9, 0.9)),
                rest_at=float(rng.uniform(2, 5)),
                rests=rests,
            )
            visits.append(visit)
            now = _leave(world, visit) + float(rng.uniform(3, 20))
    return visits


def pictures(world: WalksWorld, camera: int, visits: list[Visit]) -> Iterator[tuple[Picture, list[Seen]]]:
    """The pictures of one camera (from 0), and who is in each."""
    eye = random_camera(np.random.default_rng((world.seed, _CAMERA, camera)))
    rng = np.random.default_rng((world.seed, _SENSOR, camera))
    scene = _scene(world, eye, rng)
    noise = rng.normal(0, 255 * eye.noise, (8, world.height, world.width, 1)).astype(np.int16)
    posts = _posts(world, rng)
    own = sorted((visit for visit in visits if visit.camera == camera), key=lambda visit: visit.depth)
    for number in range(round(world.seconds * world.rate)):
        now = number / world.rate
        here = [v for v in own if v.enter <= now < _leave(world, v)]
        image, owner = scene.copy(), np.full(scene.shape[:2], -1, np.int32)
        whole = [_paint(image, owner, world, eye, visit, now) for visit in here]
        for left, right in posts:
            image[:, left:right] = (70, 72, 75)
            owner[:, left:right] = -1
        seen = [
            Seen(visit.person, corners, share)
            for visit, (corners, num) in zip(here, whole, strict=True)
            if num and (share := float(np.count_nonzero(owner == visit.person)) / num) >= _LEAST_SEEN
        ]
        grain = noise[rng.integers(len(noise))]
        yield np.clip(image.astype(np.int16) + grain, 0, 255).astype(np.uint8), seen


class Detected(NamedTuple):
    """A box as a detector would give it; ``person`` is -1 for a false alarm and not told to anybody."""

    frame: int
    corners: Corners
    confidence: float
    person: int


def detections(
    world: WalksWorld,
    camera: int,
    truth: list[list[Seen]],
    *,
    misses: float = 0.05,
    jitter: float = 0.03,
    false_alarms: float = 0.05,
) -> list[Detected]:
    """Boxes with the faults of detectors.

    Args:
        truth: who is in each picture, as :func:`pictures` tells.
        misses: share of the people in full sight that have no box; who is half hidden is missed more often.
        jitter: standard deviation of each side, as a share of the box.
        false_alarms: boxes a picture that show nobody.
    """
    rng = np.random.default_rng((world.seed, _DETECTOR, camera))
    found = []
    for frame, seen in enumerate(truth):
        for person, corners, visible in seen:
            if rng.random() < misses + 0.8 * max(0.0, 0.6 - visible):
                continue
            left, top, right, bottom = corners
            sizes = np.array([right - left, bottom - top] * 2)
            moved = np.array(corners) + rng.normal(0, jitter, 4) * sizes
            confidence = float(np.clip(0.45 + 0.5 * visible + rng.normal(0, 0.06), 0.05, 0.99))
            found.append(Detected(frame, _corners(moved), confidence, person))
        for _ in range(rng.poisson(false_alarms)):
            height = rng.uniform(0.2, 0.6) * world.height
            left, top = rng.uniform(0, world.width - height / 2), rng.uniform(0, world.height - height)
            box = np.array([left, top, left + 0.4 * height, top + height])
            found.append(Detected(frame, _corners(box), float(rng.uniform(0.1, 0.7)), -1))
    return found


def _paint(
    image: Picture, owner: NDArray[np.int32], world: WalksWorld, eye: Camera, visit: Visit, now: float
) -> tuple[Corners, int]:
    """Draw a person over what is there; the box of the part within the picture, and its pixels."""
    walked = _walked(visit, now)
    scale = _scale(world, visit.depth)
    phase = int(walked / scale / _STRIDE * _PHASES) % _PHASES
    colour, mask = _sprite(world, eye, visit.person, scale, round(visit.yaw, 3), phase)
    height, width = mask.shape
    middle = -width / 2 + walked if visit.direction > 0 else world.width + width / 2 - walked
    left, top = round(middle - width / 2), round(_ground(world, visit.depth) - height)
    first, last = max(0, -left), min(width, world.width - left)
    upper, lower = max(0, -top), min(height, world.height - top)
    if first >= last or upper >= lower:
        return (0.0, 0.0, 0.0, 0.0), 0
    part = mask[upper:lower, first:last]
    place = np.s_[top + upper : top + lower, left + first : left + last]
    image[place][part] = colour[upper:lower, first:last][part]
    owner[place][part] = visit.person
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0), 0
    corners = (
        left + first + float(columns[0]),
        top + upper + float(rows[0]),
        left + first + float(columns[-1] + 1),
        top + upper + float(rows[-1] + 1),
    )
    return corners, int(part.sum())


@lru_cache(maxsize=512)
def _sprite(
    world: WalksWorld, eye: Camera, number: int, scale: float, yaw: float, phase: int
) -> tuple[Picture, NDArray[np.bool_]]:
    """A person in a moment of the walk as a camera sees it: colours (h, w, 3), and where they are (h, w)."""
    person = _person(world.seed, number)
    height = round(1.12 * scale * person.build.height)
    width = round(_SIDES * height / 2)
    pose = Pose(2 * pi * phase / _PHASES, 0.9 * person.stride, 0.4, (0.2, 0.25), 0.11, 0.05, 0.0)
    feet = height - 0.25 * scale * sin(eye.tilt) - 2
    view = View(yaw, eye.tilt, scale, width / 2, feet, eye.light, eye.ambient)
    colour, coverage = render(figure(person, pose), view, height=height, width=width)
    mask = coverage[..., 0] > 0.5
    pixels = np.divide(colour, coverage, out=np.zeros_like(colour), where=coverage > 0)
    return _as_seen(pixels, eye), mask


@lru_cache(maxsize=256)
def _person(seed: int, number: int) -> Person:
    return random_person(np.random.default_rng((seed, _PERSON, number)))


def _as_seen(pixels: Pixels, eye: Camera) -> Picture:
    """The camera's colours of true ones in 0..1."""
    seen = np.maximum(pixels @ np.array(eye.matrix, dtype=np.float32).T, 0)
    seen = (seen * np.float32(eye.exposure)) ** np.float32(eye.gamma)
    seen = eye.haze + (0.5 + (seen - 0.5) * np.float32(eye.contrast)) * np.float32(1 - eye.haze)
    return np.asarray(np.clip(255 * seen, 0, 255), np.uint8)


def _scene(world: WalksWorld, eye: Camera, rng: np.random.Generator) -> Picture:
    panorama = street(eye)
    width = min(panorama.width, round(panorama.height * world.width / world.height))
    left = int(rng.integers(0, panorama.width - width + 1))
    piece = panorama.crop((left, 0, left + width, panorama.height))
    return _as_seen(to_pixels(piece.resize((world.width, world.height), Image.Resampling.BILINEAR)), eye)


def _posts(world: WalksWorld, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Columns that posts cover, which stand before everybody."""
    lefts = (rng.uniform(0.15, 0.85, _POSTS) * world.width).astype(int).tolist()
    return [(left, left + max(4, world.width // 40)) for left in lefts]


def _scale(world: WalksWorld, depth: float) -> float:
    """Pixels a metre: people are from 0.33 to 0.55 of the picture tall."""
    return world.height * (0.19 + 0.13 * depth)


def _ground(world: WalksWorld, depth: float) -> float:
    """The row on which a person's picture ends."""
    return world.height * (0.72 + 0.26 * depth)


def _walked(visit: Visit, now: float) -> float:
    """Pixels since the person came into the picture."""
    since = now - visit.enter
    rested = float(np.clip(since - visit.rest_at, 0, visit.rests))
    return visit.speed * (since - rested)


def _leave(world: WalksWorld, visit: Visit) -> float:
    """When a person is out of the picture."""
    width = _SIDES * 2.3 * _scale(world, visit.depth) / 2
    return visit.enter + (world.width + 2 * width) / visit.speed + visit.rests


def _corners(box: NDArray[np.float64]) -> Corners:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom
