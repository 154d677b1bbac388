"""Drawn people walk through four cameras: from videos and noisy boxes to identities, how right and how fast.

    python benchmarks/video.py --encoder runs/demo --real one-by-one --real-encoder retail-0288.xml --write

The videos are drawn once, into --folder. --only measures some parts, and --write leaves the others' tables.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

import reidkit as rk
from reidkit.clustering.cluster import ClusterOptions
from reidkit.clustering.proposals import Proposals, propose
from reidkit.datasets.synthetic.dataset import World, make_synthetic
from reidkit.datasets.synthetic.walks import Seen, WalksWorld, detections, pictures, plan_walks
from reidkit.encoders.encoder import Encoder
from reidkit.galleries import Gallery, accept, merge, proposals, reject
from reidkit.video import Tracked, TrackOptions, track
from reidkit.video.boxes import NO_TRACK, Boxes, load_boxes
from reidkit.video.frames import open_video
from reidkit.video.live import LiveIndex
from reidkit.video.measures import TrackScores, track_scores
from results import write_section

WORLD = WalksWorld(num_people=100, num_cameras=4, seconds=300, seed=77)
BUSY = WalksWorld(num_people=85, num_cameras=4, seconds=60, seed=78, width=1280, height=720)
START = 1_793_520_000  # 2026-11-01 08:00:00 UTC
CLOCKS = (0, 7, 13, 29)  # seconds after which each camera begins
LOOPS = 12
ROUNDS = 3
PARTS = ("scores", "speed", "memory", "real")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", required=True, help="trained on drawn people, and calibrated: reid demo")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--folder", type=Path, default=Path("runs/video-benchmark"), help="for videos")
    parser.add_argument("--real", type=Path, help="folder one-by-one: a real video with gt.txt and det.txt")
    parser.add_argument("--real-encoder", type=Path, help="of real people, for it")
    parser.add_argument("--loops", type=int, default=LOOPS, help="of five minutes, for memory")
    parser.add_argument("--write", action="store_true", help="into docs/results.md")
    given = parser.parse_args()
    if "real" in given.only and not (given.real and given.real_encoder):
        parser.error("the part real needs --real and --real-encoder; --only names the other parts")
    encoder = rk.load_encoder(given.encoder)
    for part in given.only:
        began = time.monotonic()
        text = "\n".join(measured(part, given, encoder))
        print(f"{text}\n\n({part}: {time.monotonic() - began:.0f} s)\n", flush=True)
        if given.write:
            write_section(f"video-{part}", text, script="video")


def measured(part: str, given: argparse.Namespace, encoder: Encoder) -> list[str]:
    """The table or sentence of one of the parts."""
    if part == "real":
        return [real_line(given.real, rk.load_encoder(given.real_encoder))]
    if part == "speed":
        make_videos(given.folder / "720p", BUSY)
        return speed_table(given.folder / "720p", BUSY, int8(encoder, given.folder))
    make_videos(given.folder, WORLD)
    if part == "memory":  # in a process of its own, whose peak is not that of other parts
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return [pool.submit(memory_line, given.folder, given.encoder, given.loops).result()]
    return scores_table(given.folder, WORLD, encoder)


def make_videos(folder: Path, world: WalksWorld) -> None:
    """A video, its true boxes and those of a detector for each camera; kept where they are there already."""
    mark = folder / "world.json"
    if mark.is_file() and json.loads(mark.read_text()) == asdict(world):
        return
    folder.mkdir(parents=True, exist_ok=True)
    visits = plan_walks(world)
    for camera in range(world.num_cameras):
        truth: list[list[Seen]] = []
        with av.open(str(folder / f"{camera}.mp4"), "w") as container:
            stream = container.add_stream(
                "libx264", rate=world.rate, options={"preset": "veryfast", "crf": "23"}
            )
            stream.width, stream.height, stream.pix_fmt = world.width, world.height, "yuv420p"
            for picture, seen in pictures(world, camera, visits):
                truth.append(seen)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        true_lines = [
            _mot(frame, person + 1, corners, 1.0)
            for frame, seen in enumerate(truth)
            for person, corners, _ in seen
        ]
        found_lines = [
            _mot(box.frame, -1, box.corners, box.confidence) for box in detections(world, camera, truth)
        ]
        (folder / f"{camera}-gt.txt").write_text("".join(true_lines))
        (folder / f"{camera}-det.txt").write_text("".join(found_lines))
    mark.write_text(json.dumps(asdict(world)))


def _mot(frame: int, track: int, corners: Sequence[float], confidence: float) -> str:
    left, top, right, bottom = corners
    box = f"{left:.2f},{top:.2f},{right - left:.2f},{bottom - top:.2f}"
    return f"{frame + 1},{track},{box},{confidence:.4f},-1,-1,-1\n"


def run(folder: Path, cameras: Sequence[int], gallery: Path, encoder: Encoder, **options: float) -> Tracked:
    return track(
        [folder / f"{camera}.mp4" for camera in cameras],
        [folder / f"{camera}-det.txt" for camera in cameras],
        cameras=[camera + 1 for camera in cameras],
        starts=[START + CLOCKS[camera] for camera in cameras],
        encoder=encoder,
        gallery=gallery,
        options=TrackOptions(**options),  # type: ignore[arg-type]
    )


def scores_table(folder: Path, world: WalksWorld, encoder: Encoder) -> list[str]:
    cameras = range(world.num_cameras)
    truth = [load_boxes(folder / f"{c}-gt.txt", open_video(folder / f"{c}.mp4")) for c in cameras]
    with tempfile.TemporaryDirectory() as place:
        gallery = Path(place) / "g"
        tracked = run(folder, cameras, gallery, encoder)
        best = true_identities(tracked, truth)
        with rk.open_gallery(gallery, create=False) as opened:
            live = nearest_identities(opened, encoder)
            options = ClusterOptions(lowest=encoder.calibration.threshold_at(1e-2))
            found = propose(opened, options)
            clustered = {item.tracklet: person.name for person in found.people for item in person.items}
            once = looked_through(opened, best)
            after_one = identities(opened)
            twice = once + looked_through(opened, best, propose(opened, options))
            after_two = identities(opened)
            merged = twice + merged_twins(opened, best)
            after_three = identities(opened)
    own = [{track.number: str(track.number) for track in view.tracks} for view in tracked.views]

    def named(names: Sequence[dict[int, str]], people: dict[str, str] | None = None) -> list[Boxes]:
        return [
            with_identities(view.boxes, view.tracks, numbers, people)
            for view, numbers in zip(tracked.views, names, strict=True)
        ]

    raw, joined = named(own), named(tracked.names)
    rows = [
        ("tracks of ByteTrack", track_scores(truth, raw, across=False), None),
        ("tracks joined by looks", track_scores(truth, joined, across=False), None),
    ]
    for title, people in (
        ("nearest identity, as it comes", live),
        ("clusters of all tracks, before review", clustered),
        (f"proposals accepted or split: {once} decisions", after_one),
        (f"clustered and looked through again: {twice} decisions", after_two),
        (f"and each person's nearest other merged if it is the same: {merged} decisions", after_three),
        ("every track given to the person it shows most", best),
    ):
        boxes = named(tracked.names, people)
        rows.append((title, *(track_scores(truth, boxes, across=across) for across in (False, True))))
    num_people = len({int(t) for boxes in truth for t in boxes.tracks})
    num_boxes = sum(len(view.boxes) for view in tracked.views)
    return [
        f"{num_people} people, {world.num_cameras} cameras, {world.seconds / 60:.0f} minutes each, "
        f"{world.width} x {world.height} at {world.rate} frames/s; {num_boxes:,} boxes with 5 % misses, "
        f"3 % jitter and false alarms; {sum(len(view.tracks) for view in tracked.views)} tracks, "
        f"{len({n for names in tracked.names for n in names.values()})} tracklets; clusters: "
        f"{len(set(clustered.values()))} people, nearest identity: {len(set(live.values()))}.",
        "",
        "| identities by | IDF1 within | HOTA within | IDF1 across | HOTA across |",
        "|---|---|---|---|---|",
        *(_row(title, within, across) for title, within, across in rows),
    ]


def _row(title: str, within: TrackScores, across: TrackScores | None) -> str:
    cells = [within.idf1, within.hota, *((across.idf1, across.hota) if across else ())]
    texts = [f"{100 * value:.1f}" for value in cells] + [""] * (4 - len(cells))
    return f"| {title} | {' | '.join(texts)} |"


def with_identities(
    boxes: Boxes, tracks: Sequence, names: dict[int, str], people: dict[str, str] | None
) -> Boxes:
    """The boxes with a number for each name; of tracklets, or of the people that these show."""
    numbers = np.full(len(boxes), NO_TRACK)
    for one in tracks:
        if one.number in names:
            name = names[one.number] if people is None else people.get(names[one.number], names[one.number])
            numbers[one.rows] = _NUMBERS.setdefault(name, len(_NUMBERS))
    return replace(boxes, tracks=numbers)


_NUMBERS: dict[str, int] = {}


def nearest_identities(gallery: Gallery, encoder: Encoder) -> dict[str, str]:
    """Each tracklet, in the order in which they came, to the nearest person so far, or a new one."""
    index = LiveIndex(encoder.calibration.threshold_at(1e-3))
    items = gallery.items(where={"kind": "track"})
    embeddings = np.asarray(gallery.embeddings(where={"kind": "track"}))
    found: dict[str, str] = {}
    for place in sorted(range(len(items)), key=lambda place: items[place].time):
        [found[items[place].tracklet]] = index.update([items[place].tracklet], embeddings[[place]])
    return found


def identities(gallery: Gallery) -> dict[str, str]:
    """Who each tracklet is, as the gallery has it."""
    return {item.tracklet: item.identity for item in gallery.items() if item.identity is not None}


def looked_through(gallery: Gallery, truth: dict[str, str], proposed: Proposals | None = None) -> int:
    """What somebody decides who knows everybody and looks at each proposal once; how many decisions.

    Of each proposal, the tracklets of the person who has most items are accepted with one decision, and the
    others are told apart from these with another.
    """
    before = len(gallery.decisions())
    rows = (
        [(person.name, person.items) for person in proposed.people]
        if proposed is not None
        else list(proposals(gallery).items())
    )
    for name, items in rows:
        undecided = [item for item in items if item.identity is None]
        known = next((truth.get(item.tracklet) for item in items if item.identity is not None), None)
        shows = known or Counter(truth.get(item.tracklet, "nobody") for item in items).most_common(1)[0][0]
        right = [item.id for item in undecided if truth.get(item.tracklet, "nobody") == shows]
        wrong = [item.id for item in undecided if truth.get(item.tracklet, "nobody") != shows]
        if right:
            accept(gallery, right, name, who="who knows")
        if wrong:
            one = right[0] if right else next(item.id for item in items if item.identity is not None)
            reject(gallery, one, wrong, who="who knows")
    return len(gallery.decisions()) - before


def merged_twins(gallery: Gallery, truth: dict[str, str]) -> int:
    """Of each person the most alike other person is looked at, and merged where it is the same one."""
    before = len(gallery.decisions())
    names = sorted(set(identities(gallery).values()))
    for name in names:
        own = [item.id for item in gallery.items(where={"identity": name})]
        if not own:  # merged into another meanwhile
            continue
        mean = np.asarray(gallery.embeddings(ids=own)).mean(axis=0)
        others = {"identity": {"not": name}}
        found = gallery.search(mean / np.linalg.norm(mean), top=1, where=others, group="identity")[0]
        other = next((group.label for group in found if group.label is not None), None)
        shown = [
            Counter(truth.get(i.tracklet) for i in gallery.items(where={"identity": one})).most_common(1)[0][
                0
            ]
            for one in (name, other)
            if one is not None
        ]
        if len(shown) == 2 and shown[0] == shown[1]:
            merge(gallery, name, [other], who="who knows")
    return len(gallery.decisions()) - before


def true_identities(tracked: Tracked, truth: Sequence[Boxes]) -> dict[str, str]:
    """Whom each tracklet shows in most of its boxes: the best that can be done with these tracks."""
    votes: dict[str, list[int]] = {}
    for view, names, real in zip(tracked.views, tracked.names, truth, strict=True):
        by_frame = dict(real.by_frame())
        for one in view.tracks:
            for row in one.rows:
                rows = by_frame.get(int(view.boxes.frames[row]))
                if rows is not None:
                    overlaps = _overlaps(view.boxes.corners[row], real.corners[rows])
                    if overlaps.max() >= 0.5:
                        votes.setdefault(names[one.number], []).append(
                            int(real.tracks[rows[overlaps.argmax()]])
                        )
    return {name: f"person {np.bincount(found).argmax()}" for name, found in votes.items()}


def _overlaps(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    sizes = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return common / (sizes - common)


def real_line(folder: Path, encoder: Encoder) -> str:
    """One real video: tracks of its detector's boxes, and its people in two halves, found again."""
    video = next(folder.glob("*.mp4"))
    opened = open_video(video)
    truth = load_boxes(folder / "gt.txt", opened)
    tracked = track([video], [folder / "det.txt"], encoder=encoder, options=TrackOptions(confidence=0.4))
    names = {one.number: str(one.number) for one in tracked.views[0].tracks}
    scores = track_scores(
        [truth], [with_identities(tracked.views[0].boxes, tracked.views[0].tracks, names, None)], across=False
    )
    right = 0
    with tempfile.TemporaryDirectory() as place:
        halves = [Path(place) / f"{half}.txt" for half in (1, 2)]
        people = np.unique(truth.tracks)
        for half, file in enumerate(halves):
            rows = [np.array_split(np.flatnonzero(truth.tracks == one), 2)[half] for one in people]
            file.write_text(
                "".join(
                    _mot(int(truth.frames[row]), int(truth.tracks[row]), truth.corners[row].tolist(), 1.0)
                    for row in np.concatenate(rows)
                )
            )
        copies = [shutil.copy(video, Path(place) / f"{half}.mp4") for half in (1, 2)]
        track(copies, halves, encoder=encoder, gallery=Path(place) / "g")
        with rk.open_gallery(Path(place) / "g") as gallery:
            items = gallery.items(where={"kind": "track"})
            rows = gallery.embeddings(where={"kind": "track"})
    first, second = ([n for n, item in enumerate(items) if item.camera == camera] for camera in (1, 2))
    for place in first:
        nearest = second[int(np.argmax(rows[second] @ rows[place]))]
        right += items[nearest].labels["track"] == items[place].labels["track"]
    return (
        f"A real video of {len(people)} people, one after the other ({len(truth):,} boxes): "
        f"{len(names)} tracks of a detector by differences to the empty scene, "
        f"IDF1 {100 * scores.idf1:.1f}, HOTA {100 * scores.hota:.1f}. "
        f"Of the tracks cut in halves, {right} of {len(first)} find their other half first."
    )


def int8(encoder: Encoder, folder: Path) -> Encoder:
    """The same network in 8 bits, measured on drawn people."""
    people = folder / "people"
    if not people.is_dir():
        make_synthetic(people, World(num_train_identities=20, num_test_identities=2, seed=5))
    file = folder / "int8.onnx"
    if not file.is_file():
        rk.export(encoder, file, to="onnx", int8=True, images=people)
    return rk.load_encoder(file)


def speed_table(folder: Path, world: WalksWorld, encoder: Encoder) -> list[str]:
    """Processor seconds, which other work on the machine changes little, for a minute of each video."""
    lines = [
        "| cameras | seconds of one core, for a minute of video | times real time on two cores, at once |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as place:
        run(folder, [0], Path(place) / "warm", encoder)
        for num in (1, 2, 4):
            rounds = []
            for attempt in range(ROUNDS):
                began = time.process_time()
                done = run(folder, range(num), Path(place) / f"g{num}-{attempt}", encoder)
                rounds.append(time.process_time() - began)
            used = min(rounds)
            minutes = done.video_seconds / 60
            lines.append(f"| {num} | {used / minutes:.1f} | {2 * 60 * minutes / num / used:.1f} |")
        boxes = sum(len(view.boxes) for view in done.views) / sum(c.frames for c in done.counts)
        size = f"{world.width} x {world.height} at {world.rate} frames/s, {boxes:.1f} boxes a frame"
        return [
            f"{size}, encoder in int8, best of {ROUNDS} rounds:",
            "",
            *lines,
            "",
            parts_of_time(folder, done, used, encoder),
        ]


def parts_of_time(folder: Path, done: Tracked, used: float, encoder: Encoder) -> str:
    """Where the time of the last run went, each part done again by itself."""
    began = time.process_time()
    for view in done.views:
        for frame in open_video(view.origin.source).frames():
            if frame.number == view.num_planned:
                break
    reading = time.process_time() - began
    began = time.process_time()
    cameras = range(len(done.views))
    track([view.origin.source for view in done.views], [folder / f"{camera}-det.txt" for camera in cameras])
    finding = time.process_time() - began
    num = sum(counts.pictures for counts in done.counts)
    crops = list(np.random.default_rng(0).integers(0, 256, (num, 128, 64, 3)).astype(np.uint8))
    began = time.process_time()
    encoder.encode(crops)
    encoding = time.process_time() - began
    parts = {"decoding": reading, "finding tracks": finding, f"embedding {num:,} pictures": encoding}
    parts["pixels, cutting, choosing, storing"] = used - reading - finding - encoding
    listed = ", ".join(f"{name} {100 * seconds / used:.0f} %" for name, seconds in parts.items())
    return f"Of the {used:.0f} s of {len(done.views)} cameras: {listed}."


def memory_line(folder: Path, path: str, loops: int) -> str:
    """The most memory held in five minutes of video, and in those looped."""
    encoder = rk.load_encoder(path)
    with tempfile.TemporaryDirectory() as place:
        looped, boxes = Path(place) / "looped.mkv", Path(place) / "looped.txt"
        num = loop_video(folder / "0.mp4", looped, loops)
        lines = (folder / "0-det.txt").read_text().splitlines()
        with boxes.open("w") as file:
            for loop in range(loops):
                for line in lines:
                    frame, rest = line.split(",", 1)
                    file.write(f"{int(frame) + loop * num},{rest}\n")
        peaks = [peak_memory()]
        for end in (1, loops):
            part = Path(place) / f"{end}.txt"
            kept = [line for line in boxes.read_text().splitlines() if int(line.split(",")[0]) <= end * num]
            part.write_text("\n".join(kept))
            done = track([looped], [part], encoder=encoder, gallery=Path(place) / f"g{end}")
            peaks.append(peak_memory())
    minutes = num * loops / WORLD.rate / 60
    return (
        f"Peak memory of the process: {peaks[1]:.0f} MB after {minutes / loops:.0f} minutes of video, "
        f"{peaks[2]:.0f} MB after {minutes:.0f} minutes (the same, looped; {done.counts[0].tracks:,} tracks)."
    )


def loop_video(source: Path, target: Path, loops: int) -> int:
    """Write a video several times, one after the other, without coding it anew; pictures of one."""
    num = 0
    with av.open(str(target), "w") as out:
        stream = None
        for loop in range(loops):
            with av.open(str(source)) as container:
                template = container.streams.video[0]
                stream = stream or out.add_stream_from_template(template)
                length = template.duration
                for packet in container.demux(template):
                    if packet.dts is None:
                        continue
                    packet.pts += loop * length
                    packet.dts += loop * length
                    packet.stream = stream
                    out.mux(packet)
                    num += loop == 0
    return num


def peak_memory() -> float:
    """Megabytes that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
