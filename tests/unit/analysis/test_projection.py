"""Embeddings on a plane: near stays near, the same twice, and a plain word without scikit-learn."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from reidkit.analysis.projection import project
from reidkit.errors import DataError, MissingExtra


def islands(num_each: int = 15) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), num_each)
    return np.eye(3)[labels] @ rng.normal(size=(3, 16)) + 0.05 * rng.normal(size=(len(labels), 16)), labels


def test_people_are_islands() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    embeddings, labels = islands()
    points = project(embeddings)
    assert points.shape == (45, 2)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(axis=1)] == labels).all()


def test_the_same_embeddings_give_the_same_points() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    embeddings, _ = islands(4)
    np.testing.assert_array_equal(project(embeddings), project(embeddings))


def test_three_are_enough() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    assert np.isfinite(project(np.eye(3))).all()


def test_too_few_or_not_finite_is_refused() -> None:
    with pytest.raises(DataError, match="2 embeddings"):
        project(np.eye(2))
    with pytest.raises(DataError, match="NaN"):
        project(np.full((4, 2), np.nan))


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(MissingExtra, match=r"reidkit\[analysis\]"):
        project(np.eye(5))
