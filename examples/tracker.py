"""Names for the tracks of any tracker, while a video runs: our embeddings, their boxes.

    pip install "reidkit[video]"
    python examples/tracker.py runs/demo/run door.mp4 door.txt

Boxes come from a file here, in MOT's format; put your detector in its place. ByteTrack of the
package trackers links them from frame to frame, and LiveIndex gives each track a person, known or new.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import av
import numpy as np
import supervision
from trackers import ByteTrackTracker

import reidkit as rk
from reidkit.video.adapters import TrackerEncoder
from reidkit.video.live import LiveIndex


def boxes_of(file: Path) -> dict[int, supervision.Detections]:
    """Detections by frame, from lines ``frame, -1, left, top, width, height, confidence``."""
    rows = defaultdict(list)
    with file.open(newline="") as lines:
        for frame, _, left, top, width, height, confidence, *_ in csv.reader(lines):
            x, y, w, h = map(float, (left, top, width, height))
            rows[int(frame)].append((x, y, x + w, y + h, float(confidence)))
    return {
        frame: supervision.Detections(np.array(found)[:, :4], confidence=np.array(found)[:, 4])
        for frame, found in rows.items()
    }


def main(
    encoder: Path, video: Path, boxes: Path, gallery: Path | None = None, lowest: float = 0.6
) -> list[str]:
    """Print who is in the picture, whenever that changes; the names of all who were."""
    network = TrackerEncoder(rk.load_encoder(encoder), color="rgb")
    tracker = ByteTrackTracker(minimum_consecutive_frames=1)
    people = LiveIndex(lowest, rk.open_gallery(gallery) if gallery else None)
    detections, seen, shown = boxes_of(boxes), [], []
    with av.open(str(video)) as container:
        for number, frame in enumerate(container.decode(video=0), start=1):
            tracked = tracker.update(detections.get(number, supervision.Detections.empty()))
            tracked = tracked[tracked.tracker_id >= 0]
            embeddings = network.extract_embeddings(tracked, frame.to_ndarray(format="rgb24"))
            names = people.update(tracked.tracker_id.tolist(), embeddings) if len(tracked) else []
            if sorted(names) != shown:
                shown = sorted(names)
                print(f"frame {number}: {', '.join(shown) or 'nobody'}")
            seen += [name for name in names if name not in seen]
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("boxes", type=Path)
    parser.add_argument("--gallery", type=Path, help="whose people are known from the start")
    parser.add_argument("--lowest", type=float, default=0.6, help="score from which on two are one person")
    main(**vars(parser.parse_args()))
