"""Synthetic pedestrians: crops of made-up people under made-up cameras, drawn from a seed.

>>> import numpy as np
>>> person, camera = random_person(np.random.default_rng(7)), random_camera(np.random.default_rng(1))
>>> draw_pedestrian(person, camera, rng=np.random.default_rng(0)).size
(64, 128)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from reidkit.datasets.synthetic.clothes import Person, random_person, wardrobe
from reidkit.datasets.synthetic.figures import Joints, Part, Pixels, Point, Pose, View, render, walking_joints
from reidkit.datasets.synthetic.scenes import (
    Camera,
    backdrop,
    draw_bush,
    draw_car,
    random_camera,
    sense,
    to_image,
)

__all__ = [
    "Camera",
    "Framing",
    "Person",
    "draw_pedestrian",
    "random_camera",
    "random_framing",
    "random_person",
    "spoiled_framing",
]


@dataclass(frozen=True, slots=True)
class Framing:
    """Where a detector's box lies around a person: ``fill`` is the share of the box's height that the person
    takes, ``right`` and ``down`` the person's shift from the middle in box widths and box heights,
    ``stretch`` how much wider a person becomes when the box is brought to the size of the image."""

    fill: float
    right: float
    down: float
    stretch: float = 1.0


def random_framing(rng: np.random.Generator) -> Framing:
    """A box as detectors make them: mostly good, now and then cutting feet or head."""
    stretch = rng.uniform(1.1, 1.4)
    if rng.random() < 0.12:
        down = rng.choice((-1, 1)) * rng.uniform(0.04, 0.1)
        return Framing(rng.uniform(1.05, 1.22), rng.normal(0, 0.05), down, stretch)
    return Framing(rng.uniform(0.86, 0.97), rng.normal(0, 0.04), rng.normal(0, 0.015), stretch)


def spoiled_framing(rng: np.random.Generator) -> Framing:
    """A box that shows half a person or less."""
    stretch = rng.uniform(1.0, 1.4)
    if rng.random() < 0.5:
        down = rng.choice((-1, 1)) * rng.uniform(0.3, 0.7)
        return Framing(rng.uniform(1.7, 2.6), rng.normal(0, 0.3), down, stretch)
    right = rng.choice((-1, 1)) * rng.uniform(0.42, 0.6)
    return Framing(rng.uniform(0.5, 1.1), right, rng.normal(0, 0.15), stretch)


def draw_pedestrian(
    person: Person | None,
    camera: Camera,
    *,
    rng: np.random.Generator,
    height: int = 128,
    width: int = 64,
    framing: Framing | None = None,
) -> Image.Image:
    """Draw one image of a person; without a person, an empty box.

    Pose, viewpoint, light, box, place in the street and what stands in the way come from ``rng``: the same
    state gives the same pixels. ``height`` and ``width`` are in pixels.
    """
    framing = framing or random_framing(rng)
    scene = backdrop(camera, rng=rng, height=height, width=round(width / framing.stretch))
    if rng.random() < 0.2:
        _add_passer_by(scene, camera, rng, framing, before=False)
    if person is not None:
        _add_person(scene, person, camera, rng, framing)
    event = rng.random()
    if event < 0.04:
        _add_passer_by(scene, camera, rng, framing, before=True)
    elif event < 0.13:
        _add_obstacle(scene, rng)
    _light(scene, camera, rng)
    return sense(scene, camera, rng=rng, width=width)


def _add_person(
    scene: Pixels, person: Person, camera: Camera, rng: np.random.Generator, framing: Framing
) -> None:
    height, width = scene.shape[:2]
    pose = _random_pose(person, rng)
    # Head to toe as seen from the camera; looking down shortens it, but adds the feet's depth.
    seen_height = person.build.height * cos(camera.tilt) + 0.22 * sin(camera.tilt)
    view = View(
        yaw=camera.headings[rng.integers(len(camera.headings))] + rng.normal(0, 0.3),
        tilt=camera.tilt,
        scale=height * framing.fill / seen_height,
        x=width * (0.5 + framing.right),
        y=height * (0.5 + 0.485 * framing.fill + framing.down - 0.1 * sin(camera.tilt) / seen_height),
        light=camera.light,
        ambient=camera.ambient,
    )
    colour, coverage = render(figure(person, pose), view, height=height, width=width)
    _cast_shadow(scene, coverage, view, camera)
    scene *= 1 - coverage
    scene += colour


def _random_pose(person: Person, rng: np.random.Generator) -> Pose:
    walking = rng.random() < 0.85
    elbows = [rng.uniform(0.08, 0.45), rng.uniform(0.08, 0.45)]
    # Now and then a hand is at a phone or in a pocket.
    if rng.random() < 0.15:
        elbows[rng.integers(2)] = rng.uniform(1.3, 2.0)
    if person.bag in ("handbag", "shoulder"):
        elbows[person.bag_side] = 0.12
    return Pose(
        phase=rng.uniform(0, 2 * pi),
        stride=person.stride * (rng.uniform(0.7, 1.1) if walking else 0.12),
        arm_swing=(rng.uniform(0.25, 0.65) if walking else 0.08),
        elbows=(elbows[0], elbows[1]),
        arm_spread=0.09 + 0.1 * (person.build.girth - 0.9) + rng.uniform(0, 0.06),
        lean=rng.normal(0.05, 0.03),
        head_turn=rng.normal(0, 0.3),
    )


def figure(person: Person, pose: Pose) -> list[Part]:
    """The parts of a dressed person in a pose."""
    joints = walking_joints(person.build, pose)
    parts = [*_trunk(person, joints), *_head(person, joints, pose), *_bag(person, joints)]
    for side in ("left", "right"):
        parts += _leg(person, joints, side)
        parts += _arm(person, joints, side)
    return parts


def _trunk(person: Person, joints: Joints) -> list[Part]:
    clothes, build = wardrobe(person), person.build
    shoulder, hip = build.shoulder_half, build.hip_half
    padding = 0.014 if person.top.kind in ("jacket", "coat") else 0.004
    waist = 0.082 * build.height * build.girth**1.2
    loose = 0.2 if person.top.kind == "dress" else 0.6
    middle = waist + loose * max(0.0, hip - waist)
    depth = 0.58 + 0.25 * max(0.0, build.girth - 0.9)
    neck, hips = joints["neck"], joints["hips"]
    low = _between(neck, hips, 1.07)
    outline = np.array([0.36, 0.66, 0.86, 0.95, 0.96, 0.93, 0.9]) * shoulder
    outline = np.concatenate(
        [outline, np.linspace(outline[-1], middle, 4)[1:], [middle, hip + 0.006, hip + 0.012]]
    )
    belt, seat = _between(neck, hips, 0.95), _between(neck, hips, 1.17)
    parts = [
        Part(neck, low, _floats(outline + padding), clothes.torso, depth, round_ends=False),
        Part(belt, seat, (hip - 0.02, hip, 0.84 * hip), clothes.hips, depth),
        Part(_between(neck, joints["head"], 0.4), _between(neck, hips, 0.06), (0.050, 0.054), clothes.skin),
    ]
    if person.coat_hem or person.bottom.kind == "skirt":
        parts.append(_skirt(person, joints, hip + padding))
    return parts


def _skirt(person: Person, joints: Joints, hip: float) -> Part:
    """The cloth around both legs, as wide and deep as the step below it."""
    hem = person.coat_hem or person.hem
    left, right = (_along_leg(joints, side, hem) for side in ("left", "right"))
    waist = _between(joints["neck"], joints["hips"], 0.78)
    low = (0.0, min(left[1], right[1]) + 0.02, (left[2] + right[2]) / 2)
    flare = max(1.02 * hip, 0.05 + 0.10 * person.build.girth + 0.04 * hem)
    reach = abs(left[2] - right[2]) / 2 + 0.09 * person.build.girth
    depth = float(np.clip(reach / flare, 0.66, 1.5))
    return Part(waist, low, (0.92 * hip, 1.03 * hip, flare), wardrobe(person).skirt, depth, round_ends=False)


def _along_leg(joints: Joints, side: str, share: float) -> Point:
    hip, knee, ankle = (joints[f"{side} {name}"] for name in ("hip", "knee", "ankle"))
    return _between(hip, knee, 2 * share) if share < 0.5 else _between(knee, ankle, 2 * share - 1)


def _leg(person: Person, joints: Joints, side: str) -> list[Part]:
    clothes, girth = wardrobe(person), 0.3 + 0.7 * person.build.girth
    hip, knee, ankle, heel, toe = (
        joints[f"{side} {name}"] for name in ("hip", "knee", "ankle", "heel", "toe")
    )
    places = np.linspace(0, 1, 9)
    widths = girth * np.array([0.076, 0.084, 0.078, 0.064, 0.054, 0.054, 0.056, 0.046, 0.037])
    if person.bottom.kind in ("trousers", "shorts"):
        cloth = widths + 0.006 + person.slack * (0.3 + places)
        widths = np.where(places <= person.hem, np.maximum(cloth, 0.05 + 0.5 * person.slack), widths)
    half = len(clothes.leg) // 2
    below = 0.02
    sole = [(x, y - below, z) for x, y, z in (heel, toe)]
    return [
        Part(hip, knee, _floats(widths[:5]), clothes.leg[:half]),
        Part(knee, ankle, _floats(widths[4:]), clothes.leg[half:]),
        Part(heel, toe, (0.044, 0.043, 0.034), clothes.shoe),
        Part(sole[0], sole[1], (0.041, 0.043, 0.034), clothes.sole),
    ]


def _arm(person: Person, joints: Joints, side: str) -> list[Part]:
    clothes, girth = wardrobe(person), 0.4 + 0.6 * person.build.girth
    shoulder, elbow, hand = (joints[f"{side} {name}"] for name in ("shoulder", "elbow", "hand"))
    widths = girth * np.array([0.050, 0.047, 0.040, 0.036, 0.026])
    cover = 0.014 if person.top.kind in ("jacket", "coat") else 0.006
    widths += np.where(np.linspace(0, 1, 5) <= person.sleeve, cover, 0)
    half = len(clothes.arm) // 2
    return [
        Part(shoulder, elbow, _floats(widths[:3]), clothes.arm[:half]),
        Part(elbow, hand, _floats(widths[2:]), clothes.arm[half:]),
        Part(hand, _between(elbow, hand, 1.25), (0.028, 0.034, 0.026), clothes.skin),
    ]


def _head(person: Person, joints: Joints, pose: Pose) -> list[Part]:
    clothes, turn = wardrobe(person), pose.head_turn
    x, y, z = joints["head"]
    half = 0.118
    oval = _rounded(0.081, 2) * np.linspace(1.06, 0.88, 13)

    def around_head(larger: float, higher: float, texture: Pixels) -> Part:
        top, low = (x, y + half + higher, z - 0.4 * higher), (x, y - half, z - 0.4 * higher)
        return Part(top, low, _floats(larger * oval), texture, 1.17, round_ends=False, turn=turn)

    def behind(start: Point, end: Point, widths: tuple[float, ...], depth_ratio: float = 1.0) -> Part:
        """Hair that hangs; places are seen from the middle of the head."""
        places = [(x + a, y + b, z + c) for a, b, c in (start, end)]
        return Part(places[0], places[1], widths, clothes.strand, depth_ratio)

    parts = [around_head(1.0, 0.0, clothes.head), around_head(1.13, 0.014, clothes.hair)]
    match person.hair:
        case "long":
            parts.append(behind((0, 0.03, -0.05), (0, -0.28, -0.10), (0.08, 0.092, 0.098, 0.095, 0.06), 0.5))
        case "bob":
            parts.append(behind((0, 0.02, -0.035), (0, -0.11, -0.035), (0.085, 0.096, 0.092), 0.75))
        case "tail":
            parts.append(behind((0, 0.04, -0.11), (0, -0.20, -0.15), (0.03, 0.044, 0.038, 0.015)))
        case "bun":
            parts.append(behind((0, 0.08, -0.11), (0, 0.06, -0.12), (0.046, 0.046)))
    if person.hat != "none":
        parts.append(around_head(1.25, 0.026, clothes.hat))
    brim = clothes.hat[:1]
    if person.hat == "cap":
        peak = (x + 0.19 * sin(turn), y + 0.03, z + 0.19 * cos(turn))
        parts.append(Part((x, y + 0.055, z + 0.05), peak, (0.05, 0.055, 0.02), brim))
    elif person.hat == "brim":
        parts.append(Part((x, y + 0.06, z), (x, y + 0.045, z), (0.14, 0.165), brim, round_ends=False))
    return parts


def _bag(person: Person, joints: Joints) -> list[Part]:
    clothes, neck, hips = wardrobe(person), joints["neck"], joints["hips"]
    side, out = ("left", 1.0) if person.bag_side == 0 else ("right", -1.0)
    match person.bag:
        case "backpack":
            (_, top, z), (_, low, _) = _between(neck, hips, 0.06), _between(neck, hips, 0.86)
            z -= 0.13 + 0.08 * max(0.0, person.build.girth - 0.9)
            widths = _floats(_rounded(0.155, 4))
            return [Part((0, top, z), (0, low, z), widths, clothes.bag, 0.6, round_ends=False)]
        case "shoulder":
            x, y, z = out * (person.build.hip_half + 0.05), hips[1], -0.02
            widths = _floats(_rounded(0.06, 5))
            return [Part((x, y + 0.10, z), (x, y - 0.17, z), widths, clothes.bag, 2.7, round_ends=False)]
        case "handbag":
            x, y, z = _between(joints[f"{side} elbow"], joints[f"{side} hand"], 1.2)
            widths = _floats(_rounded(0.055, 5))
            return [
                Part((x, y, z), (x, y - 0.12, z), (0.012, 0.012), clothes.bag[:1]),
                Part((x, y - 0.10, z), (x, y - 0.36, z), widths, clothes.bag, 2.9, round_ends=False),
            ]
    return []


def _rounded(half_width: float, power: float) -> NDArray[np.float64]:
    """Half widths of an outline closed at both ends: an oval for power 2, nearly a box for 5."""
    places = np.linspace(-1, 1, 13)
    return half_width * (1 - np.abs(places) ** power) ** (1 / power)


def _floats(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(values.tolist())


def _between(a: Point, b: Point, share: float) -> Point:
    return (a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2]))


def _cast_shadow(scene: Pixels, coverage: Pixels, view: View, camera: Camera) -> None:
    """Darken the ground: below the feet, and along the shadow where the sun shines."""
    height, width = coverage.shape[:2]
    mask = Image.new("L", (width, height))
    reach = 0.27 * view.scale
    flat = reach * (0.22 + sin(camera.tilt))
    ImageDraw.Draw(mask).ellipse((view.x - reach, view.y - flat, view.x + reach, view.y + flat), fill=115)
    shadow = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.02 * height)), dtype=np.float32) / 255
    if camera.sun:
        shear = 2.2 * (-1 if camera.light[0] > 0 else 1)
        squeeze = 1 / (0.25 + sin(camera.tilt))
        affine = (1, shear, -shear * view.y, 0, squeeze, view.y * (1 - squeeze))
        body = to_image(coverage[..., 0]).transform(mask.size, Image.Transform.AFFINE, affine)
        body = body.filter(ImageFilter.GaussianBlur(0.006 * height))
        shadow = np.maximum(shadow, camera.sun * np.asarray(body, dtype=np.float32) / 255)
    scene *= 1 - shadow[..., None]


def _add_passer_by(
    scene: Pixels, camera: Camera, rng: np.random.Generator, framing: Framing, *, before: bool
) -> None:
    """Somebody else, half out of the box: behind the person, or before and lower."""
    side = rng.choice((-1, 1)) * rng.uniform(0.42, 0.62)
    nearer = rng.uniform(1.0, 1.2) if before else rng.uniform(0.75, 0.98)
    other = Framing(
        framing.fill * nearer, framing.right + side, 0.1 * (nearer - 1) + framing.down, framing.stretch
    )
    _add_person(scene, random_person(rng), camera, rng, other)


def _add_obstacle(scene: Pixels, rng: np.random.Generator) -> None:
    """A post, a bush or a parked car between the camera and the person."""
    height, width = scene.shape[:2]
    layer = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(layer)
    match rng.integers(3):
        case 0:
            x = rng.uniform(0, width)
            grey = int(rng.uniform(40, 150))
            draw.rectangle((x, 0, x + rng.uniform(0.05, 0.12) * width, height), fill=(grey, grey, grey + 6))
        case 1:
            left = rng.uniform(-0.5, 0.6) * width
            draw_bush(draw, rng, (left, height * rng.uniform(0.62, 0.85), left + 0.9 * width, height * 1.05))
        case _:
            paint = ((150, 28, 30), (200, 200, 198), (44, 48, 56), (60, 84, 130))[rng.integers(4)]
            draw_car(draw, width * rng.uniform(-1.4, 0.4), height * rng.uniform(1.0, 1.12), width / 80, paint)
    pixels = np.asarray(layer, dtype=np.float32) / 255
    scene *= 1 - pixels[..., 3:]
    scene += pixels[..., :3] * pixels[..., 3:]


def _light(scene: Pixels, camera: Camera, rng: np.random.Generator) -> None:
    """Light that changes over the picture, and now and then the edge of a building's shadow."""
    height, width = scene.shape[:2]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    right = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    scene *= 1 + np.float32(rng.normal(0, 0.07)) * down + np.float32(rng.normal(0, 0.07)) * right
    if rng.random() < 0.6 * camera.sun:
        edge = (
            down * np.float32(rng.normal(0, 1))
            + right * np.float32(rng.normal(0, 1))
            + np.float32(rng.normal(0, 0.6))
        )
        scene *= 1 - np.float32(rng.uniform(0.2, 0.42)) * (edge > 0)
