"""Boxes of a detector of one's own, kept as MOT's text: found once, and gone on with where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from reidkit.errors import ConfigError, DataError
from reidkit.files import WriteError, append, exclusive, write_atomically
from reidkit.logs import get_logger
from reidkit.video.detector import Detector, Found
from reidkit.video.frames import Video, open_video

_logger = get_logger(__name__)
_UNFINISHED = ".unfinished"
_AT_A_TIME = 25  # frames whose boxes are written together


def detect_in_videos(
    videos: Sequence[str | Path],
    outs: Sequence[str | Path],
    detector: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """:func:`detect_people` in one video after the other; ``outs`` are their files of boxes.

    Raises :class:`ConfigError` besides, where there is not one file for each video.
    """
    if len(videos) != len(outs):
        raise ConfigError(
            f"{len(videos)} videos, but {len(outs)} files of boxes; give one for each, in their order"
        )
    finder = Detector(detector)
    return [
        detect_people(open_video(video), finder, out, progress=progress)
        for video, out in zip(videos, outs, strict=True)
    ]


def detect_people(
    video: Video,
    detector: Detector,
    out: str | Path,
    *,
    confidence: float = 0.1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Find the people in each picture of a video, and write their boxes to ``out``.

    Frames that are done are kept beside it, so that the next call goes on with the one after them. A file
    that is there already is left as it is, and no picture is looked at.

    Args:
        video: not a stream, which has no end.
        detector: finds the people.
        out: MOT's text, ``.txt``: frame from 1, -1, left, top, width, height, confidence, -1, -1, -1.
        confidence: of a box to be kept; trackers go on with weak ones, but begin no track with them.
        progress: called with (pictures, 0) as they are looked at.

    Raises:
        DataError: a stream, or a name that does not end in ``.txt``.
        WriteError: the file cannot be written, or another process is writing it.
    """
    out = Path(out)
    if out.suffix.lower() != ".txt":
        raise DataError(f"{out}: boxes are written as MOT's text; give a name that ends in .txt")
    if out.exists():
        _logger.info("%s is there, so that nothing is detected; remove it to have it made anew", out)
        return out
    if video.is_endless:
        raise DataError(f"{video.name} is a stream, which has no end; give a file or a folder of pictures")
    part = out.with_name(out.name + _UNFINISHED)
    with exclusive(part.with_name(part.name + ".lock")) as is_ours:
        if not is_ours:
            raise WriteError(f"{out} is being written by another process; wait for it")
        lines = chain.from_iterable(_frames(video, detector, part, confidence, progress))
        write_atomically(out, "".join(lines))
        part.unlink()
    part.with_name(part.name + ".lock").unlink(missing_ok=True)
    return out


def _frames(
    video: Video,
    detector: Detector,
    part: Path,
    confidence: float,
    progress: Callable[[int, int], None] | None,
) -> Iterator[list[str]]:
    """Lines of each frame: first those of an earlier call, then new ones, which are kept as they come."""
    head = json.dumps([detector.digest, video.name, video.width, video.height, confidence])
    done = _known(part, head)
    if not done:
        write_atomically(part, head + "\n")
    yield from done.values()
    new: list[str] = []
    for frame in video.frames(max(done, default=-1) + 1):
        lines = list(_lines(frame.number, detector.find(frame.image, confidence=confidence)))
        new.append(json.dumps([frame.number, lines]) + "\n")
        if len(new) == _AT_A_TIME:
            append(part, "".join(new))
            new.clear()
        if progress is not None:
            progress(frame.number + 1, 0)
        yield lines
    if new:
        append(part, "".join(new))


def _lines(number: int, found: Found) -> Iterable[str]:
    for (left, top, right, bottom), score in zip(found.corners, found.confidences, strict=True):
        numbers = ",".join(f"{value:.2f}" for value in (left, top, right - left, bottom - top))
        yield f"{number + 1},-1,{numbers},{score:.4f},-1,-1,-1\n"


def _known(part: Path, head: str) -> dict[int, list[str]]:
    """What an earlier call found with the same detector; its last line may be cut."""
    if not part.is_file():
        return {}
    lines = part.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if not lines or lines[0].rstrip("\n") != head:
        _logger.info("%s is of another detector or other options; it is made anew", part)
        return {}
    whole = [line for line in lines[1:] if line.endswith("\n")]
    if len(whole) < len(lines) - 1:
        write_atomically(part, "".join([lines[0], *whole]))
    try:
        known = {int(number): [str(line) for line in of_frame] for number, of_frame in map(json.loads, whole)}
    except ValueError:
        _logger.warning("%s is damaged; it is made anew", part)
        return {}
    if known:
        _logger.info("%d frames were looked at before; it goes on after them", len(known))
    return known
