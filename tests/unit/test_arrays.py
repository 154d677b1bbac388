"""Lists, tensors of every kind and odd arrays, wherever embeddings and labels are taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reidkit.arrays import plain_array
from reidkit.errors import DataError
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.metric_learning import KISSME
from reidkit.reports.inputs import Results, RunDetails
from reidkit.reports.page import write_report
from reidkit.reranking import query_expansion, rerank
from reidkit.types import Features

RNG = np.random.default_rng(0)
IDENTITIES = np.repeat(np.arange(6), 4)
# Few bits, so that every format holds them exactly.
EMBEDDINGS = (RNG.integers(-8, 9, (24, 5)) + 9 * np.eye(6)[IDENTITIES][:, :5]).astype(np.float32)
CAMERAS = np.tile([1, 2], 12)

TAKEN: dict[str, Callable[[], Any]] = {
    "lists": EMBEDDINGS.tolist,
    "float16": lambda: EMBEDDINGS.astype(np.float16),
    "big-endian": lambda: EMBEDDINGS.astype(">f8"),
    "long double": lambda: EMBEDDINGS.astype(np.longdouble),
    "Fortran order": lambda: np.asfortranarray(EMBEDDINGS),
    "tensor": lambda: torch.from_numpy(EMBEDDINGS),
    "tensor with gradients": lambda: torch.from_numpy(EMBEDDINGS.copy()).requires_grad_(),
    "not a leaf": lambda: torch.from_numpy(EMBEDDINGS.copy()).requires_grad_() * 1,
    "bfloat16": lambda: torch.from_numpy(EMBEDDINGS).bfloat16(),
    "half": lambda: torch.from_numpy(EMBEDDINGS).half(),
    "transposed": lambda: torch.from_numpy(EMBEDDINGS.T.copy()).T,
    "negative view": lambda: torch._neg_view(torch.from_numpy(-EMBEDDINGS)),
    "list of tensors with gradients": lambda: list(torch.from_numpy(EMBEDDINGS.copy()).requires_grad_()),
    "tuple of bfloat16": lambda: tuple(torch.from_numpy(EMBEDDINGS).bfloat16()),
    "parameter": lambda: torch.nn.Parameter(torch.from_numpy(EMBEDDINGS.copy())),
    "masked, nothing hidden": lambda: np.ma.masked_array(EMBEDDINGS),
}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "integers": (lambda: EMBEDDINGS.astype(int), "type int64; expected floating-point"),
    "complex": (lambda: EMBEDDINGS.astype(complex), "type complex128; expected floating-point"),
    "text": (lambda: EMBEDDINGS.astype(str), "expected floating-point"),
    "one row": (lambda: EMBEDDINGS[0], r"shape \(5,\)"),
    "no dimension": (lambda: EMBEDDINGS[:, :0], r"shape \(24, 0\)"),
    "ragged": (lambda: [[1.0, 2.0], [3.0]], "are no array"),
    "sparse": (lambda: torch.from_numpy(EMBEDDINGS).to_sparse(), "are no array"),
    "meta": (lambda: torch.from_numpy(EMBEDDINGS).to("meta"), "are no array"),
    "masked": (lambda: np.ma.masked_greater(EMBEDDINGS, 3), "masked values"),
    "a number": (lambda: 3.0, r"shape \(\) and type float64"),
    "NaN": (lambda: np.where(EMBEDDINGS > 6, np.nan, EMBEDDINGS), "NaN"),
}


def results(embeddings: Any, identities: Any = IDENTITIES, cameras: Any = CAMERAS) -> list[Any]:
    """What every taker of embeddings makes of them."""
    features = Features(embeddings, identities, cameras)
    metric = KISSME(dim=2).fit(features)
    return [
        evaluate_features(features).mean_average_precision,
        evaluate_features(features, metric=metric, rerank=True).mean_average_precision,
        metric.transform(embeddings),
        metric.distances(embeddings, embeddings),
        rerank(embeddings, embeddings, k1=4, k2=2),
        query_expansion(embeddings, embeddings, top=2),
    ]


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    return results(EMBEDDINGS)


@pytest.mark.parametrize("kind", TAKEN)
def test_whatever_holds_the_numbers_gives_the_same(kind: str, expected: list[Any]) -> None:
    for got, wanted in zip(results(TAKEN[kind]()), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_labels_may_be_tensors(expected: list[Any]) -> None:
    labels = torch.from_numpy(IDENTITIES), torch.from_numpy(CAMERAS.astype(np.int32))
    assert results(EMBEDDINGS, *labels)[0] == expected[0]


@pytest.mark.parametrize("kind", REFUSED)
def test_the_rest_is_refused_in_one_line(kind: str) -> None:
    make, message = REFUSED[kind]
    for take in (
        lambda values: evaluate_features(Features(values, IDENTITIES)),
        lambda values: rerank(values, values),
        lambda values: query_expansion(values, EMBEDDINGS),
        KISSME(dim=2).fit(Features(EMBEDDINGS, IDENTITIES)).transform,
    ):
        with pytest.raises(DataError, match=message) as caught:
            take(make())
        assert "\n" not in str(caught.value)


def test_memory_mapped_embeddings_stay_so(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", EMBEDDINGS)
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
    assert plain_array(mapped, "embeddings") is mapped


@pytest.mark.parametrize("num_dimensions", [1, 2])
def test_embeddings_of_hardly_a_dimension_have_scores_and_a_report(
    num_dimensions: int, tmp_path: Path
) -> None:
    features = Features(RNG.normal(size=(24, num_dimensions)), IDENTITIES, CAMERAS)
    result = evaluate_features(features)
    assert result.num_valid_queries == 24
    page = write_report(
        tmp_path / "report.html",
        Results(evaluation=result, query=features),
        RunDetails(title="thin"),
        num_ranked_lists=2,
        top=3,
    )
    assert page.stat().st_size > 10_000
