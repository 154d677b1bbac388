"""The encoder in the loops of other packages, run by these packages."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import reidkit as rk
from reidkit.encoders.encoder import Encoder
from reidkit.errors import ConfigError
from reidkit.video.adapters import TrackerEncoder

BOXES = np.array([[10, 20, 40, 80], [50, 10, 80, 70], [200, 200, 220, 240]], float)


@pytest.fixture(scope="module")
def adapter() -> TrackerEncoder:
    return TrackerEncoder(Encoder(rk.build_model("timm:test_resnet"), height=48, width=24))


@pytest.fixture(scope="module")
def frame() -> NDArray[np.uint8]:
    """Blue, green, red, as OpenCV has them."""
    return np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)


def test_boxes_are_embedded_as_their_pictures_are(adapter: TrackerEncoder, frame: NDArray[np.uint8]) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    found = adapter.extract_embeddings(sv.Detections(BOXES), frame, batch_size=1)
    assert found.shape == (3, adapter.embedding_dim)
    assert found.dtype == np.float32
    rgb = frame[:, :, ::-1]
    np.testing.assert_allclose(
        found[:2], adapter.encoder.encode([rgb[20:80, 10:40], rgb[10:70, 50:80]]), atol=1e-5
    )
    assert not found[2].any()  # outside the frame
    assert adapter.extract_embeddings(sv.Detections.empty(), frame).shape == (0, 0)
    straight = TrackerEncoder(adapter.encoder, color="rgb").extract_embeddings(sv.Detections(BOXES[:1]), rgb)
    np.testing.assert_allclose(straight, found[:1], atol=1e-5)
    with pytest.raises(ConfigError, match="color is 'brg'; allowed: bgr, rgb"):
        TrackerEncoder(adapter.encoder, color="brg")  # type: ignore[arg-type]


def test_a_tensor_for_each_frame(adapter: TrackerEncoder, frame: NDArray[np.uint8]) -> None:
    rows = np.column_stack([BOXES[:2], [0.9, 0.8], [0, 0]])
    found = adapter.encode([frame, frame], [rows, np.empty((0, 6))])
    assert [tuple(tensor.shape) for tensor in found] == [
        (2, adapter.embedding_dim),
        (0, adapter.embedding_dim),
    ]
    np.testing.assert_allclose(found[0].norm(dim=1), 1, atol=1e-5)


def test_deep_sort_realtime_follows_people_with_it(adapter: TrackerEncoder, frame: NDArray[np.uint8]) -> None:
    module = pytest.importorskip(
        "deep_sort_realtime.deepsort_tracker", reason="it, or OpenCV, is not installed"
    )
    tracker = module.DeepSort(embedder=None, n_init=2)
    for step in range(4):
        raw = [([10 + step, 20, 30, 60], 0.9, "person"), ([50 + step, 10, 30, 60], 0.8, "person")]
        tracks = tracker.update_tracks(raw, embeds=adapter.embeds(raw, frame))
    assert sorted(track.track_id for track in tracks if track.is_confirmed()) == ["1", "2"]
    assert adapter.embeds([], frame) == []


def test_supervision_draws_what_a_live_index_says(adapter: TrackerEncoder, frame: NDArray[np.uint8]) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    from reidkit.video.live import LiveIndex

    detections = sv.Detections(BOXES[:2], tracker_id=np.array([1, 2]))
    names = LiveIndex(0.5).update(
        detections.tracker_id.tolist(), adapter.extract_embeddings(detections, frame)
    )
    labelled = sv.LabelAnnotator(color_lookup=sv.ColorLookup.TRACK).annotate(
        frame.copy(), detections, labels=names
    )
    assert (labelled != frame).any()
