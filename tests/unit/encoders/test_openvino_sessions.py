from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from reidkit.encoders import openvino_sessions
from reidkit.encoders.openvino_sessions import Sessions

pytestmark = pytest.mark.alone  # OpenVINO is loaded here

openvino = pytest.importorskip("openvino", reason="openvino is not installed")

opset = openvino.opset13
WEIGHTS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(openvino_sessions, "num_threads", lambda: 2)


def network(batch=-1):
    """Two outputs: the mean colour of each image, and that times WEIGHTS."""
    images = opset.parameter([batch, 3, 4, 2], np.float32)
    colour = opset.reduce_mean(images, opset.constant(np.array([2, 3])), keep_dims=False)
    return openvino.Model([colour, opset.matmul(colour, opset.constant(WEIGHTS), False, False)], [images])


def images(count):
    return np.random.default_rng(1).random((count, 3, 4, 2), dtype=np.float32)


def run(sessions, batch):
    return sessions.run(batch, place_in=0, place_out=1)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 50])
def test_parts_are_put_together_to_the_bits_of_the_whole(count, monkeypatch):
    whole = run(Sessions(openvino, network()), images(count))
    monkeypatch.setattr(openvino_sessions, "WORTH_COMPILING", 0.0)
    in_parts = Sessions(openvino, network())
    np.testing.assert_array_equal(run(in_parts, images(count)), whole)
    np.testing.assert_allclose(whole, images(count).mean(axis=(2, 3)) @ WEIGHTS, atol=1e-5)
    assert (in_parts._streams is None) == (count == 1)  # a lone image has all threads


@pytest.mark.usefixtures("two_threads")
def test_there_are_streams_once_batches_have_taken_their_time(monkeypatch):
    sessions = Sessions(openvino, network())
    run(sessions, images(4))
    assert sessions._streams is None
    sessions._seconds_left = 1e-9
    outputs = [run(sessions, images(4)) for _ in range(2)]
    assert sessions._streams is not None
    np.testing.assert_array_equal(*outputs)


@pytest.mark.usefixtures("two_threads")
def test_a_network_that_fixes_its_batch_gets_it_whole(monkeypatch):
    monkeypatch.setattr(openvino_sessions, "WORTH_COMPILING", 0.0)
    assert run(Sessions(openvino, network(batch=4)), images(4)).shape == (4, 5)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("worth", [0.0, 1e9])
def test_several_threads_share_a_network(worth, monkeypatch):
    monkeypatch.setattr(openvino_sessions, "WORTH_COMPILING", worth)
    sessions = Sessions(openvino, network())
    batch = images(8)
    expected = run(sessions, batch)
    with ThreadPoolExecutor(4) as threads:
        for output in threads.map(lambda _: run(sessions, batch), range(40)):
            np.testing.assert_array_equal(output, expected)
