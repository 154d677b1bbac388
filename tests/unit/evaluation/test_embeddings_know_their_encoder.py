"""Embeddings carry the fingerprint of their encoder, into files and back; those of two are not compared."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import reidkit as rk
from reidkit.arrays import Embeddings, fingerprints_of, plain_array
from reidkit.errors import DataError
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.feature_files import load_features, save_embeddings, save_features
from reidkit.galleries import open_gallery
from reidkit.types import Features


def made_by(name, *, num=6, seed=0):
    values = np.random.default_rng(seed).normal(size=(num, 8)).astype(np.float32)
    return Embeddings(values, (name, f"former-{name}"))


def features(name, **options):
    embeddings = made_by(name, **options)
    return Features(embeddings, np.arange(len(embeddings)) // 2)


def test_what_is_taken_from_embeddings_knows_what_is_computed_does_not():
    embeddings = made_by("a")
    rows = np.array([0, 2])
    taken = [embeddings[1:3], embeddings[rows], embeddings.copy(), embeddings.astype(np.float64)]
    taken += [np.ascontiguousarray(embeddings), copy.deepcopy(embeddings)]
    taken += [pickle.loads(pickle.dumps(embeddings))]
    for part in taken[:4] + taken[5:]:
        assert fingerprints_of(part) == ("a", "former-a")
    computed = [embeddings @ embeddings.T, embeddings / 2, embeddings.mean(axis=0), embeddings > 0]
    computed += [np.asarray(embeddings), np.linalg.norm(embeddings, axis=1), taken[4]]
    for values in computed:
        assert type(values) is np.ndarray
    assert isinstance(embeddings.sum(), np.float32)
    np.testing.assert_array_equal(np.asarray(embeddings[rows]), np.asarray(embeddings)[rows])
    assert np.shares_memory(np.asarray(embeddings), embeddings)


@pytest.mark.parametrize(
    "join",
    [
        np.concatenate,
        np.vstack,
        lambda parts: np.stack([row for part in parts for row in part]),
        lambda parts: np.append(*parts, axis=0),
        lambda parts: plain_array([row for part in parts for row in part], "embeddings"),
    ],
)
def test_rows_are_joined_where_they_are_of_one_encoder(join):
    first, second = made_by("a")[:2], made_by("a")[2:]
    assert fingerprints_of(join([first, second])) == ("a", "former-a")
    np.testing.assert_array_equal(join([first, second]), made_by("a"))
    earlier = Embeddings(np.asarray(second), ("former-a",))
    assert fingerprints_of(join([first, earlier])) == ("former-a",)
    with pytest.raises(DataError, match="different encoders, of fingerprints a and b, do not belong in one"):
        join([first, made_by("b")])
    assert type(join([first, np.asarray(second)])) is np.ndarray, "a part does not say"


def test_features_of_two_encoders_may_stand_side_by_side():
    assert type(np.concatenate([made_by("a"), made_by("b")], axis=1)) is np.ndarray
    assert type(np.hstack([made_by("a"), made_by("b")])) is np.ndarray


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_files_keep_the_encoder(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = save_features(tmp_path / f"f{suffix}", features("a"), features("b", num=4))
    query, gallery = load_features(path)
    assert fingerprints_of(query.embeddings) == ("a", "former-a")
    assert fingerprints_of(gallery.embeddings) == ("b", "former-b")
    np.testing.assert_array_equal(query.embeddings, features("a").embeddings)
    with pytest.raises(DataError, match="different encoders, of fingerprints a and b"):
        rk.evaluate_features(query, gallery)
    single = save_features(tmp_path / f"one{suffix}", features("a"))
    assert fingerprints_of(load_features(single)[0].embeddings) == ("a", "former-a")


def test_a_file_without_labels_keeps_the_encoder(tmp_path):
    path = save_embeddings(tmp_path / "e.npz", made_by("a")[:2], paths=["x", "y"])
    with np.load(path) as arrays:
        assert arrays["encoders"].tolist() == ["a former-a"]


def test_a_file_of_two_encoders_is_refused(tmp_path):
    np.savez(
        tmp_path / "f.npz",
        embeddings=np.ones((2, 3), np.float32),
        identities=np.array([1, 2]),
        encoders=np.array(["a", "b"]),
    )
    with pytest.raises(DataError, match="embeddings of two encoders cannot be compared"):
        load_features(tmp_path / "f.npz")


def test_sides_that_do_not_say_are_compared():
    plain = Features(np.asarray(made_by("b")), np.arange(6) // 2)
    compare(features("a"), plain)
    compare(plain, features("a"))
    earlier = Features(Embeddings(np.asarray(made_by("a")), ("former-a",)), np.arange(6) // 2)
    compare(features("a"), earlier)


def test_a_gallery_refuses_another_encoder(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(made_by("a")[:3])
        assert gallery.encoder["fingerprint"] == "a"
        with pytest.raises(DataError, match="filled by another encoder"):
            gallery.add(made_by("b"))
        with pytest.raises(DataError, match="filled by another encoder"):
            gallery.search(made_by("b")[:1])
        gallery.add(np.asarray(made_by("b"))[:1])  # it does not say
        assert len(gallery.search(made_by("a")[0], top=2)[0]) == 2
        assert len(gallery) == 4
        with pytest.raises(DataError, match="filled by another encoder"):
            gallery.add(list(made_by("b")))
    with pytest.raises(DataError, match="filled by another encoder"):
        open_gallery(tmp_path / "g", encoder={"fingerprint": "b"})


def test_an_encoder_signs_what_it_encodes(tmp_path):
    encoders = [
        rk.Encoder(rk.build_model("timm:test_resnet"), height=size, width=size // 2) for size in (48, 64)
    ]
    image = np.zeros((32, 16, 3), np.uint8)
    first, second = (encoder.encode([image, image]) for encoder in encoders)
    assert fingerprints_of(first) == encoders[0].fingerprints != fingerprints_of(second)
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(first)
        with pytest.raises(DataError, match="another encoder"):
            gallery.search(second)
