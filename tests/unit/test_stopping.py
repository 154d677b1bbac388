import os
import signal

import pytest

from reidkit import stopping
from reidkit.stopping import GracefulStop


def test_a_signal_that_comes_by_two_ways_is_one_request_and_a_later_one_stops_at_once(monkeypatch):
    with GracefulStop() as stop:
        assert stop.requested() is None
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert isinstance(stop.requested(), SystemExit)
        monkeypatch.setattr(stopping, "_ONE_REQUEST", -1.0)
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
    with stop:
        assert stop.requested() is None, "it can be used again"
