import pytest

from reidkit import registry
from reidkit.errors import CheckpointError
from reidkit.training.trackers import MetricsFile, TensorBoard, named_tracker, read_metrics


def records(*steps, kind="step"):
    return [{"kind": kind, "step": step, "epoch": 0, "loss": step / 2} for step in steps]


def test_a_resumed_run_keeps_what_it_does_not_write_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, last_step=0)
    for record in [*records(1, 2, 3), *records(2, kind="validation")]:
        metrics(record)
    MetricsFile(path, last_step=2)
    assert read_metrics(path) == [*records(1, 2), *records(2, kind="validation")]
    MetricsFile(path, last_step=2, due=["validation"])
    assert read_metrics(path) == records(1, 2)


def test_steps_that_a_killed_run_repeats_are_shown_once(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed = TensorBoard(tmp_path, last_step=0)
    for record in records(1, 2, 3, 4, 5):
        killed(record)
    resumed = TensorBoard(tmp_path, last_step=3)
    for record in records(4, 5, 6):
        resumed(record)
    resumed.close()
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in shown.Scalars("step/loss")] == [1, 2, 3, 4, 5, 6]
    killed.close()


class Adapter:
    def __init__(self):
        self.closed = 0

    def __call__(self, record):
        assert not self.closed

    def close(self):
        self.closed += 1


def test_a_named_tracker_is_made_late_and_closed(tmp_path, monkeypatch):
    made = []

    def build(kind, name, options, folder):
        assert (kind, name, folder) == ("tracker", "mine", tmp_path)
        made.append(Adapter())
        return made[-1]

    monkeypatch.setattr(registry, "build", build)
    tracker = named_tracker("mine", tmp_path)
    tracker.close()
    assert made == []
    tracker(records(1)[0])
    tracker.close()
    tracker(records(2)[0])
    assert [adapter.closed for adapter in made] == [1, 0], "a second training makes another"


@pytest.mark.parametrize(
    "line",
    [
        *(b"3", b"[]", b"{}", b"{", b"\0\0\0", b"\xff\xfe", b"[" * 100_000),
        *(
            b'{"kind": 3, "step": 1}',
            b'{"kind": "epoch", "step": "1"}',
            b'{"kind": "a", "step": 1, "step": 2}',
        ),
    ],
)
def test_lines_that_are_no_records_are_told(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "epoch", "step": 1}\n' + line + b"\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl") as error:
        read_metrics(path)
    assert len(str(error.value)) < 500
    path.write_bytes(b'{"kind": "epoch", "step": 1}\n{"kind": "ep')  # cut short by a crash
    assert read_metrics(path) == [{"kind": "epoch", "step": 1}]
