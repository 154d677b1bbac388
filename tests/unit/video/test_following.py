"""Streams are followed as they come: tracks are stored when they end, nobody waits, no password is told."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import reidkit as rk
from reidkit.cli import cli
from reidkit.encoders.encoder import Encoder
from reidkit.errors import ConfigError, DataError
from reidkit.galleries import open_gallery
from reidkit.video import TrackOptions, follow, track
from reidkit.video.arrivals import Arrivals
from reidkit.video.best_pictures import BestPictures
from reidkit.video.detector import Found
from reidkit.video.frames import Frame
from reidkit.video.item_pictures import picture_of
from reidkit.video.sighting import Sighting
from reidkit.video.streams import Stream, _Backlog
from reidkit.video.view import Crop
from tests.detectors import detector_file, picture
from tests.streams import Camera
from tests.videos import write_video

RATE, SECONDS = 10, 3
OPTIONS = TrackOptions(lost_seconds=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody stands on the left for a second and a half, then there is nobody; a detector, an encoder."""
    pytest.importorskip("trackers", reason="trackers is not installed")
    folder = tmp_path_factory.mktemp("streams")
    shown = [picture((0, 1)) if number < 15 else picture() for number in range(RATE * SECONDS)]
    write_video(folder / "a.ts", shown, rate=RATE)
    detector_file(folder / "d.onnx", "yolo")
    (folder / "d.toml").write_text('output = "yolo"\n')
    Encoder(rk.build_model("timm:test_resnet"), height=48, width=24).save(folder / "net.safetensors")
    return folder


@pytest.fixture
def camera(folder: Path) -> Iterator[Camera]:
    with Camera(folder / "a.ts", seconds=SECONDS, breaks_after=2.5) as camera:
        yield camera


def test_tracks_are_stored_as_they_end_over_all_connections(
    folder: Path, camera: Camera, tmp_path: Path, told: list[str]
) -> None:
    began = time.time()
    address = camera.address.replace("://", "://admin:secret@") + "/live?token=secret"
    followed = follow(
        [address],
        folder / "d.onnx",
        encoder=folder / "net.safetensors",
        gallery=tmp_path / "g",
        cameras=["door"],
        options=OPTIONS,
        duration=5.5,
    )
    [counts] = followed.counts
    assert counts.tracks >= 2
    assert counts.breaks >= 1
    assert counts.sent > 30
    assert any("broke off" in text for text in told)
    assert any("is there again" in text for text in told)
    with open_gallery(tmp_path / "g") as gallery:
        items = gallery.items()
        assert gallery.verify().damaged == ()
    means = [item for item in items if item.labels["kind"] == "track"]
    assert len(means) == counts.tracks
    assert len({item.source for item in items}) == len(items)
    assert {item.camera for item in items} == {"door"}
    assert all(began <= item.time <= time.time() for item in items if item.time is not None)
    assert {item.box for item in items} == {(0, 16, 16, 32)}
    with pytest.raises(DataError, match="came from a stream"):
        picture_of(items[0])
    everything = "".join([*told, *map(str, items), *map(str, followed.rows()), str(followed.as_dict())])
    assert "secret" not in everything
    held = b"".join(file.read_bytes() for file in (tmp_path / "g").rglob("*") if file.is_file())
    assert b"secret" not in held


def test_a_track_that_goes_on_is_stored_in_parts(folder: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "b.ts", [picture((0, 1))] * 30, rate=RATE)
    with Camera(tmp_path / "b.ts", seconds=SECONDS, http=True) as camera:
        [counts] = follow(
            [camera.address],
            folder / "d.onnx",
            encoder=folder / "net.safetensors",
            gallery=tmp_path / "g",
            options=TrackOptions(lost_seconds=5, piece_seconds=1),
            duration=3.2,
        ).counts
    assert counts.tracks >= 2
    assert counts.tracklets == 1
    with open_gallery(tmp_path / "g") as gallery:
        items = gallery.items(where={"kind": "track"})
    assert len(items) == counts.tracks
    assert len({item.tracklet for item in items}) == 1


def started(folder: Path, camera: Camera, gallery: Path) -> subprocess.Popen[str]:
    """``reid track`` on a stream, when it has stored the first track."""
    words = ["track", camera.address, "--detector", str(folder / "d.onnx"), "--gallery", str(gallery)]
    words += ["--encoder", str(folder / "net.safetensors")]
    process = subprocess.Popen([sys.executable, "-m", "reidkit", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "pictures: " in line:
            return process
    raise AssertionError(f"ended with {process.wait()}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_what_is_in_sight(number: int, folder: Path, tmp_path: Path) -> None:
    with Camera(folder / "a.ts", seconds=SECONDS) as camera:
        process = started(folder, camera, tmp_path / "g")
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "stopping: what is in sight is stored" in errors
    with open_gallery(tmp_path / "g") as gallery:
        assert gallery.verify().damaged == ()
        assert len(gallery) >= 2


@pytest.mark.slow
def test_nothing_is_half_written_when_it_is_killed(folder: Path, tmp_path: Path) -> None:
    with Camera(folder / "a.ts", seconds=SECONDS) as camera:
        for times in (1, 2):
            process = started(folder, camera, tmp_path / "g")
            time.sleep(0.7 * times)
            process.kill()
            process.communicate()
            with open_gallery(tmp_path / "g") as gallery:
                assert gallery.verify().damaged == ()
                crops = {item.tracklet for item in gallery.items(where={"kind": "crop"})}
                means = [item.tracklet for item in gallery.items(where={"kind": "track"})]
            assert len(means) >= times
            assert set(means) == crops


def test_a_slow_looker_misses_pictures_but_is_never_late(folder: Path) -> None:
    with Camera(folder / "a.ts", seconds=SECONDS) as camera, Arrivals([Stream(camera.address)]) as arrivals:
        numbers, waited = [], []
        while len(numbers) < 5:
            arrival = arrivals.next(60.0)
            assert arrival is not None
            numbers.append(arrival.frame.number)
            waited.append(time.monotonic() - arrival.arrived)
            time.sleep(0.35)
    assert all(np.diff(numbers)[1:] > 1)
    assert min(waited[-2:]) < 0.35  # in a queue, each waits longer than the one before
    assert arrivals.num_dropped[0] >= numbers[-1] - len(numbers) - 1 > 0


def test_what_cannot_be_decoded_in_time_is_left_out_up_to_the_next_whole_picture(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    """Each twentieth packet is whole."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    backlog = _Backlog("camera")

    def wanted(numbers: range, *, decoding: float, waiting: float) -> list[int]:
        nonlocal now
        found = []
        for number in numbers:
            now += waiting
            if backlog.is_wanted(SimpleNamespace(is_keyframe=number % 20 == 0), waiting):
                now += decoding
                found.append(number)
        return found

    assert wanted(range(100), decoding=0.02, waiting=0.08) == list(range(100))
    assert wanted(range(100, 110), decoding=0.3, waiting=3.0) == list(range(100, 110))  # a slow network
    slow = wanted(range(110, 190), decoding=0.3, waiting=0.0)
    first = min(set(range(110, 190)) - set(slow))
    assert first < 140
    assert [number for number in slow if number > first] == [n for n in range(120, 190, 20) if n > first]
    assert backlog.num_skipped > 20
    assert wanted(range(190, 230), decoding=0.02, waiting=0.08) == list(range(200, 230))
    assert len(told) == 1


def test_few_pictures_are_kept_of_a_track_that_never_ends() -> None:
    best = BestPictures(3)
    qualities = np.random.default_rng(0).random(1000)
    for number, quality in enumerate(qualities.tolist()):
        best.next_box()
        pixels = np.full((32, 16, 3), number % 250, np.uint8)
        if best.may_be_better(quality):
            best.offer(Crop(number, number / 10, (0, 0, 16, 32), quality, pixels))
        assert len(best._stretches) <= 6
    chosen = best.chosen()
    assert len(chosen) == 3
    assert max(crop.quality for crop in chosen) == qualities.max()
    assert np.ptp([crop.frame for crop in chosen]) > 300


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("rtsp://admin:secret@127.0.0.1:1/live/secret", r"rtsp://127.0.0.1:1/\.\.\. cannot be connected"),
        ("rtsp://admin:se/cret@127.0.0.1:1", r"rtsp://\.\.\. cannot be connected"),
        ("RTSP://admin:secret@127.0.0.1:1/", "rtsp://127.0.0.1:1/"),
        ("rstp://admin:secret@127.0.0.1/", r"rstp://127.0.0.1/\.\.\. begins with none of rtsp"),
        ("http://[::1:secret/", r"http://\.\.\. "),
    ],
)
def test_passwords_are_not_told(address: str, message: str, folder: Path, tmp_path: Path) -> None:
    words = ["track", address, "--detector", str(folder / "d.onnx"), "--encoder"]
    words += [str(folder / "net.safetensors"), "--gallery", str(tmp_path / "g")]
    error = CliRunner().invoke(cli, words).exception
    assert not (tmp_path / "g").exists()
    assert isinstance(error, DataError | ConfigError)
    assert error.args[0].count("\n") == 0
    with pytest.raises((DataError, ConfigError), match=message):
        raise error
    assert "cret" not in str(error)


def test_streams_and_files_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        error = CliRunner().invoke(cli, ["track", *map(str, words)]).exception
        assert isinstance(error, ConfigError | DataError), error
        return str(error)

    address = "rtsp://admin:secret@10.0.0.7/live"
    detector, encoder = ("--detector", folder / "d.onnx"), ("--encoder", folder / "net.safetensors")
    gallery = ("--gallery", tmp_path / "g")
    assert "--boxes: is for files" in refused(address, "--boxes", "b.txt", *detector, *encoder, *gallery)
    assert "--out: is for files" in refused(address, "--out", "b.mp4", *detector, *encoder, *gallery)
    assert "a stream needs --detector" in refused(address, *encoder, *gallery)
    assert "two streams" in refused(
        address, address, "--camera", 1, "--camera", 1, *detector, *encoder, *gallery
    )
    assert "2 streams, but 1 cameras" in refused(
        address, address, "--camera", 1, *detector, *encoder, *gallery
    )
    mixed = refused(address, folder / "a.ts", *detector, *encoder, *gallery)
    assert "a.ts' is no address of a stream" in mixed
    assert "is no age" in refused(address, "--for", "soon", *detector, *encoder, *gallery)
    assert "--for: a file is read to its end" in refused(folder / "a.ts", "--for", "1m", *gallery)
    assert "--boxes is missing" in refused(folder / "a.ts", *gallery)
    with pytest.raises(ConfigError, match=r"rtsp://10.0.0.7/\.\.\. is a stream"):
        track([address], [folder / "b.txt"])


def test_who_could_not_be_looked_at_is_not_lost() -> None:
    """Pictures come a second and a half apart, though a second without a box ends a track."""
    pytest.importorskip("trackers", reason="trackers is not installed")
    sighting = Sighting(rate=RATE, options=TrackOptions())
    image = picture((0, 1))
    found = Found(np.array([[0.0, 16.0, 16.0, 32.0]]), np.array([0.9]))
    nobody = Found(np.empty((0, 4)), np.empty(0))
    for number in range(12):
        time = 0.1 * number if number < 4 else 1.5 * number
        sighting.look(Frame(number, time, lambda: image), found, time)
        assert not list(sighting.ended(time))
    assert sighting.num_in_sight == 1
    for number in range(3):
        sighting.look(Frame(number, 17 + number, lambda: image), nobody, 17.0 + number)
    [piece] = sighting.ended(20.0)
    assert piece.ended == 16.5


def test_after_a_break_nobody_is_taken_for_who_was_there_before() -> None:
    pytest.importorskip("trackers", reason="trackers is not installed")
    sighting = Sighting(rate=RATE, options=TrackOptions())
    image = picture((0, 1))
    found = Found(np.array([[0.0, 16.0, 16.0, 32.0]]), np.array([0.9]))
    for number in range(5):
        sighting.look(Frame(number, number / 10, lambda: image), found, number / 10)
    for number in range(5):
        time = 4 + number / 10
        sighting.look(Frame(number, time, lambda: image), found, time, gap=3.6 if number == 0 else 0.1)
    assert len(list(sighting.ended(4.4, all_of_them=True))) == 2
