"""LOMO, a description of colours and textures made by hand: the features before networks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from reidkit.encoders.network import FINGERPRINT_LENGTH, Network
from reidkit.errors import CheckpointError, UnknownName

HEIGHT, WIDTH = 128, 48
NUM_SCALES, BLOCK, STEP = 3, 10, 5
LEVELS = 8  # of each of hue, saturation and value
RADII, TOLERANCE = (3, 5), 0.3  # of SILTP
ROWS = tuple(len(range(0, (HEIGHT >> scale) - BLOCK + 1, STEP)) for scale in range(NUM_SCALES))
NUM_STRIPES = 4
ROWS_OF_STRIPE = tuple(-(-rows // NUM_STRIPES) for rows in ROWS)  # of blocks, at each scale
RETINEX_SIGMAS = (5, 20)
RETINEX_ENDS = (1, 99)
"""Percentiles of brightness that are stretched to the whole range."""

_VERSION = 2  # to be raised by what changes the embeddings

Floats = NDArray[np.float64]


class Lomo(Network):
    """Local maximal occurrence: histograms of small blocks, of which each height keeps its largest counts.

    Liao, Hu, Zhu, Li, "Person Re-identification by Local Maximal Occurrence Representation and Metric
    Learning", CVPR 2015. Joint histograms of hue, saturation and value (8 x 8 x 8) after a multi-scale
    Retinex, and of scale-invariant local ternary patterns (SILTP) at radii 3 and 5, in blocks of 10 x 10
    pixels every 5; of all blocks at one height the largest count of each bin; at three scales. Logarithms of
    the counts; colours and the textures of each radius weigh the same, as in the code that the authors
    released: 26,960 values. Nothing is learned: a distance has to be, XQDA in the paper.

    The feature "stripes" is made of the same counts for four stripes of the body that overlap a little, one
    after the other. SCS compares such stripes (:mod:`reidkit.evaluation.spatial_similarity`).

    The paper does not say which multi-scale Retinex it takes, and its code brings only a compiled one. The
    one here was chosen on VIPeR (docs/results.md).
    """

    def __init__(self, feature: str | None = None) -> None:
        """Embed by "whole", the paper's, which is the usual one, or by "stripes"."""
        if feature is not None and feature not in DESCRIPTIONS:
            raise UnknownName("feature of lomo", feature, tuple(DESCRIPTIONS))
        self.model = self
        self.device = "cpu"
        self.feature = None if feature == "whole" else feature
        self.resampling = Image.Resampling.BILINEAR

    def __str__(self) -> str:
        return "LOMO"

    @property
    def description(self) -> Mapping[str, Any]:
        return {"name": "lomo"}

    @property
    def embedding_dim(self) -> int:
        return self.features[self.feature or "whole"]

    @property
    def features(self) -> Mapping[str, int]:
        bins = LEVELS**3 + len(RADII) * 3**4
        rows = {"whole": sum(ROWS), "stripes": NUM_STRIPES * sum(ROWS_OF_STRIPE)}
        return {name: rows[name] * bins for name in DESCRIPTIONS}

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        describe = DESCRIPTIONS[self.feature or "whole"]
        return np.stack([describe(occurrences(image)) for image in images])

    def embed_features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        counts = [occurrences(image) for image in images]
        return np.stack([np.concatenate([f(found) for f in DESCRIPTIONS.values()]) for found in counts])

    def fingerprints(self, *, height: int, width: int) -> tuple[str, ...]:
        name = f"lomo {_VERSION} {height} {width}" + (f" {self.feature}" if self.feature else "")
        return (hashlib.sha256(name.encode()).hexdigest()[:FINGERPRINT_LENGTH],)

    def save(self, path: Path, description: Mapping[str, Any]) -> None:
        raise CheckpointError(f"{path}: LOMO has no weights to be saved; it is there by its name, lomo")


class Occurrences(NamedTuple):
    """The largest count of each bin among the blocks of each height, all scales one after the other.

    ``colours`` (sum(ROWS), 512) and, for each radius, ``textures`` (sum(ROWS), 81).
    """

    colours: NDArray[np.intp]
    textures: tuple[NDArray[np.intp], ...]


def occurrences(image: NDArray[np.uint8]) -> Occurrences:
    """Counts of an RGB image (128, 48, 3)."""
    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    colours = colour_levels(retinex(image))
    colour_counts: list[NDArray[np.intp]] = []
    texture_counts: list[list[NDArray[np.intp]]] = [[] for _ in RADII]
    for _ in range(NUM_SCALES):
        hue, saturation, value = np.moveaxis(colours.astype(np.intp), -1, 0)
        colour_counts.append(_occurrences((value * LEVELS + saturation) * LEVELS + hue, LEVELS**3))
        for counts, radius in zip(texture_counts, RADII, strict=True):
            counts.append(_occurrences(siltp(grey, radius=radius), 3**4))
        colours, grey = np.floor(_halved(colours)), _halved(grey)
    return Occurrences(np.concatenate(colour_counts), tuple(map(np.concatenate, texture_counts)))


def whole(counts: Occurrences) -> NDArray[np.float32]:
    """The paper's description, a unit vector (26960,)."""
    return _joined([counts.colours, *counts.textures])


def stripes(counts: Occurrences) -> NDArray[np.float32]:
    """The same counts by stripes from top to bottom, a unit vector of four parts of equal length."""
    found = []
    for stripe in range(NUM_STRIPES):
        rows = np.concatenate(
            [
                start + round(stripe * (num - own) / (NUM_STRIPES - 1)) + np.arange(own)
                for num, own, start in zip(ROWS, ROWS_OF_STRIPE, np.cumsum((0, *ROWS)), strict=False)
            ]
        )
        found.append(_joined([part[rows] for part in (counts.colours, *counts.textures)]))
    return np.concatenate(found) / np.float32(np.sqrt(NUM_STRIPES))


DESCRIPTIONS: dict[str, Callable[[Occurrences], NDArray[np.float32]]] = {"whole": whole, "stripes": stripes}


def _joined(counts: Sequence[NDArray[np.intp]]) -> NDArray[np.float32]:
    """Logarithms of counts, each array of unit length, and all together."""
    parts = [np.log1p(array.ravel()) for array in counts]
    joined = np.concatenate([part / np.linalg.norm(part) for part in parts])
    return np.asarray(joined / np.linalg.norm(joined), np.float32)


def retinex(image: NDArray[np.uint8]) -> Floats:
    """Colours with less of the light: (H, W, 3), bytes -> between 0 and 1.

    Multi-scale Retinex with chromaticity preserved (Petro, Sbert, Morel, "Multiscale Retinex", IPOL 2014).
    The logarithm of each pixel's brightness over that of its blurred surroundings, averaged over two sizes
    of these and stretched, is the new brightness; the channels keep their ratios.
    """
    bright = image.astype(np.float64) + 1
    brightness = bright.mean(axis=2)
    surroundings = [
        np.log(scipy.ndimage.gaussian_filter(brightness, sigma, mode="nearest")) for sigma in RETINEX_SIGMAS
    ]
    seen = np.log(brightness) - np.mean(surroundings, axis=0)
    low, high = np.percentile(seen, RETINEX_ENDS)
    if high - low < 1e-9:  # one brightness all over
        stretched = np.full(seen.shape, 0.5)
    else:
        stretched = np.clip((seen - low) / (high - low), 1 / 256, 1)
    # No channel goes beyond the range.
    factor = np.minimum(stretched / brightness, 1 / bright.max(axis=2))
    return np.asarray(bright * factor[..., None])


def colour_levels(rgb: Floats) -> Floats:
    """Hue, saturation and value of colours between 0 and 1, (..., 3), each as a level from 0 to 7."""
    value = rgb.max(axis=-1)
    chroma = value - rgb.min(axis=-1)
    some = np.where(chroma == 0, 1, chroma)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    sector = np.select(
        [value == red, value == green],
        [((green - blue) / some) % 6, (blue - red) / some + 2],
        (red - green) / some + 4,
    )
    hsv = np.stack([sector / 6, chroma / np.where(value == 0, 1, value), value], axis=-1)
    return np.asarray(np.minimum(np.floor(hsv * LEVELS), LEVELS - 1))


def siltp(grey: Floats, *, radius: int) -> NDArray[np.intp]:
    """Whether each of four neighbours is brighter (1) or darker (2) than allowed: (H, W), 0 to 80.

    Scale-invariant local ternary pattern, Liao et al., CVPR 2010: the tolerance is a share of the pixel's own
    brightness, so that a change of light changes nothing.
    """
    height, width = grey.shape
    padded = np.pad(grey, radius, mode="edge")
    pattern = np.zeros(grey.shape, np.intp)
    for place, (down, right) in enumerate(((0, 1), (-1, 0), (0, -1), (1, 0))):
        top, left = radius * (1 + down), radius * (1 + right)
        neighbor = padded[top : top + height, left : left + width]
        brighter, darker = neighbor > (1 + TOLERANCE) * grey, neighbor < (1 - TOLERANCE) * grey
        pattern += (brighter + 2 * darker) * 3**place
    return pattern


def _occurrences(pattern: NDArray[np.intp], num_bins: int) -> NDArray[np.intp]:
    """The largest count of each bin among the blocks of each height: (H, W) -> (heights, bins)."""
    blocks = sliding_window_view(pattern, (BLOCK, BLOCK))[::STEP, ::STEP]
    heights, across = blocks.shape[:2]
    number = np.arange(heights * across).reshape(heights, across, 1, 1)
    counts = np.bincount((number * num_bins + blocks).ravel(), minlength=heights * across * num_bins)
    return np.asarray(counts.reshape(heights, across, num_bins).max(axis=1), np.intp)


def _halved(values: Floats) -> Floats:
    """Means of 2 x 2 pixels: (H, W, ...) -> (H / 2, W / 2, ...)."""
    height, width, *rest = values.shape
    return np.asarray(values.reshape(height // 2, 2, width // 2, 2, *rest).mean(axis=(1, 3)))
