import os
import signal

import pytest

from reidkit import stopping
from reidkit.stopping import GracefulStop


def test_a_signal_that_comes_by_two_ways_is_one_request_and_a_later_one_stops_at_once(monkeypatch):
    stop = GracefulStop()

    def ask_three_times():
        with stop:
            assert stop.requested() is None
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            assert isinstance(stop.requested(), SystemExit)
            monkeypatch.setattr(stopping, "_ONE_REQUEST", -1.0)
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the last signal was only remembered")

    with pytest.raises(SystemExit):
        ask_three_times()
    with stop:
        assert stop.requested() is None, "it can be used again"


def test_a_request_that_nobody_raised_takes_effect_at_the_end():
    with pytest.raises(KeyboardInterrupt), GracefulStop():
        os.kill(os.getpid(), signal.SIGINT)


def test_a_request_does_not_hide_an_error():
    def ask_and_fail():
        with GracefulStop():
            os.kill(os.getpid(), signal.SIGINT)
            raise ValueError("came first")

    with pytest.raises(ValueError, match="came first"):
        ask_and_fail()
