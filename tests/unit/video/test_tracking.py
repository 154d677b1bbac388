"""From videos and boxes to a gallery: every track once, with its best pictures, however often it is begun."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

import reidkit as rk
from reidkit.cli import cli
from reidkit.encoders.encoder import Encoder
from reidkit.errors import ConfigError, DataError
from reidkit.galleries import open_gallery
from reidkit.reports.item_pictures import item_cells
from reidkit.video import TrackOptions, track
from reidkit.video.frames import open_video
from reidkit.video.item_pictures import is_from_video, picture_of
from reidkit.video.outputs import write_outputs
from tests.videos import write_video

WIDTH, HEIGHT, NUM_FRAMES = 160, 120, 40
COLOURS = [(220, 30, 30), (30, 200, 40), (40, 60, 220)]


def walk(number: int, frame: int) -> tuple[int, int, int, int]:
    """Left, top, width, height: the people walk beside each other, to the right."""
    return 5 + 3 * frame, 5 + 38 * number, 16, 32


def pictures() -> list[NDArray[np.uint8]]:
    """Three people, each in a colour of their own, on grey noise, with a white mark."""
    rng = np.random.default_rng(0)
    frames = []
    for frame in range(NUM_FRAMES):
        image = rng.integers(90, 110, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        for number, colour in enumerate(COLOURS):
            left, top, width, height = walk(number, frame)
            image[top : top + height, left : left + width] = colour
            image[top + 10 : top + 14, left + frame % 8 : left + 8 + frame % 8] = 255
        frames.append(image)
    return frames


def mot(*, tracks: bool = True, people: int = 3, frames: int = NUM_FRAMES) -> str:
    return "".join(
        f"{frame + 1},{number + 1 if tracks else -1},{','.join(map(str, walk(number, frame)))},0.9\n"
        for frame in range(frames)
        for number in range(people)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, its boxes with and without tracks, and an encoder of small pictures."""
    folder = tmp_path_factory.mktemp("video")
    write_video(folder / "door.mp4", pictures())
    (folder / "gt.txt").write_text(mot())
    (folder / "det.txt").write_text(mot(tracks=False))
    Encoder(rk.build_model("timm:test_resnet"), height=48, width=24).save(folder / "net.safetensors")
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return rk.load_encoder(folder / "net.safetensors")


def run(folder: Path, place: Path | None, encoder: Encoder, boxes: str = "gt.txt", **more):  # type: ignore[no-untyped-def]
    options = {"cameras": [3], "starts": ["2026-11-01T08:00:00"], **more}
    return track([folder / "door.mp4"], [folder / boxes], encoder=encoder, gallery=place, **options)


def test_each_track_has_its_pictures_and_a_mean(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    result = run(folder, tmp_path / "g", encoder)
    with open_gallery(tmp_path / "g") as gallery:
        items, embeddings = gallery.items(), gallery.embeddings()
    crops = [item for item in items if item.labels["kind"] == "crop"]
    means = [item for item in items if item.labels["kind"] == "track"]
    assert len(means) == 3
    assert 3 <= len(crops) <= 15
    assert {item.camera for item in items} == {3}
    assert len({item.tracklet for item in items}) == 3
    start = 1793520000  # 2026-11-01 08:00 UTC
    for crop in crops:
        frame = crop.frame
        assert frame is not None
        assert crop.time == pytest.approx(start + frame / 10, abs=1e-3)
        left, top, width, height = walk(crop.labels["track"] - 1, frame)  # type: ignore[operator]
        corners = (left, top, left + width, top + height)
        assert crop.box == tuple(round(corner, 1) for corner in corners)
    for mean in means:
        own = [place for place, item in enumerate(items) if item in crops and item.tracklet == mean.tracklet]
        quality = np.array([items[place].labels["quality"] for place in own])
        expected = (quality[:, None] * embeddings[own]).sum(axis=0)
        found = embeddings[items.index(mean)]
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-3)
    [counts] = result.counts
    assert (counts.tracks, counts.tracklets, counts.known, counts.frames) == (3, 3, 0, NUM_FRAMES)


def test_what_is_there_is_not_done_again(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    first = run(folder, tmp_path / "g", encoder)
    with open_gallery(tmp_path / "g") as gallery:
        before = gallery.items()
        gallery.remove(where={"track": 2})
    again = run(folder, tmp_path / "g", encoder)
    assert again.names == first.names
    assert (again.counts[0].known, again.counts[0].frames) == (2, NUM_FRAMES)
    with open_gallery(tmp_path / "g") as gallery:
        assert {item.source for item in gallery.items()} == {item.source for item in before}
        assert len(gallery) == len(before)
    assert run(folder, tmp_path / "g", encoder).counts[0].frames == 0
    with pytest.raises(DataError, match="taken by other boxes, options, camera or start"):
        run(folder, tmp_path / "g", encoder, options=TrackOptions(best=2))


def test_tracks_are_found_where_there_are_none(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    pytest.importorskip("trackers", reason="trackers is not installed")
    given, found = run(folder, None, encoder), run(folder, None, encoder, "det.txt")
    assert len(found.views[0].tracks) == 3
    rows = {tuple(t.rows.tolist()[1:]) for t in given.views[0].tracks}
    assert {tuple(t.rows.tolist()) for t in found.views[0].tracks} <= rows | {
        tuple(t.rows.tolist()) for t in given.views[0].tracks
    }


def test_people_who_were_hidden_keep_the_tracklet(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    lines = mot().splitlines(keepends=True)
    hidden = [line.replace(",2,", ",9,", 1) if int(line.split(",")[0]) > 25 else line for line in lines]
    kept = [line for line in hidden if not (line.split(",")[1] == "2" and int(line.split(",")[0]) > 15)]
    (tmp_path / "gt.txt").write_text("".join(kept))
    result = run(
        folder, tmp_path / "g", encoder, boxes=str(tmp_path / "gt.txt"), options=TrackOptions(join_score=0.9)
    )
    names = result.names[0]
    assert names[9] == names[2]
    assert len(set(names.values())) == 3
    apart = run(folder, None, encoder, boxes=str(tmp_path / "gt.txt"))
    assert len(set(apart.names[0].values())) == 4
    again = run(
        folder, tmp_path / "g", encoder, boxes=str(tmp_path / "gt.txt"), options=TrackOptions(join_score=0.9)
    )
    assert again.names == result.names


def test_cameras_are_followed_at_once(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    shutil.copy(folder / "door.mp4", tmp_path / "yard.mp4")
    videos, boxes = [folder / "door.mp4", tmp_path / "yard.mp4"], [folder / "gt.txt", folder / "det.txt"]
    result = track(videos, boxes, cameras=["door", "yard"], encoder=encoder)
    assert [len(view.tracks) for view in result.views] == [3, 3]
    with pytest.raises(ConfigError, match="camera 1 is given for 2 videos"):
        track(videos, boxes, cameras=[1, 1], encoder=encoder)
    with pytest.raises(ConfigError, match="which are of the same time"):
        track(videos, boxes, cameras=[1, 1], starts=[100, 102], encoder=encoder)
    track(videos, boxes, cameras=[1, 1], starts=[100, 105])
    with pytest.raises(ConfigError, match=r"door\.mp4 is given twice"):
        track(videos[:1] * 2, boxes)
    with pytest.raises(ConfigError, match="2 videos, but 1 files of boxes"):
        track(videos, boxes[:1])


@pytest.mark.parametrize("start", ["yesterday", "2026-13-01", float("nan")])
def test_a_start_that_is_no_time_is_refused(start: object, folder: Path) -> None:
    with pytest.raises(ConfigError, match="is no time, such as 2026-11-01T08:00:00"):
        track([folder / "door.mp4"], [folder / "gt.txt"], starts=[start])  # type: ignore[list-item]


def test_bad_boxes_are_left_out_and_told(folder: Path, tmp_path: Path, told: list[str]) -> None:
    more = "3,-1,nan,0,5,5,1\n4,-1,5,5,-5,5,1\n5,-1,500,5,5,5,1\n"
    (tmp_path / "b.txt").write_text(mot(tracks=False) + more)
    result = track([folder / "door.mp4"], [tmp_path / "b.txt"])
    assert result.counts[0].left_out == 3
    assert any("1 not a number, 1 no width or height, 1 outside the picture" in text for text in told)
    (tmp_path / "many.txt").write_text("".join(f"1,-1,{5 + n / 1000},5,10,20,1\n" for n in range(10_000)))
    with pytest.raises(DataError, match="frame 0 has 10,000 boxes; at most 1,000"):
        track([folder / "door.mp4"], [tmp_path / "many.txt"])
    (tmp_path / "twice.txt").write_text(mot() + "3,1,50,50,5,5,1\n")
    with pytest.raises(DataError, match="track 1 has two boxes in frame 2"):
        track([folder / "door.mp4"], [tmp_path / "twice.txt"])
    (tmp_path / "twice.txt").write_text(mot(tracks=False) * 2)
    assert len(track([folder / "door.mp4"], [tmp_path / "twice.txt"]).views[0].tracks) == 3
    assert any("boxes left out that are there twice" in text for text in told)
    (tmp_path / "weak.txt").write_text(mot(tracks=False).replace("0.9", "0.3"))
    track([folder / "door.mp4"], [tmp_path / "weak.txt"])
    assert "no track: a track has 3 boxes or more, and begins with" in told[-1]
    (tmp_path / "percent.txt").write_text(mot(tracks=False).replace("0.9", "87"))
    track([folder / "door.mp4"], [tmp_path / "percent.txt"])
    assert "confidences go up to 87" in told[-1]
    (tmp_path / "none.txt").write_text("")
    assert track([folder / "door.mp4"], [tmp_path / "none.txt"]).counts[0].tracks == 0


def test_people_who_are_always_covered_have_embeddings_too(
    folder: Path, encoder: Encoder, tmp_path: Path
) -> None:
    same = "".join(f"{n},{who},5,5,16,32,1\n" for n in range(1, 9) for who in (1, 2))
    (tmp_path / "b.txt").write_text(same)
    run(folder, tmp_path / "g", encoder, boxes=str(tmp_path / "b.txt"))
    with open_gallery(tmp_path / "g") as gallery:
        assert {item.labels["quality"] for item in gallery.items()} == {0}
        assert len(gallery.items(where={"kind": "track"})) == 2


def test_a_damaged_picture_of_a_folder_is_left_out(
    folder: Path, encoder: Encoder, tmp_path: Path, told: list[str]
) -> None:
    shots = tmp_path / "door"
    shots.mkdir()
    for number, pixels in enumerate(pictures(), start=1):
        Image.fromarray(pixels).save(shots / f"{number:03}.png")
    for number in range(2, NUM_FRAMES + 1, 2):
        (shots / f"{number:03}.png").write_bytes(b"no picture")
    result = track([shots], [folder / "gt.txt"], encoder=encoder)
    assert result.counts[0].unseen == 0
    assert any("gives no picture: " in text for text in told)
    [file] = write_outputs(result, tmp_path / "a.mp4")
    assert len(list(open_video(file).frames())) == NUM_FRAMES // 2


def test_frames_beyond_the_end_have_no_pictures(
    folder: Path, encoder: Encoder, tmp_path: Path, told: list[str]
) -> None:
    (tmp_path / "b.txt").write_text(mot() + "".join(f"{100 + n},9,5,5,16,32,1\n" for n in range(5)))
    result = run(folder, tmp_path / "g", encoder, boxes=str(tmp_path / "b.txt"))
    assert (result.counts[0].tracks, result.counts[0].unseen) == (4, 1)
    assert any("5 boxes are of frames beyond the end of door, which has 40" in text for text in told)


def test_outputs(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    result = run(folder, None, encoder)
    [table] = write_outputs(result, tmp_path / "t.csv")
    header, first, *rows = table.read_text().splitlines()
    assert header.startswith("camera,video,frame,time,left")
    assert first.split(",")[2:6] == ["0", "1793520000.000", "5.00", "5.00"]
    assert len(rows) == 3 * NUM_FRAMES - 1
    [text] = write_outputs(result, tmp_path / "t.txt")
    again = track([folder / "door.mp4"], [text])
    assert [view.rows.tolist() for view in again.views[0].tracks] == [
        view.rows.tolist() for view in result.views[0].tracks
    ]
    with pytest.raises(ConfigError, match=r"give a file that ends in \.csv"):
        write_outputs(result, tmp_path / "t.xyz")


def test_the_annotated_video_shows_the_boxes(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    [file] = write_outputs(run(folder, None, encoder), tmp_path / "out.mp4")
    frames = list(open_video(file).frames())
    assert len(frames) == NUM_FRAMES
    before = list(open_video(folder / "door.mp4").frames())
    np.testing.assert_allclose([f.time for f in frames], [f.time for f in before], atol=2e-3)
    changed = np.abs(frames[10].image.astype(int) - before[10].image).max(axis=2) > 60
    left, top, _, height = walk(0, 10)
    assert changed[top + 8 : top + height - 2, left - 1 : left + 2].any(axis=1).mean() > 0.8
    assert not list(tmp_path.glob(".*"))


KILLED = """
import sys
import reidkit as rk
from reidkit.video import tracking, track
folder, place = sys.argv[1:]
tracking._AT_A_TIME = 1
add = tracking.add_tracks
def slow(gallery, tracks):
    add(gallery, tracks)
    print("stored", flush=True)
    sys.stdin.readline()
tracking.add_tracks = slow
track([f"{folder}/door.mp4"], [f"{folder}/gt.txt"], cameras=[3], starts=["2026-11-01T08:00:00"],
      encoder=f"{folder}/net.safetensors", gallery=place)
"""


def test_the_picture_of_an_item_is_cut_out_again(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    run(folder, tmp_path / "g", encoder)
    with open_gallery(tmp_path / "g") as gallery:
        item = gallery.items(where={"kind": "crop"})[-1]
        embedding = gallery.embeddings(ids=[item.id])
    assert is_from_video(item)
    picture = picture_of(item)
    assert picture.size == (16, 32)
    np.testing.assert_allclose(encoder.encode(picture), embedding, atol=1e-5)
    with pytest.raises(DataError, match="has no such place as frame 900"):
        picture_of(replace(item, frame=900))
    with pytest.raises(DataError, match="does not say where in its video it is"):
        picture_of(replace(item, box=None))
    with pytest.raises(DataError, match="missing"):
        picture_of(replace(item, labels={**item.labels, "video": str(tmp_path / "gone.mp4")}))


def test_a_track_is_shown_when_its_video_is_gone(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    run(folder, tmp_path / "g", encoder)
    with open_gallery(tmp_path / "g") as gallery:
        items = gallery.items()
        shown = item_cells(items, gallery)
        gone = [replace(item, labels={**item.labels, "video": str(tmp_path / "gone.mp4")}) for item in items]
        assert gallery.thumbnails(ids=[item.id for item in items]).keys() == {item.id for item in items}
        assert all(cell.data_uri and not cell.problem for cell in (*shown, *item_cells(gone, gallery)))
        assert all(cell.problem for cell in item_cells(gone))


@pytest.mark.slow
def test_killed_it_goes_on_and_has_every_track_once(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "g")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"stored\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.01)
    result = run(folder, tmp_path / "g", encoder)
    assert result.counts[0].known == 1
    whole = run(folder, tmp_path / "whole", encoder)
    with open_gallery(tmp_path / "g") as gallery, open_gallery(tmp_path / "whole") as other:
        assert sorted(i.source for i in gallery.items()) == sorted(i.source for i in other.items())
    assert result.names == whole.names


def test_the_command(folder: Path, tmp_path: Path) -> None:
    words = ["track", str(folder / "door.mp4"), "--boxes", str(folder / "gt.txt"), "--camera", "3"]
    words += ["--start", "2026-11-01T08:00:00"]
    done = CliRunner().invoke(
        cli,
        [*words, "--encoder", str(folder / "net.safetensors"), "--gallery", str(tmp_path / "g"), "--json"],
    )
    assert done.exit_code == 0, done.output
    assert '"tracks": 3' in done.output
    done = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "a.csv")])
    assert done.exit_code == 0, done.output
    assert "times real time" in done.output
    assert (tmp_path / "a.csv").is_file()
    for wrong, message in (([], "nothing would be kept"), (["--gallery", str(tmp_path / "h")], "an encoder")):
        done = CliRunner().invoke(cli, [*words, *wrong])
        assert isinstance(done.exception, ConfigError)
        assert message in str(done.exception)
