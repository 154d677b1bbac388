"""Videos are read picture by picture: numbers, times, rotation, and again from the middle."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.errors import DataError
from reidkit.video.frames import open_video
from tests.videos import grey_pictures, number_in, write_video


def test_pictures_are_counted_from_0_with_their_times(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "a.mp4", grey_pictures(30), rate=10))
    assert (video.width, video.height, video.rate, video.name) == (64, 48, 10, "a")
    frames = list(video.frames())
    assert [frame.number for frame in frames] == list(range(30))
    assert [number_in(frame.image) for frame in frames] == list(range(30))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(30) / 10, atol=1e-3)
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.dtype == np.uint8


@pytest.mark.parametrize("start", [1, 11, 12, 13, 29, 30])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_reading_goes_on_at_any_picture(suffix: str, start: int, tmp_path: Path) -> None:
    codec = "mjpeg" if suffix == ".avi" else "libx264"
    video = open_video(write_video(tmp_path / f"a{suffix}", grey_pictures(30), codec=codec))
    frames = list(video.frames(start))
    assert [frame.number for frame in frames] == list(range(start, 30))
    assert [number_in(frame.image) for frame in frames] == list(range(start, 30))


def test_a_recording_of_a_stream_begins_with_the_first_whole_picture(tmp_path: Path) -> None:
    """Parts before it are packets without a picture, and not counted, wherever reading begins."""
    whole = write_video(tmp_path / "a.ts", grey_pictures(40)).read_bytes()
    packets = [whole[place : place + 188] for place in range(0, len(whole), 188)]
    (tmp_path / "a.ts").write_bytes(b"".join(packets[:2] + packets[len(packets) // 8 :]))
    video = open_video(tmp_path / "a.ts")
    from_the_start = [(frame.number, number_in(frame.image)) for frame in video.frames()]
    assert 5 < len(from_the_start) < 40
    for start in range(len(from_the_start)):
        found = [(frame.number, number_in(frame.image)) for frame in video.frames(start)]
        assert found == from_the_start[start:]


def test_where_no_place_can_be_sought_all_is_read(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_pictures(20))
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile a.mp4\n")
    assert [frame.number for frame in open_video(tmp_path / "list.txt").frames(17)] == [17, 18, 19]


def test_uneven_times_are_kept_also_from_the_middle(tmp_path: Path) -> None:
    milliseconds = np.cumsum([0, *([40, 200, 17] * 9)]).tolist()
    file = write_video(tmp_path / "a.mkv", grey_pictures(28), milliseconds=milliseconds)
    for start in (0, 20):
        times = [frame.time for frame in open_video(file).frames(start)]
        np.testing.assert_allclose(times, np.array(milliseconds[start:]) / 1000, atol=2e-3)


def test_rotation_is_applied(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255  # white at the top left
    video = open_video(write_video(tmp_path / "a.mp4", [picture] * 3, rotation=90))
    assert (video.width, video.height) == (48, 64)
    image = next(iter(video.frames())).image
    assert image.shape == (64, 48, 3)
    np.testing.assert_allclose(image[48, 6], 255, atol=20)  # turned counter-clockwise: at the bottom left
    np.testing.assert_allclose(image[6, 6], 0, atol=20)


def test_a_folder_keeps_gaps_and_natural_order(tmp_path: Path) -> None:
    for number in (1, 2, 10, 11):
        Image.new("RGB", (20, 10), (10 * number,) * 3).save(tmp_path / f"shot_{number}.png")
    video = open_video(tmp_path, rate=5)
    assert [(f.number, f.time, f.image[0, 0, 0]) for f in video.frames()] == [
        *((0, 0.0, 10), (1, 0.2, 20), (9, 1.8, 100), (10, 2.0, 110))
    ]
    assert [frame.number for frame in video.frames(2)] == [9, 10]
    Image.new("RGB", (20, 10)).save(tmp_path / "shot_0.png")
    assert [frame.number for frame in open_video(tmp_path, rate=5).frames()] == [0, 1, 2, 10, 11]


def test_mots_layout_tells_its_rate(tmp_path: Path) -> None:
    (tmp_path / "img1").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "img1" / "000001.jpg")
    (tmp_path / "seqinfo.ini").write_text("[Sequence]\nname=x\nframeRate=14\n")
    assert open_video(tmp_path).rate == 14
    assert open_video(tmp_path / "img1").rate == 14


def test_what_is_no_video_is_told(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", grey_pictures(30)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("cut.mp4", "empty.mp4", "text.mp4"):
        with pytest.raises(DataError, match=f"{name} cannot be opened as video"):
            open_video(tmp_path / name)
    with pytest.raises(DataError, match="missing"):
        open_video(tmp_path / "none.mp4")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        open_video(tmp_path / "folder")
    for name in ("a_1.png", "b_1.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "folder" / name)
    with pytest.raises(DataError, match="two pictures of the number 1"):
        open_video(tmp_path / "folder")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        samples.rate = 8000
        container.mux(stream.encode(samples))
    with pytest.raises(DataError, match="has no pictures, only audio"):
        open_video(tmp_path / "a.wav")


def test_pictures_beyond_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_video(tmp_path / "a.mp4", grey_pictures(2))
    monkeypatch.setenv("REIDKIT_MAX_PIXELS", "1000")
    with pytest.raises(DataError, match="64 x 48 pixels a picture, more than the 1,000 allowed"):
        open_video(file)


def test_a_video_cut_in_the_middle_gives_what_it_has(tmp_path: Path, told: list[str]) -> None:
    whole = write_video(tmp_path / "a.ts", grey_pictures(40)).read_bytes()
    (tmp_path / "a.ts").write_bytes(whole[: int(0.7 * len(whole))])
    frames = list(open_video(tmp_path / "a.ts").frames())
    assert 5 < len(frames) < 40
    assert [frame.number for frame in frames] == list(range(len(frames)))


def test_a_stream_that_breaks_off_is_connected_again(tmp_path: Path, told: list[str]) -> None:
    from reidkit.video.streams import Stream

    content = write_video(tmp_path / "a.ts", grey_pictures(30)).read_bytes()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:  # to look, whole; then broken off; then whole; then nobody is there any more
        for share in (1.0, 0.6, 1.0):
            connection, _ = server.accept()
            with connection:
                connection.sendall(content[: int(share * len(content))])
        server.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    stream = Stream(f"tcp://127.0.0.1:{server.getsockname()[1]}", patience=3.0, timeout=10.0)
    numbers, times = zip(*((frame.number, frame.time) for frame in stream.frames()), strict=True)
    thread.join(60)
    assert numbers == tuple(range(len(numbers)))
    assert 30 < len(numbers) < 60
    assert list(times) == sorted(times)
    assert any("broke off" in text for text in told)
    assert "has ended" in told[-1]
