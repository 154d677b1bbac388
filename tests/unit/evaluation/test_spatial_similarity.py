"""SCS: its loss against loops, its gradient against differences, and what it learns."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import reidkit as rk
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.metric_learning import fit_metric
from reidkit.evaluation.spatial_similarity import SCS, Form, _Comparable, loss_and_gradients
from reidkit.types import JUNK, Features

Array = NDArray[np.float64]

IDENTITIES = np.array([0, 0, 1, 1, 1, 2, 3, 3, 3, JUNK])
CAMERAS = np.array([0, 1, 0, 1, 1, 0, 1, 1, 1, 0])  # 2 is alone, 3 has one camera


def people(num: int, *, seed: int = 0, num_stripes: int = 4) -> Features:
    """Each stripe tells persons apart in 3 of 6 directions; another varies more, and by camera."""
    rng = np.random.default_rng(seed)
    identities, cameras = np.repeat(np.arange(num), 4), np.tile([1, 1, 2, 2], num)
    stripes = []
    for _ in range(num_stripes):
        values = 0.6 * rng.normal(size=(4 * num, 6))
        values[:, :3] += rng.normal(size=(num, 3))[identities]
        values[:, 3] += 4 * (rng.normal(size=4 * num) + cameras - 1.5)
        stripes.append(values @ np.linalg.qr(np.random.default_rng(len(stripes)).normal(size=(6, 6)))[0])
    return Features(np.hstack(stripes).astype(np.float32), identities, cameras)


def similarity(forms: list[Form], first: list[Array], second: list[Array]) -> float:
    return sum(
        -(x - z) @ form.distance @ (x - z) + 2 * x @ form.product @ z
        for form, x, z in zip(forms, first, second, strict=True)
    )


def loss_by_loops(forms: list[Form], parts: list[Array], cameras: Array | None) -> float:
    """``log(1 + sum over negatives of exp(s(a, n) - s(a, p)))``, a mean over positives and over anchors."""
    terms = []
    images = [i for i, identity in enumerate(IDENTITIES) if identity != JUNK]
    for a in images:
        met = [i for i in images if (i != a if cameras is None else cameras[i] != cameras[a])]
        score = {i: similarity(forms, [p[a] for p in parts], [p[i] for p in parts]) for i in met}
        positives = [i for i in met if IDENTITIES[i] == IDENTITIES[a]]
        negatives = [i for i in met if IDENTITIES[i] != IDENTITIES[a]]
        if positives and negatives:
            of_positives = [
                math.log(1 + sum(math.exp(score[n] - score[p]) for n in negatives)) for p in positives
            ]
            terms.append(sum(of_positives) / len(positives))
    return sum(terms) / len(terms)


def some_forms(rng: np.random.Generator) -> list[Form]:
    matrices = [rng.normal(size=(dim, dim)) for dim in (3, 3, 2, 2)]
    first, second, third, fourth = [matrix + matrix.T for matrix in matrices]
    return [Form(first, second), Form(third, fourth)]


@pytest.mark.parametrize("cameras", [None, CAMERAS])
def test_loss_is_that_of_loops_and_its_gradient_that_of_differences(cameras, monkeypatch) -> None:
    monkeypatch.setattr("reidkit.evaluation.spatial_similarity._BLOCK", 25)  # blocks of two rows
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(len(IDENTITIES), dim)) for dim in (3, 2)]
    kept = [part[IDENTITIES != JUNK] for part in parts]
    pairs, forms = _Comparable(IDENTITIES, cameras), some_forms(rng)
    loss, gradients = loss_and_gradients(forms, kept, pairs)
    assert loss == pytest.approx(loss_by_loops(forms, parts, cameras), rel=1e-12)
    for _ in range(4):
        step = [Form(1e-6 * form.distance, 1e-6 * form.product) for form in some_forms(rng)]
        ends = [
            loss_and_gradients(
                [
                    Form(f.distance + s * t.distance, f.product + s * t.product)
                    for f, t in zip(forms, step, strict=True)
                ],
                kept,
                pairs,
            )[0]
            for s in (-1, 1)
        ]
        along = sum(
            (g.distance * t.distance).sum() + (g.product * t.product).sum()
            for g, t in zip(gradients, step, strict=True)
        )
        assert (ends[1] - ends[0]) / 2 == pytest.approx(along, rel=1e-5)


def test_a_similarity_is_its_formula_and_sides_order_as_it_does() -> None:
    metric = SCS(dim=4).fit(people(20))
    query, gallery = people(5, seed=1).embeddings, people(6, seed=2).embeddings
    distances = metric.distances(query, gallery)
    assert (distances < 0).any()

    def parts(row: Array) -> list[Array]:
        values = row.astype(np.float64)
        pieces = [*np.split(values, 4), values]
        return [
            (piece / np.linalg.norm(piece) - part.mean) @ part.projection
            for piece, part in zip(pieces, metric.parts, strict=True)
        ]

    for q, g in ((0, 0), (7, 11)):
        expected = -similarity(list(metric.forms), parts(query[q]), parts(gallery[g]))
        assert distances[q, g] == pytest.approx(expected, rel=1e-4)
    asking, searched = metric.sides(query, gallery)
    squared = np.square(asking[:, None].astype(np.float64) - searched).sum(axis=2)
    shifts = squared - distances
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1], shifts.shape), atol=1e-3)
    np.testing.assert_array_equal(metric.sides(query)[1][:, :-1], metric.sides(query, query)[1][:, :-1])


def test_it_finds_the_minimum() -> None:
    features = people(15)
    metric = SCS(regularization=0.3).fit(features)
    values = features.embeddings.astype(np.float64)
    parts = [*np.split(values, 4, axis=1), values]
    coordinates = [
        (piece / np.linalg.norm(piece, axis=1, keepdims=True) - part.mean) @ part.projection
        for piece, part in zip(parts, metric.parts, strict=True)
    ]
    _, gradients = loss_and_gradients(
        metric.forms, coordinates, _Comparable(features.identities, features.cameras)
    )
    for form, gradient in zip(metric.forms, gradients, strict=True):
        np.testing.assert_allclose(gradient.distance, -0.3 * form.distance, atol=2e-3)
        np.testing.assert_allclose(gradient.product, -0.3 * form.product, atol=2e-3)


def test_what_it_learned_finds_other_people() -> None:
    metric, others = fit_metric("scs", people(40)), people(30, seed=5)
    rows = others.cameras == 1
    query, gallery = (
        Features(others.embeddings[side], others.identities[side], others.cameras[side])
        for side in (rows, ~rows)
    )
    plain = evaluate_features(query, gallery).mean_average_precision
    learned = evaluate_features(query, gallery, metric=metric)
    assert learned.mean_average_precision > plain + 0.2
    assert "SCS distance" in learned.protocol
    blocks = evaluate_features(query, gallery, metric=metric, block_size=7)
    np.testing.assert_array_equal(learned.average_precisions, blocks.average_precisions)
    everyone = evaluate_features(others, metric=metric, protocol="recall", camera_filter="none")
    assert everyone.mean_average_precision > 0


def test_junk_is_not_learned_from_and_wide_embeddings_are() -> None:
    features = people(12)
    junk = np.concatenate([features.identities, [JUNK] * 8])
    with_junk = Features(
        np.vstack([features.embeddings, 9 * features.embeddings[:8] + 1]), junk, np.tile([1, 2], 28)
    )
    without = Features(features.embeddings, features.identities, np.tile([1, 2], 24))
    found, expected = (
        SCS(dim=5).fit(which).distances(features.embeddings, features.embeddings)
        for which in (with_junk, without)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    wide = (
        np.random.default_rng(0).normal(size=(48, 4000))
        + np.repeat(features.embeddings, 200, axis=1)[:, :4000]
    )
    metric = SCS().fit(Features(wide, features.identities, features.cameras))
    assert np.isfinite(metric.distances(wide[:3], wide)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regularization": 0}, "regularization is 0; give a number above 0"),
        ({"dim": 0}, "dim is 0; give a whole number"),
        ({"num_stripes": 2.5}, "num_stripes is 2.5; give a whole number"),
        ({"num_stripes": 0}, "num_stripes is 0; give a whole number"),
    ],
)
def test_options_out_of_range(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        SCS(**options)


def test_what_cannot_be_learned_from() -> None:
    features = people(5)
    with pytest.raises(DataError, match="24 dimensions, which are not 5 equal stripes; give the num_stripes"):
        SCS(num_stripes=5).fit(features)
    with pytest.raises(DataError, match="no similar pair"):
        SCS().fit(Features(features.embeddings, np.arange(20)))
    metric = SCS().fit(features)
    with pytest.raises(DataError, match="query embeddings have 20 dimensions, SCS was fitted on 24"):
        metric.sides(features.embeddings[:, :20])
    for asked in ("scs", metric):
        with pytest.raises(ConfigError, match="rerank with metric SCS"):
            rk.EvaluationOptions(metric=asked, rerank=True)


@pytest.mark.slow
def test_on_viper_it_is_ahead_of_xqda(real_data: Path) -> None:
    data = rk.load_dataset("viper", real_data / "viper", split=0)
    result = rk.evaluate(rk.load_encoder("lomo", feature="stripes"), data, metric="scs")
    assert 0.38 < result.rank(1) < 0.48
