"""Options of an evaluation as one value: checked when it is made, the same from keywords, never dropped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import reidkit as rk
from reidkit.errors import ConfigError, UnknownName
from reidkit.evaluation.evaluation import check_evaluation, evaluate, evaluate_features
from reidkit.evaluation.metric_learning import KISSME
from reidkit.evaluation.options import EvaluationKeywords, EvaluationOptions
from reidkit.reranking import RerankOptions
from reidkit.types import Dataset, Features, Sample, Split


def features(num: int, *, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    identities = rng.integers(0, 6, num)
    embeddings = np.random.default_rng(9).normal(size=(6, 8))[identities] + rng.normal(size=(num, 8))
    return Features(embeddings, identities, rng.integers(0, 3, num))


QUERY, GALLERY = features(20, seed=1), features(60, seed=2)


def samples(folder: str, side: Features) -> Split:
    labels = zip(side.identities.tolist(), side.cameras.tolist(), strict=True)
    return tuple(Sample(Path(f"{folder}/{n}.jpg"), i, c, n) for n, (i, c) in enumerate(labels))


DATA = Dataset("x", Path(), query=samples("query", QUERY), gallery=samples("gallery", GALLERY))


class BySide:
    """Features of the query or of the gallery, by the length of what is asked for."""

    def features(self, split: Split) -> Features:
        return QUERY if len(split) == len(QUERY) else GALLERY


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "market"}, "unknown protocol 'market'"),
        ({"camera_filter": "same_id"}, "unknown camera filter 'same_id'"),
        ({"camera_filter": ""}, "unknown camera filter ''"),
        ({"average_precision": "stepp"}, "unknown average precision 'stepp'"),
        ({"distance": "l2"}, "unknown distance 'l2'"),
        ({"metric": "xqd"}, "unknown metric 'xqd'"),
        ({"multi_query": "meen"}, "unknown multi-query pooling 'meen'"),
        ({"max_rank": 0}, "max_rank is 0; give at least 1"),
        ({"max_rank": "ten"}, "max_rank is 'ten'; give at least 1"),
        ({"protocol": "recall", "average_precision": "trapezoid"}, "but recall measures mAP@R; leave it out"),
        ({"rerank": True, "distance": "l1"}, "rerank with distance = 'l1': k-reciprocal"),
        ({"metric": "xqda", "distance": "l1"}, "a metric and distance = 'l1' are two distances"),
        ({"rerank": {"k1": 3}}, r"rerank is {'k1': 3}; give True, or RerankOptions\(k1=..."),
        (
            {"metric": KISSME()},
            r"metric is KISSME\(dim=None\); give one of 'kissme', 'xqda', 'her', 'scs', or",
        ),
    ],
)
def test_a_mistake_is_told_when_options_are_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UnknownName), match=message):
        EvaluationOptions(**options)
    with pytest.raises((ConfigError, UnknownName), match=message):
        evaluate_features(QUERY, GALLERY, **options)


def test_keywords_are_the_fields() -> None:
    fields = {field.name for field in dataclasses.fields(EvaluationOptions)}
    assert fields == EvaluationKeywords.__optional_keys__
    assert get_type_hints(EvaluationKeywords) == get_type_hints(EvaluationOptions)


def test_options_and_keywords_say_the_same() -> None:
    options = rk.EvaluationOptions(camera_filter="other_cameras", average_precision="trapezoid", max_rank=7)
    by_options = evaluate_features(QUERY, GALLERY, options=options)
    by_keywords = evaluate_features(
        QUERY, GALLERY, camera_filter="other_cameras", average_precision="trapezoid", max_rank=7
    )
    assert by_options.as_dict() == by_keywords.as_dict()
    assert len(by_options.cmc) == 7
    assert evaluate(BySide(), DATA, options=options).as_dict() == by_options.as_dict()


def test_a_keyword_stands_in_place_of_the_option() -> None:
    options = EvaluationOptions(camera_filter="other_cameras", rerank=RerankOptions(k1=5, k2=2))
    found = evaluate(BySide(), DATA, options=options, rerank=False)
    expected = evaluate_features(QUERY, GALLERY, camera_filter="other_cameras")
    assert found.as_dict() == expected.as_dict()
    with pytest.raises(ConfigError, match="rerank with distance = 'l1'"):
        evaluate_features(QUERY, GALLERY, options=options, distance="l1")
    with pytest.raises(ConfigError, match="max_rnk"):
        evaluate_features(QUERY, GALLERY, max_rnk=3)


@pytest.mark.parametrize(("name", "value"), [("multi_query", "mean"), ("num_frames", 4)])
def test_what_chooses_images_is_not_dropped_by_features(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} = {value!r} chooses among a data set's images"):
        evaluate_features(QUERY, GALLERY, **{name: value})


def test_a_data_set_has_a_protocol_of_its_own() -> None:
    assert evaluate(BySide(), DATA, protocol="market1501").protocol.startswith("market1501")
    for call in (check_evaluation, lambda data, **options: evaluate(BySide(), data, **options)):
        with pytest.raises(ConfigError, match="protocol = 'recall', but 'x' is measured by its own, 'market"):
            call(DATA, protocol="recall")


def test_a_misspelt_keyword_is_told() -> None:
    features = Features(np.eye(4, dtype=np.float32), [1, 1, 2, 2])
    with pytest.raises(ConfigError, match="unknown option 'camera_filer'; did you mean 'camera_filter'"):
        evaluate_features(features, camera_filer="none")
    with pytest.raises(ConfigError, match=r"options = \{'max_rank': 5\}; give EvaluationOptions"):
        evaluate_features(features, options={"max_rank": 5})
