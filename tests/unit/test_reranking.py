"""Re-ranking against a dense, literal float64 implementation; query expansion against loops."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reidkit import reranking
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation import euclidean
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.reranking import Reranker, RerankOptions, query_expansion, rerank
from reidkit.types import Features

Array = NDArray[np.float64]


def dense_rerank(
    query: Array, gallery: Array, *, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> Array:
    """The specification's six steps, one after the other, on N x N arrays and Python sets."""
    items = np.concatenate([query, gallery]).astype(np.float64)
    num = len(items)
    distances = np.array([((item - items) ** 2).sum(axis=1) for item in items])
    distances = distances / np.maximum(distances.max(axis=1, keepdims=True), np.finfo(float).tiny)

    ranking = []
    for i in range(num):
        others = [j for j in np.argsort(distances[i], kind="stable") if j != i]
        ranking.append([i, *others])

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in ranking[i][: k + 1] if i in ranking[j][: k + 1]}

    encoding = np.zeros((num, num))
    for i in range(num):
        near = reciprocal(i, k1)
        expanded = set(near)
        for candidate in near:
            theirs = reciprocal(candidate, round(k1 / 2))
            if 3 * len(theirs & near) > 2 * len(theirs):
                expanded |= theirs
        members = sorted(expanded)
        weights = np.exp(-distances[i, members])
        encoding[i, members] = weights / weights.sum()

    encoding = np.array([encoding[ranking[i][:k2]].mean(axis=0) for i in range(num)])
    jaccard = np.empty((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            shared = np.minimum(encoding[i], encoding[len(query) + j]).sum()
            jaccard[i, j] = 1 - shared / (2 - shared)
    return (1 - lambda_value) * jaccard + lambda_value * distances[: len(query), len(query) :]


def clustered(num: int, *, dim: int = 16, noise: float = 0.6, seed: int = 0) -> Features:
    """Unit embeddings around a centre for each identity, in no order."""
    rng = np.random.default_rng(seed)
    identities = rng.permutation(num) // 12
    embeddings = rng.normal(size=(num // 12 + 1, dim))[identities]
    embeddings += noise * rng.normal(size=(num, dim))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Features(embeddings.astype(np.float32), identities, rng.integers(0, 4, num))


def halves(num: int, **options: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    embeddings = clustered(num, **options).embeddings
    return embeddings[: num // 4], embeddings[num // 4 :]


# --- against the literal implementation ----------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k1": 1, "k2": 1},
        {"k1": 5, "k2": 5},
        {"k1": 7, "k2": 1},
        {"k1": 30, "k2": 4, "lambda_value": 0.0},
        {"k1": 9, "k2": 3, "lambda_value": 1.0},
    ],
)
@pytest.mark.parametrize("noise", [0.3, 0.8, 30.0])
def test_agrees_with_the_dense_implementation(options: dict, noise: float) -> None:
    query, gallery = halves(240, noise=noise)
    result = rerank(query, gallery, **options)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, dense_rerank(query, gallery, **options), atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    num=st.integers(4, 40),
    dim=st.integers(1, 6),
    levels=st.integers(1, 4),
    k1=st.integers(1, 25),
    seed=st.integers(0, 10**6),
)
def test_ties_fall_to_the_order_of_the_items(num: int, dim: int, levels: int, k1: int, seed: int) -> None:
    """Whole numbers: many equal rows and equal distances, and more neighbours wanted than there are items."""
    items = np.random.default_rng(seed).integers(-levels, levels + 1, (num, dim)).astype(np.float32)
    query, gallery = items[: num // 3], items[num // 3 :]
    result = rerank(query, gallery, k1=k1, k2=min(3, k1))
    np.testing.assert_allclose(result, dense_rerank(query, gallery, k1=k1, k2=min(3, k1)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_scale_of_the_embeddings_does_not_matter(scale: float, dtype: type) -> None:
    query, gallery = (scale * side.astype(dtype) for side in halves(120))
    np.testing.assert_allclose(rerank(query, gallery), rerank(*halves(120)), atol=1e-5)


@pytest.mark.parametrize("kind", ["float16", "not contiguous", "reversed", "read-only"])
def test_arrays_of_every_kind(kind: str) -> None:
    query, gallery = halves(120)
    given = {
        "float16": gallery.astype(np.float16),
        "not contiguous": np.repeat(gallery, 2, axis=1)[:, ::2],
        "reversed": gallery[::-1].copy()[::-1],
        "read-only": gallery.copy(),
    }[kind]
    given.setflags(write=False)
    np.testing.assert_allclose(rerank(query, given), dense_rerank(query, given), atol=1e-5, rtol=0)


def test_equal_embeddings_are_not_divided_by_zero() -> None:
    items = np.ones((30, 4), np.float32)
    result = rerank(items[:10], items[10:], k1=5, k2=2)
    np.testing.assert_allclose(result, dense_rerank(items[:10], items[10:], k1=5, k2=2), atol=1e-6)


def test_collapsed_embeddings_are_told_apart_in_float64() -> None:
    """Differences far below what float32 products show: a first look alone would rank these at random."""
    query, gallery = halves(160)
    query, gallery = (np.float64(1e-5 * side) + np.eye(16)[0] for side in (query, gallery))
    query, gallery = (np.round(side * 2**25) / 2**25 for side in (query, gallery))
    result = rerank(query.astype(np.float32), gallery.astype(np.float32))
    expected = dense_rerank(query.astype(np.float32), gallery.astype(np.float32))
    np.testing.assert_allclose(result, expected, atol=1e-5)


# --- the same whatever the machine does ----------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 7, 333, 400])
def test_block_sizes_do_not_matter(block_size: int) -> None:
    query, gallery = halves(400)
    gallery[5:60] = gallery[5]  # more equal rows than the first look keeps
    expected = rerank(query, gallery)
    assert rerank(query, gallery, block_size=block_size).tobytes() == expected.tobytes()
    reranker = Reranker(query, gallery, block_size=block_size)
    blocks = [reranker.rows(slice(start, start + block_size)) for start in range(0, len(query), block_size)]
    assert np.concatenate(blocks).tobytes() == expected.tobytes()


def test_numbers_of_threads_do_not_matter() -> None:
    code = (
        "import numpy, torch, hashlib, sys; from reidkit.reranking import rerank;"
        "torch.set_num_threads(int(sys.argv[1]));"
        "items = numpy.random.default_rng(0).normal(size=(900, 64)).astype('float32');"
        "print(hashlib.sha256(rerank(items[:200], items[200:]).tobytes()).hexdigest())"
    )
    hashes = set()
    for num in ("1", "2"):
        environment = os.environ | {f"{library}_NUM_THREADS": num for library in ("OMP", "MKL", "OPENBLAS")}
        command = [sys.executable, "-c", code, num]
        hashes.add(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    assert len(hashes) == 1


def test_rows_that_float32_cannot_decide_are_computed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one spare item no row's farthest is certain, so that every row is computed again as a whole."""
    query, gallery = halves(240)
    expected = rerank(query, gallery)
    redone: list[int] = []
    compute = reranking._neighbours_of
    monkeypatch.setattr(reranking, "_SPARE", 1)
    monkeypatch.setattr(
        reranking, "_neighbours_of", lambda rows, *rest: (redone.extend(rows), compute(rows, *rest))[1]
    )
    assert rerank(query, gallery).tobytes() == expected.tobytes()
    assert redone == list(range(240))


def test_slices_of_queries() -> None:
    query, gallery = halves(120)
    whole, reranker = rerank(query, gallery), Reranker(query, gallery)
    for chosen in (slice(3, 4), slice(None), slice(25, 99), slice(-4, None), slice(8, 2), slice(0, 20, 3)):
        np.testing.assert_array_equal(reranker.rows(chosen), whole[chosen])


def test_better_than_the_original_distance_where_identities_have_many_images() -> None:
    features = clustered(600, dim=24, noise=1.3)
    query = Features(features.embeddings[:100], features.identities[:100])
    gallery = Features(features.embeddings[100:], features.identities[100:])
    before = evaluate_features(query, gallery, camera_filter="none")
    distances = rerank(query.embeddings, gallery.embeddings)
    precisions = []
    for identity, row in zip(query.identities, distances, strict=True):
        matches = gallery.identities[np.argsort(row, kind="stable")] == identity
        precisions.append((np.cumsum(matches) / np.arange(1, len(row) + 1))[matches].mean())
    assert np.mean(precisions) > before.mean_average_precision + 0.05


# --- query expansion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [1, 4, 500])
@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_query_expansion_is_what_its_formula_says(top: int, alpha: float) -> None:
    query, gallery = halves(120)
    result = query_expansion(3 * query, 0.1 * gallery, top=top, alpha=alpha)
    for vector, found in zip(query.astype(float), result, strict=True):
        nearest = sorted(range(len(gallery)), key=lambda j: -float(vector @ gallery[j]))[:top]
        total = vector.copy()
        for j in nearest:
            total += max(float(vector @ gallery[j]), 0.0) ** alpha * gallery[j]
        np.testing.assert_allclose(found, total / np.linalg.norm(total), atol=1e-6)
    assert result.dtype == np.float32


def test_query_expansion_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = halves(120)
    expected = query_expansion(query, gallery)
    monkeypatch.setattr(euclidean, "_BLOCK_BYTES", 4 * 7 * len(gallery))
    monkeypatch.setattr(reranking, "_ITEMS_PER_PART", 3)
    np.testing.assert_array_equal(query_expansion(query, gallery), expected)


def test_query_expansion_leaves_ties_to_gallery_order() -> None:
    query = np.array([[1.0, 0.0, 0.0]])
    gallery = np.array([[0.6, 0.0, 0.8], [0.6, 0.8, 0.0], [0.6, -0.8, 0.0]])
    expected = np.array([1.6, 0.0, 0.8]) / np.linalg.norm([1.6, 0.0, 0.8])
    np.testing.assert_allclose(query_expansion(query, gallery, top=1)[0], expected, atol=1e-6)


# --- input that cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize("function", [rerank, query_expansion])
def test_arrays_that_cannot_be_compared(function) -> None:
    query, gallery = halves(40)
    with pytest.raises(DataError, match=r"query embeddings have 5 dimensions, gallery embeddings 16"):
        function(query[:, :5], gallery)
    with pytest.raises(DataError, match=r"gallery embeddings have shape \(16,\)"):
        function(query, gallery[0])
    with pytest.raises(DataError, match=r"query embeddings have shape .* and type int64"):
        function(query.astype(int), gallery)
    with pytest.raises(DataError, match="the gallery holds no embeddings"):
        function(query, gallery[:0])
    with pytest.raises(DataError, match="the query holds no embeddings"):
        function(query[:0], gallery)
    gallery[[3, 8], 2] = np.nan, np.inf
    with pytest.raises(DataError, match=r"gallery embeddings .* in 2 of 30 rows \(rows 3, 8\)"):
        function(query, gallery)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, "k1 is 0; give a whole number of at least 1"),
        ({"k2": 0}, "k2 is 0; give"),
        ({"k1": 20.0}, "k1 is 20.0; give a whole number"),
        ({"k1": 5, "k2": 6}, "k2 is 6, more than k1 = 5"),
        ({"lambda_value": 1.5}, "lambda_value is 1.5; give a share"),
        ({"lambda_value": float("nan")}, "lambda_value is nan"),
        ({"block_size": 0}, "block_size is 0; give at least 1"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rerank(*halves(40), **options)


def test_every_option_that_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        RerankOptions(k1=0, k2=-1, lambda_value=2)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("options", "message"), [({"top": 0}, "top is 0"), ({"alpha": -1.0}, "alpha is -1.0")]
)
def test_expansion_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        query_expansion(*halves(40), **options)
