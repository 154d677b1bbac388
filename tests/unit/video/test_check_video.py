"""What is wrong with a video and its boxes is counted, with examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from reidkit.cli import cli
from reidkit.video.check import VideoCheck, check_video
from tests.videos import grey_pictures, write_video

GOOD = "".join(f"{frame},1,10,10,12,30,1\n" for frame in range(1, 11))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", grey_pictures(10))


def checked(video: Path, folder: Path, text: str) -> VideoCheck:
    (folder / "boxes.txt").write_text(text)
    return check_video(video, folder / "boxes.txt")


def test_nothing_is_found_in_what_is_right(video: Path, tmp_path: Path) -> None:
    result = checked(video, tmp_path, GOOD)
    assert result.findings == ()
    assert (result.num_frames, result.num_boxes, result.num_tracks) == (10, 10, 1)
    assert result.seconds == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("more", "title", "count", "example"),
    [
        ("2,2,nan,0,5,5,1\n3,1,1,1,inf,5,1", "boxes: not a number", 2, "frame 1, track 2: nan, 0, nan, 5"),
        ("2,-1,20,20,-5,5,1", "boxes: no width or height", 1, "frame 1: 20, 20, 15, 25"),
        ("2,-1,64,20,5,5,1", "boxes: outside the picture", 1, "frame 1: 64, 20, 69, 25"),
        ("2,-1,60,20,9,5,1", "boxes partly outside the picture", 1, "frame 1: 60, 20, 69, 25"),
        ("11,-1,6,2,9,5,1", "boxes of frames beyond the end, which is frame 9", 1, "frame 10: 6, 2, 15, 7"),
        ("2,5,20,20,-5,5,1", "tracks without a box that can be used", 1, "track 5"),
        (
            "2,1,30,10,12,30,1",
            "tracks that are at two places in one frame",
            1,
            "frame 1, track 1: 30, 10, 42, 40",
        ),
    ],
)
def test_faults_of_boxes(
    more: str, title: str, count: int, example: str, video: Path, tmp_path: Path
) -> None:
    findings = {finding.title: finding for finding in checked(video, tmp_path, GOOD + more).findings}
    assert findings[title].count == count
    assert findings[title].examples[0] == example


def test_clocks_and_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 4):
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "boxes.txt").write_text("3,1,1,1,9,9,1\n")
    result = check_video(tmp_path, tmp_path / "boxes.txt")
    titles = [finding.title for finding in result.findings]
    assert "boxes of frames that have no picture" in titles
    assert "gaps in the numbers of the pictures" in titles
    monkeypatch.setattr("reidkit.video.frames.Pictures.frames", backwards)
    assert check_video(tmp_path).findings[0].examples == ("frame 1: 0.500 s after 1.000 s",)


def backwards(self: object, start: int = 0):  # type: ignore[no-untyped-def]
    """A clock that is set back."""
    from reidkit.video.frames import Frame

    for number, time in enumerate((1.0, 0.5, 2.0)):
        yield Frame(number, time, lambda: np.zeros((30, 40, 3), np.uint8))


def test_the_command_ends_with_1_where_there_are_errors(video: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("frame,l,y,w,h\n0,1,1,5,5\n99,1,1,5,5\n")
    words = ["check", "video", str(video), "--boxes", str(tmp_path / "boxes.csv"), "column.x=l"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1
    assert "beyond the end" in result.output
    assert "frames counted from 0" in result.output
    (tmp_path / "boxes.txt").write_text(GOOD)
    result = CliRunner().invoke(
        cli, ["check", "video", str(video), "--boxes", str(tmp_path / "boxes.txt"), "--json"]
    )
    assert result.exit_code == 0
    assert '"num_boxes": 10' in result.output
