"""The cameras of the synthetic world: their streets, the things in the way, and what their sensors do.

A camera has a panorama of its own, out of which every image cuts another piece, and a response of its own:
white balance, cross-talk between channels, exposure, contrast, gamma, blur, noise and JPEG quality.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from math import pi

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from reidkit.datasets.synthetic.figures import Pixels, Point

PANORAMA = (1536, 192)
"""Width and height of a camera's street in pixels; a crop sees about 96 x 192 of it."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A place and a sensor.

    The place: ``tilt`` is how far the camera looks down and ``headings`` the usual yaws of people who walk
    by, in radians; ``light`` the direction towards the light (right, up, to the camera), ``ambient`` the
    brightness of what it does not reach, ``sun`` the darkness of cast shadows; ``seed`` makes the street.

    The sensor, with values in 0..1: seen = (exposure * matrix @ colour) ** gamma, stretched by ``contrast``
    around the middle and lifted by ``haze``; ``blur`` is a standard deviation in pixels of an image 128
    high, ``noise`` one of values.
    """

    tilt: float
    headings: tuple[float, ...]
    light: Point
    ambient: float
    sun: float
    matrix: tuple[Point, Point, Point]
    exposure: float
    gamma: float
    contrast: float
    haze: float
    blur: float
    noise: float
    jpeg_quality: int
    seed: int


def random_camera(rng: np.random.Generator) -> Camera:
    """Draw a camera. Its street and response depend on ``rng`` alone."""
    saturation = rng.uniform(0.88, 1.1)
    grey = np.full((3, 3), 1 / 3)
    matrix = saturation * np.eye(3) + (1 - saturation) * grey + rng.normal(0, 0.012, (3, 3))
    balance = np.exp(rng.normal(0, 0.03, 3))
    matrix *= (balance / balance.mean() / matrix.sum(axis=1))[:, None]
    across = float(rng.uniform(0, 2 * pi))
    side = float(rng.uniform(-1, 1))
    light = np.array([side, rng.uniform(0.3, 0.9), rng.uniform(0.5, 1.0)])
    light /= np.linalg.norm(light)
    return Camera(
        tilt=float(rng.uniform(0.08, 0.36)),
        headings=(across, across + pi, across + float(rng.uniform(0.6, 2.4))),
        light=_triple(light),
        ambient=float(rng.uniform(0.58, 0.72)),
        sun=float(rng.choice((0.0, 0.25, 0.45))),
        matrix=(_triple(matrix[0]), _triple(matrix[1]), _triple(matrix[2])),
        exposure=float(np.exp(rng.normal(0.24, 0.08))),
        gamma=float(np.exp(rng.normal(0, 0.06))),
        contrast=float(rng.uniform(0.94, 1.06)),
        haze=float(rng.uniform(0.0, 0.03)),
        blur=float(rng.uniform(0.2, 0.7)),
        noise=float(rng.uniform(0.005, 0.02)),
        jpeg_quality=int(rng.integers(62, 93)),
        seed=int(rng.integers(2**31)),
    )


def sense(scene: Pixels, camera: Camera, *, rng: np.random.Generator, width: int) -> Image.Image:
    """What the camera makes of a scene of true colours (height, width, 3) in 0..1, brought to ``width``."""
    seen = np.maximum(scene @ np.array(camera.matrix, dtype=np.float32).T, 0)
    seen = (seen * np.float32(camera.exposure * rng.uniform(0.92, 1.09))) ** np.float32(camera.gamma)
    seen = 0.5 + (seen - 0.5) * np.float32(camera.contrast)
    seen = camera.haze + seen * np.float32(1 - camera.haze)
    seen += rng.standard_normal(seen.shape, dtype=np.float32) * np.float32(camera.noise)
    image = to_image(seen).resize((width, len(seen)), Image.Resampling.BILINEAR)
    # Blurring the noise too gives it the soft grain that a video codec leaves.
    return image.filter(ImageFilter.GaussianBlur(camera.blur * rng.uniform(0.7, 1.3) * scene.shape[0] / 128))


def backdrop(camera: Camera, *, rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A piece of the camera's street, (height, width, 3) in 0..1; another place on every call."""
    panorama = street(camera)
    zoom = rng.uniform(0.8, 1.0)
    piece_height = zoom * panorama.height
    piece_width = min(piece_height * width / height, panorama.width)
    left = rng.uniform(0, panorama.width - piece_width)
    top = rng.uniform(0, panorama.height - piece_height)
    box = (left, top, left + piece_width, top + piece_height)
    return to_pixels(panorama.resize((width, height), Image.Resampling.BILINEAR, box=box))


@lru_cache(maxsize=64)
def street(camera: Camera) -> Image.Image:
    """The whole panorama of a camera."""
    rng = np.random.default_rng(camera.seed)
    width, height = PANORAMA
    # The more the camera looks down, the more ground it sees.
    horizon = int(height * np.clip(0.75 - 1.5 * camera.tilt + rng.normal(0, 0.04), 0.12, 0.72))
    image = Image.new("RGB", PANORAMA)
    left = 0
    while left < width:
        # All streets are made of the same stuff, so that a background does not tell the camera.
        length = int(rng.integers(110, 300))
        image.paste(_ground(rng, length, height - horizon), (left, horizon))
        image.paste(_wall(rng, length, horizon), (left, 0))
        left += length
    draw = ImageDraw.Draw(image)
    draw.line((0, horizon, width, horizon), fill=(58, 56, 54), width=3)
    for _ in range(int(rng.integers(10, 22))):
        _draw_object(draw, rng, float(rng.uniform(0, width)), horizon)
    pixels = to_pixels(image)
    pixels *= _clouds(rng, (4, 32), 0.12) * _clouds(rng, (64, 512), 0.05)
    pixels += rng.normal(0, 0.025, (height, width, 1)).astype(np.float32)
    # Streets are paler than clothes.
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = np.float32(0.5) + (grey + 0.7 * (pixels - grey) - np.float32(0.5)) * np.float32(0.7)
    return to_image(pixels).filter(ImageFilter.GaussianBlur(0.7))


def to_pixels(image: Image.Image) -> Pixels:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def to_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def _ground(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A piece of road, pavement or lawn."""
    bases = {"asphalt": (104, 105, 108), "slabs": (158, 152, 143), "tiles": (146, 130, 118),
             "cobbles": (124, 120, 116), "grass": (92, 114, 70)}  # fmt: skip
    kind = str(rng.choice(list(bases), p=(0.26, 0.28, 0.18, 0.18, 0.1)))
    base = _shade(bases[kind], rng, 12)
    image = Image.new("RGB", (width, height), base)
    draw = ImageDraw.Draw(image)
    # Rows of stones are the wider the nearer they are.
    rows = {"slabs": 6, "tiles": 10, "cobbles": 14}.get(kind, 0)
    edges = height * np.linspace(0, 1, rows + 1) ** 1.3
    for upper, lower in itertools.pairwise(edges):
        size = (lower - upper) * (1.0 if kind == "cobbles" else 2.2) + 3
        for left in np.arange(-rng.uniform(0, size), width, size):
            stone = (left + 1, upper, left + size - 1, max(lower - 1, upper))
            draw.rectangle(stone, fill=_shade(base, rng, 9))
    if kind == "asphalt" and rng.random() < 0.5:
        left, y = rng.uniform(0, width / 2), rng.uniform(0.3, 0.7) * height
        draw.polygon([(left, y), (left + 80, y), (left + 74, y + 9), (left - 6, y + 9)], fill=(196, 194, 188))
    if kind == "grass":
        for x, y in rng.uniform(0, (width, height), (2 * width, 2)):
            draw.line((x, y, x + rng.uniform(-2, 2), y - rng.uniform(2, 5)), fill=_shade(base, rng, 26))
    return image


def _wall(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A piece of building, hedge or fence."""
    bases = {"bricks": (138, 84, 66), "panels": (172, 168, 160), "windows": (70, 80, 92),
             "hedge": (58, 84, 48), "shutters": (120, 128, 134), "rail": (146, 164, 178)}  # fmt: skip
    kind = str(rng.choice(list(bases)))
    base = _shade(bases[kind], rng, 20)
    image = Image.new("RGB", (width, height), base)
    draw = ImageDraw.Draw(image)
    match kind:
        case "bricks":
            for row, y in enumerate(range(0, height, 5)):
                for x in range(-6 * (row % 2), width, 12):
                    draw.rectangle((x, y, x + 10, y + 3), fill=_shade(base, rng, 12))
        case "panels":
            for x in range(0, width, 46):
                draw.rectangle((x, 0, x + 44, height), fill=_shade(base, rng, 7))
        case "windows":
            for x in range(3, width, 34):
                for y in range(height - 48, -48, -44):
                    draw.rectangle((x, y, x + 27, y + 37), fill=_shade((84, 104, 124), rng, 26))
        case "hedge":
            for x, y, size in rng.uniform((0, 0, 2), (width, height, 6), (3 * width, 3)):
                draw.ellipse((x - size, y - size, x + size, y + size * 0.6), fill=_shade(base, rng, 22))
        case "shutters":
            for y in range(0, height, 6):
                draw.line((0, y, width, y), fill=_shade(base, rng, 18), width=2)
        case _:
            draw.rectangle((0, 0.45 * height, width, height), fill=_shade((110, 116, 92), rng, 16))
            for x in range(0, width, 9):
                draw.line((x, 0.35 * height, x, height), fill=(66, 66, 70), width=2)
            draw.line((0, 0.35 * height, width, 0.35 * height), fill=(60, 60, 64), width=3)
    return image


def _draw_object(draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, horizon: int) -> None:
    """One thing that stands at the wall's foot or a little before it."""
    foot = horizon + float(rng.uniform(2, 26))
    match rng.choice(("car", "bicycle", "post", "bin", "door", "bush", "trunk", "poster")):
        case "car":
            paint = _shade(
                ((176, 30, 32), (206, 206, 204), (40, 44, 52), (60, 84, 130))[rng.integers(4)], rng, 10
            )
            draw_car(draw, x, foot, 1.0, paint)
        case "bicycle":
            for wheel in (x, x + 44):
                draw.ellipse((wheel, foot - 30, wheel + 30, foot), outline=(34, 34, 36), width=2)
            frame = [(x + 15, foot - 15), (x + 26, foot - 36), (x + 52, foot - 36), (x + 34, foot - 15)]
            draw.polygon(frame, outline=_shade((120, 60, 60), rng, 50), width=2)
            draw.line((x + 59, foot - 15, x + 50, foot - 44), fill=(40, 40, 42), width=2)
        case "post":
            draw.rectangle((x, foot - 150, x + 6, foot), fill=_shade((84, 88, 90), rng, 24))
        case "bin":
            draw.rectangle((x, foot - 40, x + 24, foot), fill=_shade((52, 84, 62), rng, 24))
            draw.rectangle((x - 2, foot - 44, x + 26, foot - 36), fill=(42, 44, 46))
        case "door":
            draw.rectangle((x, horizon - 110, x + 46, horizon), fill=_shade((92, 62, 44), rng, 28))
            draw.rectangle((x + 6, horizon - 100, x + 40, horizon - 58), fill=(60, 68, 76))
        case "bush":
            draw_bush(draw, rng, (x, foot - 44, x + 70, foot))
        case "trunk":
            draw.rectangle((x, 0, x + 16, foot), fill=_shade((84, 68, 52), rng, 14))
        case _:
            draw.rectangle((x, horizon - 96, x + 40, horizon - 40), fill=_shade((140, 120, 110), rng, 40))
            draw.rectangle((x + 6, horizon - 88, x + 34, horizon - 66), fill=_shade((150, 150, 150), rng, 60))


def draw_car(
    draw: ImageDraw.ImageDraw, x: float, foot: float, size: float, paint: tuple[int, int, int]
) -> None:
    """A car seen from its side, from ``x`` to the right, wheels at ``foot``, ``size`` x 130 pixels long."""

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x + a * size, foot - b * size) for a, b in points]

    draw.polygon(at((22, 28), (40, 52), (88, 52), (108, 28)), fill=(52, 60, 70))
    draw.polygon(at((0, 10), (2, 26), (22, 32), (108, 32), (128, 26), (130, 10)), fill=paint)
    for wheel in (24, 104):
        draw.ellipse([*at((wheel - 12, 22))[0], *at((wheel + 12, -2))[0]], fill=(28, 28, 30))


def draw_bush(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[float, float, float, float]
) -> None:
    """Leaves within a box, thinner towards its top."""
    left, top, right, bottom = box
    leaf = (right - left) / 14 + 1
    for _ in range(90):
        y = bottom - (bottom - top) * rng.uniform() ** 1.3
        x = rng.uniform(left, right)
        draw.ellipse((x - leaf, y - leaf * 0.7, x + leaf, y + leaf * 0.7), fill=_shade((64, 94, 52), rng, 26))


def _shade(base: tuple[int, int, int], rng: np.random.Generator, spread: float) -> tuple[int, int, int]:
    r, g, b = np.clip(np.array(base) + rng.normal(0, spread) + rng.normal(0, spread / 4, 3), 0, 255).astype(
        int
    )
    return int(r), int(g), int(b)


def _clouds(rng: np.random.Generator, cells: tuple[int, int], depth: float) -> Pixels:
    """Soft light and dark around 1 over the whole panorama, (height, width, 1)."""
    coarse = Image.fromarray(rng.uniform(1 - depth, 1 + depth, cells).astype(np.float32))
    fine = coarse.resize(PANORAMA, Image.Resampling.BICUBIC)
    return np.asarray(fine, dtype=np.float32)[..., None]


def _triple(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Point:
    a, b, c = values.tolist()
    return a, b, c
