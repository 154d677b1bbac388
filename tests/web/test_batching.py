"""Pictures of several requests, embedded together; and how many may wait."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from reidkit.encoders.network import Network
from reidkit.web.batching import BatchingNetwork
from reidkit.web.together import Busy, NotReady, Together


class Slow(Network):
    """Embeds a picture as its first two pixels; waits until it is let go."""

    def __init__(self):
        self.model = self.device = self.feature = self.resampling = None
        self.batches = []
        self.may_go = threading.Event()

    description, embedding_dim, features = {}, 2, {}

    def embed(self, images):
        self.batches.append(len(images))
        self.may_go.wait(100)
        if (images == 13).any():
            raise RuntimeError("unlucky")
        return images.reshape(len(images), -1)[:, :2].astype(np.float32)

    def embed_features(self, images):
        return self.embed(images)

    def fingerprints(self, *, height, width):
        return ("slow",)

    def save(self, path, description):
        raise NotImplementedError


def image(value):
    return np.full((1, 2, 2, 3), value, np.uint8)


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def network(slow):
    network = BatchingNetwork(slow, waiting=8, pause=0.0)
    yield network
    slow.may_go.set()
    network.close()


def asked(network, values):
    """Threads that embed a picture each, and where their answers will be."""
    answers = {}

    def ask(value):
        try:
            answers[value] = network.embed(image(value))
        except Exception as error:
            answers[value] = error

    threads = [threading.Thread(target=ask, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    return threads, answers


def until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError


def test_what_comes_in_meanwhile_is_embedded_together_and_each_gets_its_own(network, slow):
    first, answers = asked(network, [1])
    until(lambda: slow.batches == [1])
    others, more = asked(network, [2, 3, 4, 5])
    until(lambda: network.num_waiting == 4)
    slow.may_go.set()
    for thread in first + others:
        thread.join()
    assert slow.batches == [1, 4]
    assert {value: row[0, 0] for value, row in {**answers, **more}.items()} == {n: n for n in range(1, 6)}


def test_where_too_many_wait_it_says_so_at_once(network, slow):
    asked(network, [1])
    until(lambda: slow.batches == [1])
    asked(network, range(20, 28))
    until(lambda: network.num_waiting == 8)
    started = time.monotonic()
    with pytest.raises(Busy, match="8 pictures wait") as error:
        network.embed(image(9))
    assert time.monotonic() - started < 20  # the others wait for longer
    assert error.value.seconds >= 1


def test_an_error_reaches_everybody_who_waits_and_the_next_are_embedded(network, slow):
    slow.may_go.set()
    with pytest.raises(RuntimeError, match="unlucky"):
        network.embed(image(13))
    assert network.embed(image(14))[0, 0] == 14


def test_what_waits_is_embedded_before_the_end_and_nothing_after_it(network, slow):
    threads, answers = asked(network, [1])
    until(lambda: slow.batches == [1])
    slow.may_go.set()
    network.close()
    threads[0].join()
    assert answers[1][0, 0] == 1
    with pytest.raises(NotReady):
        network.embed(image(2))


def test_who_comes_in_without_a_pause_is_waited_for_and_a_pause_ends_that():
    done = []
    together = Together(
        lambda tasks: done.append(list(tasks)) or tasks,
        name="t",
        at_once=3,
        waiting=9,
        pause=1.5,  # in which a slow machine can start four threads
        what="wait",
    )
    threads = [threading.Thread(target=together.do, args=(number,)) for number in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together.close()
    assert [len(tasks) for tasks in done] == [3, 1]  # as many as are done at once wait for no pause


def test_first_come_first_served():
    order, begun, may_go = [], threading.Event(), threading.Event()

    def do(tasks):
        begun.set()
        may_go.wait(100)
        order.extend(tasks)
        return tasks

    together = Together(do, name="t", at_once=2, waiting=99, pause=0.0, what="wait")
    threads = []
    for number in range(1, 10):
        threads.append(threading.Thread(target=together.do, args=(number,)))
        threads[-1].start()
        assert begun.wait(100)  # the first is being done, by itself: all others wait
        until(lambda number=number: together.num_waiting + 1 == number)
    may_go.set()
    for thread in threads:
        thread.join()
    together.close()
    assert order == list(range(1, 10))


def test_an_error_of_one_task_is_its_own():
    together = Together(
        lambda tasks: [ValueError("no") if task == 2 else task for task in tasks],
        name="t",
        at_once=9,
        waiting=9,
        pause=0.1,
        what="wait",
    )
    with pytest.raises(ValueError, match="no"):
        together.do(2)
    assert together.do(3) == 3
    together.close()


def test_who_is_known_to_come_is_waited_for_as_long_as_the_work_takes_and_no_longer():
    done, coming = [], [False]

    def do(tasks):
        done.append(list(tasks))
        time.sleep(0.2)
        return tasks

    together = Together(
        do, name="t", at_once=9, waiting=9, pause=0.001, what="wait", enough=3, are_coming=lambda: coming[0]
    )
    together.do(0)
    coming[0] = True
    threads = [threading.Thread(target=together.do, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)  # many pauses
    started = time.monotonic()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 5 * 0.2
    together.close()
    assert done == [[0], [1, 2]]
