"""Evaluations of all train/test splits of one data set, and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any, Unpack

from reidkit.errors import ConfigError
from reidkit.evaluation.evaluation import FeatureSource, check_evaluation, evaluate, images_to_encode
from reidkit.evaluation.features import EmbeddedImages, distinct_images, with_frames
from reidkit.evaluation.options import EvaluationKeywords, EvaluationOptions
from reidkit.types import Dataset, Evaluation


@dataclass(frozen=True, slots=True, eq=False)
class SplitAverage:
    """Evaluations of two or more splits of a data set, averaged as papers do.

    Printing gives means in percent with the standard deviation over splits (of a sample, n - 1).
    ``evaluations`` and ``split_names`` are in the order of the splits.
    """

    protocol: str
    split_names: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON: means, deviations, and each split's own."""
        summary = self._summary()
        return {
            "protocol": self.protocol,
            "average_precision": self.evaluations[0].average_precision,
            "num_splits": len(self.evaluations),
            **{name: value for name, (value, _) in summary.items()},
            "standard_deviation": {name: deviation for name, (_, deviation) in summary.items()},
            "splits": [
                {"split": name, **evaluation.as_dict()}
                for name, evaluation in zip(self.split_names, self.evaluations, strict=True)
            ],
        }

    def __str__(self) -> str:
        summary = self._summary()
        texts = [f"{100 * value:.1f} ± {100 * deviation:.1f}" for value, deviation in summary.values()]
        notes = dict.fromkeys(note for evaluation in self.evaluations for note in evaluation.notes)
        return "\n".join(
            [
                f"{self.protocol}, {self.evaluations[0].average_precision} AP: mean ± standard deviation of "
                f"{len(self.evaluations)} splits ({self.split_names[0]}, ...)",
                "  ".join(f"{name:>11}" for name in summary),
                "  ".join(f"{text:>11}" for text in texts),
                *(f"note: {note}" for note in notes),
            ]
        )

    def _summary(self) -> dict[str, tuple[float, float]]:
        metrics = [evaluation.metrics for evaluation in self.evaluations]
        names = sorted(metrics[0], key=lambda name: name == "mINP")  # last
        values = {name: [of_split[name] for of_split in metrics] for name in names}
        return {name: (mean(column), stdev(column)) for name, column in values.items()}


def evaluate_splits(
    encoder: FeatureSource,
    splits: Sequence[Dataset],
    *,
    options: EvaluationOptions | None = None,
    **keywords: Unpack[EvaluationKeywords],
) -> SplitAverage:
    """Evaluate every split of a data set; each image is encoded once, however many splits show it.

    Args:
        encoder: the same for all splits. If it has been trained on one of them, it has seen test identities
            of the others.
        splits: the data set, loaded once with each of its splits.
        options: how to evaluate, as :func:`reidkit.evaluation.evaluation.evaluate` takes it; a metric's name
            is fitted anew on each split's training images.
        keywords: fields of :class:`EvaluationOptions`, in place of those of ``options``.

    Raises:
        ConfigError: fewer than two splits.
        DataError: as :func:`reidkit.evaluation.evaluation.evaluate` does.
    """
    if len(splits) < 2:
        raise ConfigError(f"{len(splits)} split to average over; give at least 2, or use evaluate")
    options = replace(options or EvaluationOptions(), **keywords)
    for data in splits:
        check_evaluation(data, options=options)
    if not isinstance(encoder, EmbeddedImages):
        thinned = [with_frames(data, options.num_frames) for data in splits]
        images = distinct_images(
            part
            for data in thinned
            for part in images_to_encode(data, metric=options.metric, multi_query=options.multi_query)
        )
        encoder = EmbeddedImages(images, encoder.features(images).embeddings)
    evaluations = tuple(evaluate(encoder, data, options=options) for data in splits)
    return SplitAverage(
        protocol=evaluations[0].protocol.removesuffix(f", {splits[0].split_name}"),
        split_names=tuple(data.split_name for data in splits),
        evaluations=evaluations,
    )
