import os
import signal
import traceback

import pytest

from reidkit.training import interrupt as stopping
from reidkit.training.interrupt import GracefulStop


def in_a_process_of_its_own(scenario):
    """Signals that a test sends to its own process would reach whatever runs the tests."""
    child = os.fork()
    if child == 0:
        try:
            scenario()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "see the traceback"


def test_a_signal_that_comes_by_two_ways_is_one_request_and_a_later_one_stops_at_once():
    stop = GracefulStop()

    def ask_three_times():
        with stop:
            assert stop.requested() is None
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            assert isinstance(stop.requested(), SystemExit)
            stopping._ONE_REQUEST = -1.0
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the last signal was only remembered")

    def scenario():
        with pytest.raises(SystemExit):
            ask_three_times()
        with stop:
            assert stop.requested() is None, "it can be used again"

    in_a_process_of_its_own(scenario)


def test_a_request_that_nobody_raised_takes_effect_at_the_end():
    def scenario():
        with pytest.raises(KeyboardInterrupt), GracefulStop():
            os.kill(os.getpid(), signal.SIGINT)

    in_a_process_of_its_own(scenario)


def test_a_request_does_not_hide_an_error():
    def ask_and_fail():
        with GracefulStop():
            os.kill(os.getpid(), signal.SIGINT)
            raise ValueError("came first")

    def scenario():
        with pytest.raises(ValueError, match="came first"):
            ask_and_fail()

    in_a_process_of_its_own(scenario)


def test_it_can_be_asked_without_a_signal():
    stop = GracefulStop()
    stop.request(signal.SIGTERM)
    assert isinstance(stop.requested(), SystemExit)
