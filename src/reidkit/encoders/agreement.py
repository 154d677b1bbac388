"""How near an exported file's embeddings come to those of its network, and how near is near enough."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ReidError
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.features import label_features
from reidkit.images.reading import ImageSource
from reidkit.types import JUNK, Sample

MIN_COSINE = 0.9999
"""Least similarity between the network's embedding and that of its file, in float32."""

MAX_LOSS = 0.005
"""Most mean average precision that a quantised file may cost."""

MIN_INT8_COSINE = 0.99
"""Least similarity of 19 in 20 embeddings to the network's, in int8, where no labels tell what it costs."""


class ExportError(ReidError):
    """A network that cannot be exported; nothing has been written."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Embeddings of a file beside those of its network.

    Attributes:
        num_images: that were compared; ``drawn`` ones where none were given.
        min_cosine: least similarity of the two embeddings of an image.
        usual_cosine: that 19 in 20 images have at least.
        mean_average_precisions: of the network and of the file; None without labels.
        int8: whether the file is quantised.
    """

    num_images: int
    drawn: bool
    min_cosine: float
    usual_cosine: float
    mean_average_precisions: tuple[float, float] | None
    int8: bool

    @property
    def problem(self) -> str:
        """What is too far apart; empty where nothing is. A cosine that is NaN is never near enough."""
        if not self.int8:
            enough = self.min_cosine > MIN_COSINE
            return (
                ""
                if enough
                else f"the cosine of their embeddings is {self.min_cosine:.5f}, less than {MIN_COSINE}"
            )
        if self.mean_average_precisions is not None:
            before, after = self.mean_average_precisions
            enough = before - after <= MAX_LOSS
            scores = f"mAP is {100 * after:.2f} in place of {100 * before:.2f}"
            return "" if enough else f"{scores}, and {100 * MAX_LOSS:g} may be lost"
        enough = self.usual_cosine > MIN_INT8_COSINE
        cosine = f"for one image in twenty the cosine of the embeddings is {self.usual_cosine:.4f} or less"
        return (
            ""
            if enough
            else f"{cosine}, and {MIN_INT8_COSINE} is asked for where no labels tell what that costs"
        )

    @property
    def is_enough(self) -> bool:
        """Whether the file may stand for its network."""
        return not self.problem

    def check(self) -> None:
        """Raise :class:`ExportError` where the file is too far from its network."""
        if self.problem and self.int8:
            raise ExportError(f"int8 is not good enough for this network: {self.problem}; export it in float")
        if self.problem:
            raise ExportError(f"the exported file does not compute what the network does: {self.problem}")

    def __str__(self) -> str:
        kind = "drawn images" if self.drawn else "images"
        text = (
            f"compared on {self.num_images:,} {kind}: cosine of the embeddings {self.min_cosine:.5f} at least"
        )
        if self.mean_average_precisions is None:
            return text
        before, after = self.mean_average_precisions
        return f"{text}, mAP {100 * before:.2f} before and {100 * after:.2f} after"


def compare_embeddings(
    expected: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    *,
    images: Sequence[ImageSource | Sample],
    drawn: bool,
    int8: bool,
) -> Agreement:
    """Compare unit embeddings (N, D) of a network and of its file; by mAP, too, where samples have labels."""
    cosines = (expected.astype(np.float64) * embeddings).sum(axis=1)
    samples = [image for image in images if isinstance(image, Sample)]
    scores = None
    if int8 and len(samples) == len(images) and _has_pairs(samples):
        scores = (
            _mean_average_precision(expected, samples),
            _mean_average_precision(embeddings, samples),
        )
    return Agreement(
        num_images=len(images),
        drawn=drawn,
        min_cosine=float(cosines.min()),
        usual_cosine=float(np.quantile(cosines, 0.05)),
        mean_average_precisions=scores,
        int8=int8,
    )


def _mean_average_precision(embeddings: NDArray[np.float32], samples: Sequence[Sample]) -> float:
    """Of every image that searches all others; across cameras where people are seen by several."""
    camera_filter = "same_identity" if _is_across_cameras(samples) else "none"
    features = label_features(embeddings, tuple(samples))
    return float(evaluate_features(features, camera_filter=camera_filter).mean_average_precision)


def _has_pairs(samples: Sequence[Sample]) -> bool:
    """Whether two people or more have two images or more."""
    counts = Counter(sample.identity for sample in samples if sample.identity != JUNK)
    return sum(count > 1 for count in counts.values()) > 1


def _is_across_cameras(samples: Sequence[Sample]) -> bool:
    cameras = defaultdict(set)
    for sample in samples:
        if sample.camera is None:
            return False
        if sample.identity != JUNK:
            cameras[sample.identity].add(sample.camera)
    return sum(len(seen) > 1 for seen in cameras.values()) > 1
