"""Detectors of other people's making: each output gives the same boxes, and nothing is looked at twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from reidkit.cli import cli
from reidkit.errors import CheckpointError, ConfigError, DataError
from reidkit.video.boxes import load_boxes
from reidkit.video.detecting import detect_people
from reidkit.video.detector import OUTPUTS, Description, Detector
from reidkit.video.frames import open_video
from tests.detectors import NUM, SIDE, constant, detector_file, picture
from tests.videos import write_video

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.mark.parametrize("output", list(OUTPUTS))
def test_every_kind_of_output_gives_the_boxes(output: str, tmp_path: Path) -> None:
    detector = Detector(detector_file(tmp_path / "d.onnx", output), description=Description(output))
    found = detector.find(picture((1, 0), (2, 3)), confidence=0.5)
    assert sorted(map(tuple, found.corners.tolist())) == [(16, 0, 32, 16), (32, 48, 48, 64)]
    np.testing.assert_allclose(found.confidences, 1, atol=1e-5)
    assert len(detector.find(picture(), confidence=0.5).corners) == 0


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_boxes_are_in_the_pixels_of_the_picture(resize: str, tmp_path: Path) -> None:
    """A wide picture is made smaller; filled with grey above and below, or squeezed."""
    detector = Detector(
        detector_file(tmp_path / "d.onnx", "yolo"), description=Description("yolo", resize=resize)
    )
    # Filled, the 128 x 64 picture lies in the rows 16 to 48 of the input.
    image = picture((1, 0), width=128) if resize == "stretch" else picture((1, 0), (1, 1), width=128)
    [corners] = detector.find(image, confidence=0.9).corners.tolist()
    assert corners == ([32, 0, 64, 16] if resize == "stretch" else [32, 0, 64, 32])


def test_colours_and_values_are_as_described(tmp_path: Path) -> None:
    file = detector_file(tmp_path / "d.onnx", "yolo")
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 255
    for colors, mean, expected in (
        ("rgb", (1.0, 0.0, 0.0), 0.0),
        ("bgr", (1.0, 0.0, 0.0), 0.0),
        ("rgb", (0, 0, 0), 1 / 3),
    ):
        description = Description("yolo", colors=colors, mean=mean)  # type: ignore[arg-type]
        found = Detector(file, description=description).find(red, confidence=-1)
        np.testing.assert_allclose(found.confidences, expected, atol=1e-6)
    halved = Description("yolo", scale=510.0)
    np.testing.assert_allclose(Detector(file, description=halved).find(red).confidences, 1 / 6, atol=1e-6)
    tinted = Description("yolo", mean=(0.5, 0.0, 0.0), std=(0.5, 1.0, 1.0), colors="bgr")
    blue = red[..., ::-1].copy()
    np.testing.assert_allclose(Detector(file, description=tinted).find(blue).confidences, 1 / 3, atol=1e-6)


def test_of_boxes_over_each_other_the_surer_is_kept(tmp_path: Path) -> None:
    path = detector_file(tmp_path / "d.onnx", "end-to-end")
    model = onnx.load(path)
    boxes = next(tensor for tensor in model.graph.initializer if tensor.name == "boxes")
    boxes.CopyFrom(constant("boxes", np.tile([0, 0, 20, 40], (1, NUM, 1))))
    onnx.save(model, path)
    bright, dim = picture((0, 0)), picture((1, 1))
    image = np.maximum(bright, dim // 2)
    found = Detector(path, description=Description("end-to-end")).find(image, confidence=0.2)
    assert found.corners.tolist() == [[0, 0, 20, 40]]
    assert found.confidences == pytest.approx(1)


def test_the_description_lies_beside_the_file_or_in_it(tmp_path: Path) -> None:
    path = detector_file(tmp_path / "d.onnx", "yolo", size="side")
    with pytest.raises(ConfigError, match=r"nothing tells how .*d.onnx is used; write d.toml beside it"):
        Detector(path)
    (tmp_path / "d.toml").write_text('output = "yolo"\nsize = [64, 64]\nresize = "stretch"\n')
    assert Detector(path).description == Description("yolo", size=(64, 64), resize="stretch")
    (tmp_path / "d.toml").write_text('output = "yolo"\n')
    with pytest.raises(ConfigError, match="takes pictures of any size; say which"):
        Detector(path)
    for text, message in (
        ('output = "yolo9"', "expected one of yolo, yolov5"),
        ('output = "yolo"\nresise = "stretch"', "did you mean"),
        ('output = "yolo"\nsize = [64]', "expected a list of 2"),
        ('output = "yolo"\nperson = "man"', "person"),
        ('output = "yolo"\nstd = [0, 0, 0]', "must be positive"),
        ("output = ", "not valid TOML"),
    ):
        (tmp_path / "d.toml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            Detector(path)
    exported = {"names": "{0: 'dog', 1: 'person'}", "stride": "32", "imgsz": "[64, 64]", "task": "detect"}
    own = detector_file(tmp_path / "exported.onnx", "yolo", size="side", metadata=exported)
    assert Detector(own).description == Description("yolo", person=1, size=(64, 64))
    for key, value in (("names", "{0: 'dog'}"), ("names", "__import__('os').abort()"), ("task", "classify")):
        with pytest.raises(ConfigError):
            Detector(detector_file(tmp_path / "e.onnx", "yolo", metadata={**exported, key: value}))


def test_another_output_than_described_is_one_line(tmp_path: Path) -> None:
    path = detector_file(tmp_path / "d.onnx", "torchvision")
    with pytest.raises(CheckpointError, match=r"returns found \(16, 4\).*which is not output = 'yolo'"):
        Detector(path, description=Description("yolo")).find(picture())
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(CheckpointError, match="damaged or no ONNX file"):
        Detector(tmp_path / "text.onnx", description=Description("yolo"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A bright cell that moves down: in the first column in even frames, in the last one in odd frames."""
    pictures = [picture((0 if n % 2 == 0 else 3, n * 4 // 60)) for n in range(60)]
    return write_video(tmp_path / "v.mp4", pictures)


def test_boxes_are_kept_and_gone_on_with(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(detector_file(tmp_path / "d.onnx", "yolo"), description=Description("yolo"))
    opened = open_video(video)
    whole = detect_people(opened, detector, tmp_path / "whole.txt", confidence=0.5)
    boxes = load_boxes(whole, opened)
    assert boxes.frames.tolist() == list(range(60))
    np.testing.assert_allclose(boxes.corners[:, 0], [0 if n % 2 == 0 else 48 for n in range(60)], atol=0.1)

    looked: list[int] = []
    find = Detector.find

    def stopped(self: Detector, image: Any, **options: Any) -> Any:
        if len(looked) == 40:
            raise KeyboardInterrupt
        looked.append(1)
        return find(self, image, **options)

    monkeypatch.setattr(Detector, "find", stopped)
    with pytest.raises(KeyboardInterrupt):
        detect_people(opened, detector, tmp_path / "again.txt", confidence=0.5)
    part = tmp_path / "again.txt.unfinished"
    assert not (tmp_path / "again.txt").exists()
    with part.open("a") as file:  # a line that was cut
        file.write('[25, ["26,-1,0.0')
    looked[:] = [1] * (40 - 35)  # 25 frames were kept: 35 are left
    again = detect_people(opened, detector, tmp_path / "again.txt", confidence=0.5)
    assert again.read_text() == whole.read_text()
    assert not part.exists()
    detect_people(opened, detector, again)  # there already: not looked at

    for held in ("", "no JSON\n", json.dumps(["another", 1]) + "\n", part.name):
        part.write_text(held)
        (tmp_path / "again.txt").unlink()
        looked.clear()
        monkeypatch.setattr(Detector, "find", find)
        detect_people(opened, detector, again, confidence=0.5)
        assert again.read_text() == whole.read_text()


def test_what_cannot_be_written_is_refused(video: Path, tmp_path: Path) -> None:
    detector = Detector(detector_file(tmp_path / "d.onnx", "yolo"), description=Description("yolo"))
    with pytest.raises(DataError, match=r"a name that ends in .txt"):
        detect_people(open_video(video), detector, tmp_path / "boxes.csv")


def test_the_command_detects_and_tracks(video: Path, tmp_path: Path) -> None:
    detector_file(tmp_path / "d.onnx", "yolo")
    (tmp_path / "d.toml").write_text('output = "yolo"\n')
    pytest.importorskip("trackers", reason="trackers is not installed")
    arguments = [str(video), "--detector", str(tmp_path / "d.onnx"), "--boxes", str(tmp_path / "b.txt")]
    result = CliRunner().invoke(cli, ["track", *arguments, "--out", str(tmp_path / "t.csv")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "b.txt").read_text().count("\n") == 60
    assert (tmp_path / "t.csv").exists()
    result = CliRunner().invoke(
        cli, ["track", *arguments, "--boxes", "c.txt", "--out", str(tmp_path / "t.csv")]
    )
    assert "1 videos, but 2 files of boxes" in str(result.exception)
