from threading import Barrier, Event

import numpy as np
import pytest

from reidkit.encoders import reading_ahead
from reidkit.encoders.reading_ahead import prepared_batches


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_batches_keep_the_order(size):
    found = list(prepared_batches(range(10), str, size))
    assert [item for batch in found for item in batch] == [str(number) for number in range(10)]
    assert {len(batch) for batch in found[:-1]} <= {size}
    assert list(prepared_batches([], str, size)) == []


def test_the_next_batch_is_read_meanwhile_and_none_after_it():
    read = {number: Event() for number in range(6)}

    def prepare(number):
        read[number].set()
        return number

    batches = prepared_batches(range(6), prepare, 2)
    assert next(batches) == [0, 1]
    assert read[2].wait(10)
    assert read[3].wait(10)
    assert not read[4].is_set()
    assert next(batches) == [2, 3]
    assert read[5].wait(10)


def test_arrays_are_prepared_by_who_asks_for_them():
    prepared = []
    batches = prepared_batches([np.full(1, number) for number in range(4)], prepared.append, 2)
    next(batches)
    assert len(prepared) == 2


def test_an_error_reaches_who_asks_and_ends_the_reading():
    def prepare(number):
        if number == 1:
            raise ValueError("no image")
        return number

    with pytest.raises(ValueError, match="no image"):
        list(prepared_batches(range(4), prepare, 2))


def test_a_gpu_has_more_readers_than_a_processor_that_embeds_itself(monkeypatch):
    monkeypatch.setattr(reading_ahead, "num_cores", lambda: 16)
    assert [reading_ahead.num_readers(device) for device in ("cpu", "cuda", "cuda:1")] == [2, 8, 8]
    together = Barrier(5, timeout=20)  # of which each reader has to be at its image
    batches = prepared_batches(range(5), lambda number: together.wait() >= 0, 5, num_readers=5)
    assert list(batches) == [[True] * 5]
