"""A jointed human figure: how it walks, and how round, textured parts become pixels.

Lengths are metres. Body coordinates are (to the person's left, up, forward) with the origin on the ground
below the hips. A part is a line between two joints with an elliptic cut around it; parts are drawn into a
depth buffer, so that limbs cover one another as they should from every side.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import cos, pi, sin, sqrt

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Point = tuple[float, float, float]

SUPERSAMPLING = 2
TABLE_SIZE = 48
TABLE_PLACES = np.linspace(0, 1, TABLE_SIZE)


@dataclass(frozen=True, slots=True)
class Build:
    """A body's proportions. ``height`` is in metres, the rest are factors around 1."""

    height: float
    girth: float
    shoulders: float
    hips: float
    legs: float

    @property
    def shoulder_half(self) -> float:
        return 0.103 * self.height * self.shoulders

    @property
    def hip_half(self) -> float:
        return 0.092 * self.height * self.hips * (0.4 + 0.6 * self.girth)


@dataclass(frozen=True, slots=True)
class Pose:
    """One moment of a walk. Angles are radians; pairs are (left, right).

    ``phase`` runs over one stride (two steps) in 0..2 pi; ``stride`` is the amplitude of the thighs.
    """

    phase: float
    stride: float
    arm_swing: float
    elbows: tuple[float, float]
    arm_spread: float
    lean: float
    head_turn: float


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A round piece of a figure from ``start`` to ``end``, which is the lower end.

    ``half_widths`` (K,) are sideways half axes at even steps; ``depth_ratio`` is half depth / half width.
    ``texture`` is (rows from start to end, columns around the body, RGBA) in 0..1; its middle column faces
    forward. ``turn`` turns the part about its axis against the body, in radians.
    """

    start: Point
    end: Point
    half_widths: tuple[float, ...]
    texture: Pixels
    depth_ratio: float = 1.0
    round_ends: bool = True
    turn: float = 0.0


@dataclass(frozen=True, slots=True)
class View:
    """Where the figure stands in the image: ``yaw`` 0 faces the camera, pi shows the back.

    ``tilt`` is how far the camera looks down, radians; ``scale`` pixels a metre; ``(x, y)`` the pixel of
    the ground point below the hips; ``light`` the direction towards the light (right, up, to the camera);
    ``ambient`` the brightness of what the light does not reach.
    """

    yaw: float
    tilt: float
    scale: float
    x: float
    y: float
    light: Point
    ambient: float

    def project(self, point: Point) -> Point:
        """Body coordinates to (column, row, depth towards the camera), all in pixels."""
        left, up, forward = point
        right = left * cos(self.yaw) + forward * sin(self.yaw)
        near = forward * cos(self.yaw) - left * sin(self.yaw)
        row = self.y - (up * cos(self.tilt) - near * sin(self.tilt)) * self.scale
        depth = (near * cos(self.tilt) + up * sin(self.tilt)) * self.scale
        return self.x + right * self.scale, row, depth


Joints = dict[str, Point]


def walking_joints(build: Build, pose: Pose) -> Joints:
    """Places of hips, neck and head, and of each side's joints from toe to hand ("left knee")."""
    height = build.height
    thigh = shank = 0.242 * height * build.legs
    upper_arm, forearm = 0.166 * height, 0.158 * height
    # The standing foot carries the body: the hips are as high as the straighter leg is long.
    legs = [_leg_angles(pose, side) for side in (0, 1)]
    hip_height = 0.045 * height + max(thigh * cos(a) + shank * cos(b) for a, b in legs)
    neck_height = hip_height + 0.315 * height / (0.5 + 0.5 * build.legs) * cos(pose.lean)
    neck = (0.0, neck_height, 0.315 * height * sin(pose.lean))
    joints: Joints = {
        "hips": (0.0, hip_height, 0.0),
        "neck": neck,
        "head": (0.0, neck_height + 0.03 * height + 0.095, neck[2] + 0.012 * height),
    }
    for side, name in enumerate(("left", "right")):
        out = 1.0 if side == 0 else -1.0
        thigh_angle, shank_angle = legs[side]
        hip = (out * 0.5 * build.hip_half, hip_height, 0.0)
        knee = _step(hip, thigh, thigh_angle, out * 0.03)
        ankle = _step(knee, shank, shank_angle, -out * 0.03)
        pitch = 0.25 + 0.9 * max(0.0, -shank_angle - 0.25)
        foot = 0.088 * height
        heel = (ankle[0], ankle[1] - 0.012 * height, ankle[2] - 0.018 * height)
        toe = (ankle[0] + out * 0.02, heel[1] - foot * sin(pitch) * 0.75, heel[2] + foot * 1.5 * cos(pitch))
        arm_angle = -pose.arm_swing * sin(pose.phase + pi * side)
        shoulder = (out * 0.9 * build.shoulder_half, neck_height - 0.045 * height, neck[2])
        elbow = _step(shoulder, upper_arm, arm_angle, out * pose.arm_spread)
        # A bent forearm swings in front of the body.
        inward = -out * 0.45 * min(1.0, pose.elbows[side] / 1.6)
        hand = _step(elbow, forearm, arm_angle + pose.elbows[side], inward + out * 0.3 * pose.arm_spread)
        places = {"hip": hip, "knee": knee, "ankle": ankle, "heel": heel, "toe": toe}
        places |= {"shoulder": shoulder, "elbow": elbow, "hand": hand}
        joints |= {f"{name} {joint}": place for joint, place in places.items()}
    return joints


def _leg_angles(pose: Pose, side: int) -> tuple[float, float]:
    """Angles of thigh and shank forward of the vertical; the knee bends while the leg swings forward."""
    phase = pose.phase + pi * side
    thigh = pose.stride * sin(phase) + 0.15 * pose.stride
    knee = 0.06 + pose.stride * (1.5 * max(0.0, cos(phase)) ** 1.5 + 0.25 * max(0.0, -sin(phase)))
    return thigh, thigh - knee


def _step(start: Point, length: float, forward: float, sideways: float) -> Point:
    """The end of a limb that hangs down, swung forward and sideways by these angles."""
    down = length * cos(sideways)
    return (
        start[0] + length * sin(sideways),
        start[1] - down * cos(forward),
        start[2] + down * sin(forward),
    )


def render(parts: list[Part], view: View, *, height: int, width: int) -> tuple[Pixels, Pixels]:
    """Draw parts into an empty image.

    ``view`` is in pixels of that image. Returns colours (height, width, 3) multiplied by the coverage, and
    the coverage (height, width, 1), both in 0..1.
    """
    n = SUPERSAMPLING
    fine = View(view.yaw, view.tilt, view.scale * n, view.x * n, view.y * n, view.light, view.ambient)
    image = np.zeros((height * n, width * n, 4), dtype=np.float32)
    depth = np.full(image.shape[:2], -np.inf, dtype=np.float32)
    for part in parts:
        _draw(part, fine, image, depth)
    # Faster than a mean over two short axes.
    coarse = np.zeros((height, width, 4), dtype=np.float32)
    for i, j in itertools.product(range(n), repeat=2):
        coarse += image[i::n, j::n] / np.float32(n * n)
    return coarse[..., :3], coarse[..., 3:]


def _draw(part: Part, view: View, image: Pixels, depth: Pixels) -> None:
    """Draw one part where it is nearer than what is there."""
    x0, y0, z0 = view.project(part.start)
    x1, y1, z1 = view.project(part.end)
    length = max(sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2), 1e-3)
    down_x, down_y = (x1 - x0) / length, (y1 - y0) / length
    yaw, ratio = view.yaw + part.turn, part.depth_ratio
    # An ellipse of half axes (a, ratio a) turned by yaw has the half width a * seen_width in the image.
    seen_width = sqrt(cos(yaw) ** 2 + (ratio * sin(yaw)) ** 2)
    seen_depth = ratio / seen_width**2
    skew = (ratio**2 - 1) * sin(yaw) * cos(yaw) / seen_width**2

    profile = np.interp(TABLE_PLACES, np.linspace(0, 1, len(part.half_widths)), part.half_widths)
    half_table = np.maximum(profile * view.scale * seen_width, 1e-3).astype(np.float32)
    reach = float(half_table.max()) + 1
    top, bottom = max(int(min(y0, y1) - reach), 0), min(int(max(y0, y1) + reach) + 1, depth.shape[0])
    left, right = max(int(min(x0, x1) - reach), 0), min(int(max(x0, x1) + reach) + 1, depth.shape[1])
    if top >= bottom or left >= right:
        return

    dx = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5 - x0)
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y0)
    along = dx * np.float32(down_x) + dy * np.float32(down_y)
    across = dx * np.float32(down_y) - dy * np.float32(down_x)
    step = np.clip(along * np.float32(TABLE_SIZE / length), 0, TABLE_SIZE - 1).astype(np.intp)
    half = half_table[step]
    beyond = np.minimum(along, 0) + np.maximum(along - np.float32(length), 0)
    square = (across**2 + beyond**2) / half**2
    nearness = np.sqrt(np.maximum(1 - square, 0))  # 1 on the axis, 0 on the outline
    # Seen from above, the near side of a ring hangs lower than its outline.
    bulge = nearness * half * np.float32(seen_depth * sin(view.tilt) * down_y / length)
    place = along / np.float32(length) - bulge
    z = np.float32(z0) + np.clip(place, 0, 1) * np.float32(z1 - z0)
    z += across * np.float32(skew) + nearness * half * np.float32(seen_depth)
    visible = (square < 1) & (z > depth[top:bottom, left:right])
    if not part.round_ends:
        visible &= (place >= 0) & (place <= 1)

    sine = across[visible] / half[visible]
    colour = _texture_at(part, yaw, place[visible], sine)
    slope = np.gradient(half_table, length / TABLE_SIZE).astype(np.float32)
    steepness = slope[step[visible]] - beyond[visible] / half[visible]
    colour[:, :3] *= _brightness(view, sine, steepness, nearness[visible])[:, None]
    opaque = colour[:, 3] > 0.5
    visible[visible] = opaque
    image[top:bottom, left:right][visible] = colour[opaque]
    depth[top:bottom, left:right][visible] = z[visible]


def _texture_at(part: Part, yaw: float, place: Pixels, sine: Pixels) -> Pixels:
    """RGBA of points (P,) at ``place`` down the part, ``sine`` off its axis (-1 and 1 are the outlines)."""
    rows, columns = part.texture.shape[:2]
    row = np.clip(place * rows, 0, rows - 1).astype(np.intp)
    if columns == 1:
        return np.asarray(part.texture[row, 0])
    middle = np.arctan2(part.depth_ratio * sin(yaw), cos(yaw))
    around = np.arcsin(np.clip(sine, -1, 1)) - np.float32(middle)
    column = ((around / np.float32(2 * pi) + 0.5) * columns).astype(np.intp) % columns
    return np.asarray(part.texture[row, column])


def _brightness(view: View, sine: Pixels, steepness: Pixels, nearness: Pixels) -> Pixels:
    """Light on points (P,) whose surface looks (sine, steepness, nearness): right, up, to the camera."""
    right, up, near = view.light
    lit = sine * np.float32(right) + np.clip(steepness, -1, 1) * np.float32(up) + nearness * np.float32(near)
    # Outlines are a little darker, so that limbs stand off from the body.
    rim = np.float32(0.78) + np.float32(0.22) * nearness
    bright: Pixels = (np.float32(view.ambient) + np.float32(1 - view.ambient) * np.maximum(lit, 0)) * rim
    return bright
