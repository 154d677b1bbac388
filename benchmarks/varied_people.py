"""Drawn people for an encoder that is to know real ones: more varied than those of `reid check synthetic`.

The figures, clothes and streets are the package's (`reidkit.datasets.synthetic`). What is widened is what
real cameras and wardrobes do: colours of any hue besides the usual ones, 64 cameras with strong casts,
exposures and contrasts, blur, noise, low resolution and JPEG, boxes that are loose or cut.
"""

from __future__ import annotations

import colorsys
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from reidkit.datasets.synthetic.clothes import Colour, Garment, Person
from reidkit.datasets.synthetic.people import Framing, draw_pedestrian, random_camera, random_person
from reidkit.datasets.synthetic.scenes import Camera

SEED = 7
PEOPLE, CAMERAS, IMAGES = range(3)  # streams of random numbers
NUM_CAMERAS = 64
CAMERAS_EACH, IMAGES_EACH = 5, 2  # of a person, and of a person by a camera
HEIGHT, WIDTH = 128, 64


def draw(folder: Path, people: range) -> Path:
    """Draw these people, numbered as their seeds are, into a folder in Market-1501's layout.

    Who is there already is not drawn again. Query and gallery hold one image each, as the layout wants some.
    """
    parts = [folder / name for name in ("bounding_box_train", "query", "bounding_box_test")]
    drawn = folder / "drawn"  # a mark for each person who is complete
    for part in (*parts, drawn):
        part.mkdir(parents=True, exist_ok=True)
    cameras = [camera_of(np.random.default_rng((SEED, CAMERAS, number))) for number in range(NUM_CAMERAS)]
    for number in people:
        if not (drawn / str(number)).exists():
            draw_person(parts[0], number, cameras)
            (drawn / str(number)).touch()
    first = min(parts[0].glob("*.jpg"))
    for part in parts[1:]:
        (part / first.name).write_bytes(first.read_bytes())
    return folder


def draw_person(folder: Path, number: int, cameras: list[Camera]) -> None:
    person = person_of(np.random.default_rng((SEED, PEOPLE, number)))
    rng = np.random.default_rng((SEED, IMAGES, number))
    for place in rng.permutation(len(cameras))[:CAMERAS_EACH]:
        for image in range(1, IMAGES_EACH + 1):
            file = io.BytesIO()
            picture_of(person, cameras[place], rng).save(file, "JPEG", quality=cameras[place].jpeg_quality)
            name = f"{number + 1:04d}_c{place + 1}s1_{image:06d}_01.jpg"
            (folder / name).write_bytes(file.getvalue())


def person_of(rng: np.random.Generator) -> Person:
    """A person of the package's, in clothes of more colours and finer or coarser patterns."""
    person = random_person(rng)

    def dyed(garment: Garment, share: float) -> Garment:
        return garment._replace(
            colour=any_colour(rng, garment.colour, share),
            accent=any_colour(rng, garment.accent, share),
            scale=float(rng.uniform(2, 10)),
        )

    return replace(
        person,
        top=dyed(person.top, 0.45),
        bottom=dyed(person.bottom, 0.3),
        inner=any_colour(rng, person.inner, 0.4),
        hat_colour=any_colour(rng, person.hat_colour, 0.4),
        bag_colour=any_colour(rng, person.bag_colour, 0.4),
        shoes=any_colour(rng, person.shoes, 0.3),
    )


def any_colour(rng: np.random.Generator, usual: Colour, share: float) -> Colour:
    """In this share of cases any colour at all, else one near to the usual."""
    if rng.random() < share:
        return colorsys.hsv_to_rgb(rng.random(), rng.beta(1.2, 1.5), rng.uniform(0.08, 0.92))
    near = np.add(usual, rng.normal(0, 0.06) + rng.normal(0, 0.03, 3))
    red, green, blue = np.clip(near, 0.04, 0.95).tolist()
    return red, green, blue


def camera_of(rng: np.random.Generator) -> Camera:
    """A camera of the package's with a stronger character."""
    camera = random_camera(rng)
    saturation = rng.uniform(0.6, 1.25)
    matrix = saturation * np.eye(3) + (1 - saturation) * np.full((3, 3), 1 / 3) + rng.normal(0, 0.03, (3, 3))
    balance = np.exp(rng.normal(0, 0.09, 3))
    matrix *= (balance / balance.mean() / matrix.sum(axis=1))[:, None]
    return replace(
        camera,
        tilt=float(rng.uniform(0.02, 0.45)),
        matrix=tuple(tuple(float(value) for value in row) for row in matrix),
        exposure=float(np.exp(rng.normal(0.2, 0.22))),
        gamma=float(np.exp(rng.normal(0, 0.2))),
        contrast=float(rng.uniform(0.75, 1.2)),
        haze=float(rng.uniform(0, 0.1)),
        blur=float(rng.uniform(0.2, 1.2)),
        noise=float(rng.uniform(0.003, 0.03)),
        jpeg_quality=int(rng.integers(35, 95)),
        ambient=float(rng.uniform(0.45, 0.75)),
        sun=float(rng.choice((0.0, 0.25, 0.45))),
    )


def picture_of(person: Person, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """A crop, half of them seen by fewer pixels."""
    image = draw_pedestrian(person, camera, rng=rng, height=HEIGHT, width=WIDTH, framing=framing_of(rng))
    if rng.random() < 0.5:
        seen = int(rng.uniform(40, 110))
        away = Image.Resampling.BOX if rng.random() < 0.5 else Image.Resampling.BILINEAR
        image = image.resize((seen // 2, seen), away).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return image


def framing_of(rng: np.random.Generator) -> Framing:
    """A box looser, or more often cut, than the package's."""
    stretch = rng.uniform(1.0, 1.45)
    if rng.random() < 0.15:
        fill, right = rng.uniform(1.05, 1.3), rng.normal(0, 0.07)
        return Framing(fill, right, rng.choice((-1, 1)) * rng.uniform(0.04, 0.14), stretch)
    fill, right = rng.uniform(0.78, 1.0), rng.normal(0, 0.06)
    return Framing(fill, right, rng.normal(0, 0.025), stretch)
