"""Who synthetic pedestrians are and what they wear: identities, and the textures of their clothes.

Everything that makes an identity is a plain value of :class:`Person`; textures follow from it. Palettes are
short and shared on purpose: as in a street, many people wear dark trousers and black, grey or blue tops, so
that a colour by itself names nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.datasets.synthetic.figures import Build, Pixels

Colour = tuple[float, float, float]

SKINS: tuple[Colour, ...] = ((0.87, 0.69, 0.58), (0.80, 0.60, 0.47), (0.62, 0.44, 0.33), (0.42, 0.29, 0.22))
HAIR: tuple[Colour, ...] = ((0.09, 0.08, 0.08), (0.22, 0.14, 0.10), (0.42, 0.28, 0.17), (0.68, 0.54, 0.33),
                            (0.58, 0.57, 0.56))  # fmt: skip
BLACK, WHITE, GREY, NAVY = (0.11, 0.11, 0.12), (0.88, 0.88, 0.86), (0.47, 0.48, 0.50), (0.13, 0.17, 0.31)
DARK_GREY, BLUE, DENIM, LIGHT_BLUE = (
    (0.26, 0.26, 0.28),
    (0.18, 0.32, 0.62),
    (0.26, 0.35, 0.50),
    (0.58, 0.70, 0.82),
)
RED, GREEN, BEIGE, BROWN = (0.68, 0.16, 0.17), (0.25, 0.42, 0.27), (0.74, 0.66, 0.52), (0.38, 0.26, 0.19)
YELLOW, PINK, PURPLE = (0.86, 0.71, 0.21), (0.84, 0.55, 0.62), (0.42, 0.26, 0.48)

TOP_COLOURS = (BLACK, WHITE, GREY, NAVY, BLUE, DARK_GREY, LIGHT_BLUE, RED, GREEN, BEIGE, YELLOW, PINK, PURPLE)
TOP_SHARES = (0.17, 0.14, 0.13, 0.12, 0.09, 0.09, 0.06, 0.06, 0.04, 0.04, 0.02, 0.02, 0.02)
BOTTOM_COLOURS = (BLACK, NAVY, DENIM, DARK_GREY, GREY, BEIGE, BROWN, WHITE)
BOTTOM_SHARES = (0.30, 0.17, 0.20, 0.13, 0.07, 0.07, 0.03, 0.03)
BAG_COLOURS = (BLACK, NAVY, DARK_GREY, BROWN, RED, GREEN, BLUE, BEIGE, WHITE)
SHOE_COLOURS = (BLACK, WHITE, BROWN, DARK_GREY, RED, BLUE)
SHOE_SHARES = (0.38, 0.30, 0.12, 0.10, 0.05, 0.05)

PATTERNS = ("plain", "hoops", "stripes", "checks", "dots", "blocks", "print", "logo")
PATTERN_SHARES = (0.30, 0.13, 0.08, 0.11, 0.07, 0.12, 0.07, 0.12)
TORSO_ROWS, TORSO_COLUMNS = 48, 64
LIMB_ROWS, LIMB_COLUMNS = 40, 24


class Garment(NamedTuple):
    """A piece of clothing. ``scale`` is the number of repeats of its pattern over the torso's length."""

    kind: str
    colour: Colour
    accent: Colour
    pattern: str
    scale: float


@dataclass(frozen=True, slots=True)
class Person:
    """Everything that makes an identity; two equal persons are one.

    ``hair`` is short, cropped, bald, bob, long, tail or bun; ``hat`` none, cap, beanie or brim; ``bag`` none,
    backpack, shoulder or handbag. ``inner`` is the colour of the shirt below an open jacket or coat,
    ``opening`` how far it is open to each side, in radians around the body. ``hem`` is how far trousers,
    shorts or skirt reach down from hip (0) to ankle (1), ``coat_hem`` the same of coat or dress, ``sleeve``
    from shoulder to wrist. ``slack`` is the room between leg and cloth in metres, ``bag_side`` 0 for left,
    ``stride`` the amplitude of the walk in radians; ``seed`` makes folds, prints and beard.
    """

    build: Build
    skin: Colour
    hair: str
    hair_colour: Colour
    hat: str
    hat_colour: Colour
    top: Garment
    inner: Colour
    opening: float
    sleeve: float
    bottom: Garment
    hem: float
    coat_hem: float
    slack: float
    shoes: Colour
    soles: Colour
    bag: str
    bag_colour: Colour
    bag_side: int
    stride: float
    seed: int


def random_person(rng: np.random.Generator) -> Person:
    """Draw an identity. Its look depends on ``rng`` alone."""
    slender = rng.random() < 0.45
    build = Build(
        height=float(np.clip(rng.normal(1.64 if slender else 1.75, 0.07), 1.45, 1.98)),
        girth=float(np.clip(rng.normal(0.95 if slender else 1.04, 0.14), 0.78, 1.45)),
        shoulders=float(np.clip(rng.normal(0.93 if slender else 1.06, 0.05), 0.82, 1.2)),
        hips=float(np.clip(rng.normal(1.05 if slender else 0.96, 0.05), 0.85, 1.2)),
        legs=float(np.clip(rng.normal(1.0, 0.025), 0.94, 1.06)),
    )
    skirts = 0.45 if slender else 0.0
    kind = _choose(
        rng, ("t-shirt", "shirt", "jacket", "coat", "dress"), (0.36, 0.20, 0.22, 0.12, 0.6 * skirts)
    )
    top = _garment(rng, kind, TOP_COLOURS, TOP_SHARES, PATTERN_SHARES)
    low = _choose(rng, ("trousers", "shorts", "skirt"), (0.66, 0.24, skirts))
    if kind == "dress":
        low = "trousers" if rng.random() < 0.3 else "bare"
    if kind == "coat":
        low = "trousers"
    bottom = _garment(rng, low, BOTTOM_COLOURS, BOTTOM_SHARES, (0.84, 0.0, 0.05, 0.05, 0.0, 0.06, 0.0, 0.0))
    sleeve = {"t-shirt": rng.choice((0.0, 0.3, 0.42, 0.5)), "dress": rng.choice((0.0, 0.3, 1.0))}.get(
        kind, 1.0
    )
    hem = {"trousers": rng.choice((1.0, 1.0, 0.84)), "shorts": rng.uniform(0.22, 0.5),
           "skirt": rng.uniform(0.28, 0.85)}.get(low, 0.0)  # fmt: skip
    coat_hem = {"coat": rng.uniform(0.2, 0.52), "dress": rng.uniform(0.28, 0.8)}.get(kind, 0.0)
    hair = _choose(
        rng,
        ("short", "cropped", "bald", "bob", "long", "tail", "bun"),
        (0.06, 0.02, 0.0, 0.22, 0.36, 0.22, 0.12) if slender else (0.55, 0.26, 0.07, 0.05, 0.03, 0.02, 0.02),
    )
    return Person(
        build=build,
        skin=_vary(rng, SKINS[rng.choice(4, p=(0.45, 0.3, 0.15, 0.1))], 0.02),
        hair=hair,
        hair_colour=_vary(rng, HAIR[rng.choice(5, p=(0.40, 0.26, 0.16, 0.10, 0.08))], 0.015),
        hat=_choose(rng, ("none", "cap", "beanie", "brim"), (0.78, 0.11, 0.07, 0.04)),
        hat_colour=_vary(rng, TOP_COLOURS[rng.integers(9)], 0.03),
        top=top,
        inner=_vary(rng, TOP_COLOURS[rng.choice(len(TOP_COLOURS), p=TOP_SHARES)], 0.03),
        opening=float(rng.choice((0.0, 0.25, 0.5))) if kind in ("jacket", "coat") else 0.0,
        sleeve=float(sleeve),
        bottom=bottom,
        hem=float(hem),
        coat_hem=float(coat_hem),
        slack=float(rng.choice((0.002, 0.012, 0.03), p=(0.35, 0.45, 0.2))),
        shoes=_vary(rng, SHOE_COLOURS[rng.choice(len(SHOE_COLOURS), p=SHOE_SHARES)], 0.03),
        soles=WHITE if rng.random() < 0.45 else BLACK,
        bag=_choose(rng, ("none", "backpack", "shoulder", "handbag"), (0.38, 0.28, 0.19, 0.15)),
        bag_colour=_vary(rng, BAG_COLOURS[rng.integers(len(BAG_COLOURS))], 0.03),
        bag_side=int(rng.integers(2)),
        stride=float(rng.uniform(0.32, 0.5)),
        seed=int(rng.integers(2**31)),
    )


def _garment(
    rng: np.random.Generator,
    kind: str,
    colours: tuple[Colour, ...],
    shares: tuple[float, ...],
    patterns: tuple[float, ...],
) -> Garment:
    first = int(rng.choice(len(colours), p=shares))
    # An accent that is not seen against its ground would make the pattern a matter of luck.
    contrasts = [c for c in TOP_COLOURS if np.abs(np.subtract(c, colours[first])).max() > 0.3]
    accent = contrasts[rng.integers(min(len(contrasts), 7))]
    pattern = _choose(rng, PATTERNS, patterns)
    scale = float(rng.choice((3, 5, 8)))
    return Garment(kind, _vary(rng, colours[first], 0.03), _vary(rng, accent, 0.03), pattern, scale)


def _choose(rng: np.random.Generator, options: tuple[str, ...], shares: tuple[float, ...]) -> str:
    return options[rng.choice(len(options), p=np.divide(shares, sum(shares)))]


def _vary(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    r, g, b = np.clip(
        np.add(colour, rng.normal(0, spread) + rng.normal(0, spread / 2, 3)), 0.04, 0.95
    ).tolist()
    return r, g, b


class Wardrobe(NamedTuple):
    """A person's textures, (rows, columns, RGBA) each: from neck to hip, shoulder to wrist, hip to ankle."""

    torso: Pixels
    arm: Pixels
    leg: Pixels
    skirt: Pixels
    hips: Pixels
    head: Pixels
    hair: Pixels
    hat: Pixels
    bag: Pixels
    shoe: Pixels
    sole: Pixels
    skin: Pixels
    strand: Pixels


@lru_cache(maxsize=64)
def wardrobe(person: Person) -> Wardrobe:
    """The textures of a person. They follow from the person alone."""
    rng = np.random.default_rng(person.seed)
    down, _ = _grid(LIMB_ROWS, LIMB_COLUMNS)
    top, bottom = person.top, person.bottom

    arm = _plain(LIMB_ROWS, LIMB_COLUMNS, person.skin)
    sleeve = cloth(top, LIMB_ROWS, LIMB_COLUMNS, length=0.9, limb=True, rng=rng)
    arm[down < person.sleeve] = sleeve[down < person.sleeve]
    leg = _plain(LIMB_ROWS, LIMB_COLUMNS, person.skin)
    if bottom.kind in ("trousers", "shorts"):
        covered = down < person.hem
        leg[covered] = cloth(bottom, LIMB_ROWS, LIMB_COLUMNS, length=1.4, limb=True, rng=rng)[covered]
    if bottom.kind == "skirt" or (person.coat_hem and not person.opening):
        leg[down < max(person.coat_hem, person.hem if bottom.kind == "skirt" else 0) - 0.1] = 0
    skirt = cloth(
        top if person.coat_hem else bottom, TORSO_ROWS, TORSO_COLUMNS, length=1.0, limb=False, rng=rng
    )
    skirt_down, skirt_around = _grid(TORSO_ROWS, TORSO_COLUMNS)
    if top.kind == "coat" and person.opening:
        skirt[np.abs(skirt_around) < person.opening * (1 + 0.5 * skirt_down)] = 0
    seat = top if bottom.kind == "bare" else bottom
    hips = cloth(seat, TORSO_ROWS, TORSO_COLUMNS, length=0.4, limb=False, rng=rng)

    bag = _plain(TORSO_ROWS, TORSO_COLUMNS, person.bag_colour) * _folds(rng, TORSO_ROWS, TORSO_COLUMNS, 0.12)
    bag[(skirt_down > 0.5) & (skirt_down < 0.56), :3] *= 0.6
    bag[skirt_down < 0.2, :3] *= 0.85
    return Wardrobe(
        torso=_torso(person, rng),
        arm=arm,
        leg=leg,
        skirt=skirt,
        hips=hips,
        head=_head(person),
        hair=_hair(person, rng),
        hat=_hat(person),
        bag=bag,
        shoe=_plain(1, 1, person.shoes),
        sole=_plain(1, 1, person.soles),
        skin=_plain(1, 1, person.skin),
        strand=_plain(24, 16, person.hair_colour) * _folds(rng, 24, 16, 0.25),
    )


def cloth(
    garment: Garment, rows: int, columns: int, *, length: float, limb: bool, rng: np.random.Generator
) -> Pixels:
    """A sheet of a garment's cloth, ``length`` torsos long, wrapped around a body or a limb."""
    down, around = _grid(rows, columns)
    turns = np.abs(around) / pi * (0.45 if limb else 1.0)
    repeat = garment.scale * length
    hoops = (down * repeat) % 1 < 0.45
    bars = (turns * 2 * garment.scale) % 1 < (0.3 if garment.pattern == "stripes" else 0.4)
    marked: NDArray[np.bool_]
    match garment.pattern:
        case "hoops":
            marked = hoops
        case "stripes":
            marked = bars
        case "dots":
            marked = np.hypot((down * repeat) % 1 - 0.5, (turns * 2 * garment.scale) % 1 - 0.5) < 0.3
        case "blocks":
            # Sleeves, or the yoke, of another colour; on trousers a stripe down the seam.
            marked = np.abs(np.abs(around) - pi / 2) < 0.45 if garment.kind == "trousers" else down < 0.4
            marked = np.ones_like(marked) if limb and garment.kind != "trousers" else marked
        case "print":
            marked = _folds(rng, rows, columns, 1.0, cells=3 + int(garment.scale))[..., 0] > 1.12
        case _:
            marked = np.zeros_like(hoops)
    sheet = _plain(rows, columns, garment.colour)
    sheet[marked] = (*garment.accent, 1)
    if garment.pattern == "checks":
        share = 0.5 * hoops[..., None] + 0.5 * bars[..., None]
        sheet[..., :3] += share * (np.array(garment.accent, dtype=np.float32) - sheet[..., :3])
    sheet[..., :3] *= _folds(rng, rows, columns, 0.16)[..., :3]
    return sheet


def _torso(person: Person, rng: np.random.Generator) -> Pixels:
    down, around = _grid(TORSO_ROWS, TORSO_COLUMNS)
    front = np.abs(around)
    torso = cloth(person.top, TORSO_ROWS, TORSO_COLUMNS, length=1.0, limb=False, rng=rng)
    if person.top.pattern == "logo":
        torso[(front < 0.55) & (np.abs(down - 0.36) < 0.10)] = (*person.top.accent, 1)
        torso[(front < 0.3) & (np.abs(down - 0.36) < 0.03), :3] = person.top.colour
        # Half of the prints go on at the back.
        if person.seed % 2:
            torso[(front > pi - 0.6) & (np.abs(down - 0.3) < 0.07)] = (*person.top.accent, 1)
    if person.opening:
        inner = front < person.opening * (0.6 + 0.6 * down)
        torso[inner] = (*person.inner, 1)
        torso[(front < person.opening * (0.6 + 0.6 * down) + 0.14) & ~inner, :3] *= 0.6
    elif person.top.kind in ("jacket", "coat", "shirt"):
        torso[front < 0.07, :3] *= 0.6
    if person.top.kind != "coat":
        torso[(front < 0.5) & (down < 0.13 - 0.2 * front)] = (*person.skin, 1)
    if person.top.kind in ("jacket", "shirt", "coat"):
        torso[(down < 0.05) & (front > 0.3), :3] *= 0.75
    strap = np.zeros_like(front, dtype=bool)
    if person.bag == "backpack":
        strap = (np.abs(front - 0.75) < 0.15) & (down < 0.62)
    elif person.bag == "shoulder":
        # From one shoulder across breast and back to the other hip.
        side = np.sin(around) * (1 if person.bag_side else -1)
        strap = np.abs(down - 0.52 - 0.5 * side) < 0.07
    torso[strap] = (*np.multiply(person.bag_colour, 0.85), 1)
    return torso


def _head(person: Person) -> Pixels:
    """A face in front; the neck's skin elsewhere."""
    rows, columns = 32, 40
    down, around = _grid(rows, columns)
    front = np.abs(around)
    head = _plain(rows, columns, person.skin)
    eyes = (np.abs(front - 0.42) < 0.2) & (np.abs(down - 0.5) < 0.04)
    head[eyes] = (0.12, 0.10, 0.10, 1)
    head[(np.abs(front - 0.42) < 0.26) & (np.abs(down - 0.42) < 0.025), :3] *= 0.6
    head[(front < 0.13) & (down > 0.5) & (down < 0.68), :3] *= 1.06
    head[(front < 0.16) & (np.abs(down - 0.68) < 0.02), :3] *= 0.75
    head[(front < 0.28) & (np.abs(down - 0.78) < 0.025)] = (*np.multiply(person.skin, (0.78, 0.55, 0.55)), 1)
    head[(np.abs(front - 1.6) < 0.14) & (np.abs(down - 0.55) < 0.1), :3] *= 0.85
    if person.hair in ("short", "cropped", "bald") and person.seed % 5 == 0:
        beard = (front < 1.2) & (down > 0.66) & ~((front < 0.28) & (np.abs(down - 0.78) < 0.025))
        head[beard, :3] = 0.35 * head[beard, :3] + 0.65 * np.array(person.hair_colour, dtype=np.float32)
    return head


def _hair(person: Person, rng: np.random.Generator) -> Pixels:
    """A shell around the head, see-through where there is no hair."""
    rows, columns = 32, 40
    down, around = _grid(rows, columns)
    front = np.abs(around)
    low = {"short": 0.72, "cropped": 0.66, "bald": 0.0, "bob": 1.0, "long": 1.0, "tail": 0.74, "bun": 0.74}
    fringe = {"bob": 0.34, "cropped": 0.24}.get(person.hair, 0.28)
    edge = np.where(
        front < 0.85, fringe, np.interp(front, (0.85, 1.25, 2.0), (fringe, 0.5, low[person.hair]))
    )
    if person.hair in ("bob", "long"):
        edge = np.where(front > 1.05, 1.0, edge)
    if person.hair == "bald":
        edge = np.where(front > 1.6, 0.6, 0.0)
        edge[down < 0.42] = 0
    hair = _plain(rows, columns, person.hair_colour) * _folds(rng, rows, columns, 0.3)
    hair[..., 3] = down < edge
    return hair


def _hat(person: Person) -> Pixels:
    down, _ = _grid(32, 16)
    hat = _plain(32, 16, person.hat_colour)
    hat[..., 3] = down < {"cap": 0.36, "beanie": 0.42, "brim": 0.34}.get(person.hat, 0.0)
    if person.hat == "beanie":
        hat[(down > 0.30), :3] *= 0.75
    return hat


def _grid(rows: int, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For every texture cell: the way down (0..1) and the angle around (-pi..pi, 0 in front)."""
    down = (np.arange(rows) + 0.5) / rows
    around = ((np.arange(columns) + 0.5) / columns - 0.5) * 2 * pi
    return tuple(np.meshgrid(down, around, indexing="ij"))  # type: ignore[return-value]


def _plain(rows: int, columns: int, colour: Colour) -> Pixels:
    sheet = np.ones((rows, columns, 4), dtype=np.float32)
    sheet[..., :3] = colour
    return sheet


def _folds(rng: np.random.Generator, rows: int, columns: int, depth: float, *, cells: int = 5) -> Pixels:
    """Soft light and dark around 1 for folds and strands, (rows, columns, RGBA); alpha stays 1."""
    coarse = rng.uniform(-1, 1, (cells, cells + 1))
    across = np.linspace(0, cells, columns) % cells
    left = across.astype(int)
    waves = coarse[:, left] + (coarse[:, left + 1] - coarse[:, left]) * (across - left)
    place = np.linspace(0, cells - 1, rows)
    upper = np.minimum(place.astype(int), cells - 2)
    waves = waves[upper] + (waves[upper + 1] - waves[upper]) * (place - upper)[:, None]
    folds = np.ones((rows, columns, 4), dtype=np.float32)
    folds[..., :3] += depth * waves[..., None]
    return folds
