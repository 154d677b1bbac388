"""``reid track``: people in videos, into a gallery."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit.cli import completion
from reidkit.cli.options import EncoderPath, column_option, given, named_columns, refuse
from reidkit.cli.output import json_option, print_json, print_table, say
from reidkit.errors import ConfigError
from reidkit.texts.addresses import is_address

if TYPE_CHECKING:
    from reidkit.video import Tracked


@click.command("track")
@click.argument("videos", nargs=-1, required=True)
@click.option(
    "--boxes", multiple=True, type=click.Path(path_type=Path), help="One for each video; none for streams."
)
@click.option(
    "--detector",
    type=click.Path(path_type=Path),
    help="ONNX file that finds people; --boxes keeps what it finds in a video.",
)
@click.option("--camera", "cameras", multiple=True, help="Of each video: a number or a name; else 1, 2, ...")
@click.option(
    "--start", "starts", multiple=True, help="When it begins: 2026-11-01T08:00:00; once for all, or each."
)
@click.option("--encoder", type=EncoderPath(), help="Run or file that embeds people.")
@click.option(
    "--gallery",
    "location",
    shell_complete=completion.galleries,
    help="Gallery to fill; made if it is not there.",
)
@click.option("--out", "outs", multiple=True, help="Write .csv, .txt (MOT), or .mp4 with boxes and names.")
@click.option("--for", "duration", metavar="TIME", help="Stop after it, such as 10m; only for streams.")
@click.option("--best", type=int, help="Pictures of a track that are embedded (5).")
@click.option("--context", type=float, help="Added around a box, as a share of it (0).")
@click.option("--confidence", type=float, help="Of boxes with which a track begins (0.5).")
@click.option("--join-score", type=float, help="From which on a lost track goes on as another one.")
@click.option("--first-frame", type=int, help="Number of the first frame in the boxes: 0 or 1.")
@click.option(
    "--class", "classes", multiple=True, type=int, help="Only boxes of this class; may be repeated."
)
@column_option
@json_option
def track_command(
    videos: tuple[str, ...],
    boxes: tuple[Path, ...],
    detector: Path | None,
    cameras: tuple[str, ...],
    starts: tuple[str, ...],
    encoder: Path | None,
    location: str | None,
    outs: tuple[str, ...],
    duration: str | None,
    as_json: bool,
    columns: tuple[str, ...],
    first_frame: int | None,
    classes: tuple[int, ...],
    **options: Any,
) -> None:
    """Follow people through VIDEOS by the boxes of a detector, and put them into a gallery.

    Boxes are MOT's text, COCO's JSON, supervision's CSV or JSON, a folder of Ultralytics' text, or a table
    (--column says what its columns are called). Where they have no tracks, ByteTrack makes them. Of each
    track the best pictures are embedded. Run again, it goes on where it was stopped. Where there are no
    boxes yet, --detector finds them.

    A VIDEO may be a camera's stream, rtsp://...; it is followed until ctrl-C, or --for some time.

    \b
    reid track door.mp4 --boxes door.txt --camera 3 --start 2026-11-01T08:00:00 \\
      --encoder runs/demo --gallery people.gallery --out door-people.mp4
    reid track rtsp://10.0.0.7/live --detector people.onnx --camera 3 \\
      --encoder runs/demo --gallery people.gallery
    """
    from reidkit.video import TrackOptions, track
    from reidkit.video.boxes import BoxesOptions
    from reidkit.video.outputs import check_outputs

    if any(map(is_address, videos)):
        refuse(
            {"--boxes": boxes, "--start": starts, "--out": outs, "--first-frame": first_frame}
            | {"--class": classes, "--column": columns},
            "is for files; a stream is looked at by --detector, as it comes, and kept by --gallery",
        )
        follow_streams(videos, detector, cameras, encoder, location, duration, as_json, given(**options))
        return
    refuse({"--for": duration}, "a file is read to its end; it is for streams")
    if not boxes:
        raise ConfigError(
            "--boxes is missing: give a file of boxes for each video; with --detector, the .txt that keeps "
            "what it finds"
        )
    if location is None and not outs:
        raise ConfigError("nothing would be kept: give --gallery G, --out FILE, or both")
    check_outputs(outs)
    if detector is not None:
        detect(videos, boxes, detector)
    tracked = track(
        videos,
        boxes,
        cameras=cameras or None,
        starts=starts or None,
        encoder=encoder,
        gallery=location,
        options=TrackOptions(**given(**options)),
        boxes_options=BoxesOptions(first_frame, named_columns(columns), classes),
    )
    if as_json:
        print_json(tracked.as_dict())
    else:
        print_tracked(tracked)
    print_outputs(tracked, outs, location)


def follow_streams(
    addresses: tuple[str, ...],
    detector: Path | None,
    cameras: tuple[str, ...],
    encoder: Path | None,
    location: str | None,
    duration: str | None,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    """Follow people until told to stop, and print what became of it."""
    from reidkit.video import TrackOptions, follow
    from reidkit.video.following import COLUMNS

    if detector is None or encoder is None or location is None:
        raise ConfigError(
            "a stream needs --detector, which finds the people, --encoder, and --gallery to keep them in"
        )
    followed = follow(
        addresses,
        detector,
        encoder=encoder,
        gallery=location,
        cameras=cameras or None,
        options=TrackOptions(**options),
        duration=duration,
    )
    if as_json:
        print_json(followed.as_dict())
    else:
        print_table(COLUMNS, followed.rows(), right=COLUMNS[3:])
    say(f"in {location}")


def detect(videos: tuple[str, ...], boxes: tuple[Path, ...], detector: Path) -> None:
    """Find people, into files of boxes."""
    from reidkit.progress import progress
    from reidkit.video.detecting import detect_in_videos

    with progress("frames looked at") as looked:
        detect_in_videos(videos, boxes, detector, progress=looked)


def print_tracked(tracked: Tracked) -> None:
    """A row for each video, and how fast it went."""
    from reidkit.video.tracking import COLUMNS

    print_table(COLUMNS, tracked.rows(), right=COLUMNS[2:])
    say(tracked.pace)


def print_outputs(tracked: Tracked, outs: tuple[str, ...], location: str | None) -> None:
    """Write the files, and say where all of it is."""
    from reidkit.video.outputs import write_outputs

    if location is not None:
        say(f"in {location}")
    for out in outs:
        for path in write_outputs(tracked, out):
            say(f"written to {path}")
