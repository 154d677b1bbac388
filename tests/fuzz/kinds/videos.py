"""Videos, and files of boxes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.cases import Case, Maker, kind
from tests.fuzz.mutation import damaged, damaged_text
from tests.videos import grey_pictures, write_video

_MOT = "".join(f"{n},{1 + n % 2},{4 + n},6,12,30,0.9,-1,-1,-1\n" for n in range(1, 11))
_TABLE = "frame,x,y,w,h,track,score,class\n" + "".join(f"{n},{4 + n},6,12,30,a,0.9,0\n" for n in range(10))
_COCO = json.dumps(
    {
        "videos": [{"id": 1, "name": "v"}],
        "images": [{"id": n, "video_id": 1, "frame_id": n, "file_name": f"{n:06}.jpg"} for n in range(10)],
        "annotations": [
            {
                "id": n,
                "image_id": n,
                "bbox": [4 + n, 6, 12, 30],
                "track_id": 1,
                "score": 0.9,
                "category_id": 1,
            }
            for n in range(10)
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
)
_SINK = json.dumps(
    [
        {"x_min": 4.0, "y_min": 6.0, "x_max": 16.0, "y_max": 36.0, "class_id": 0, "confidence": 0.9}
        | {"tracker_id": "", "frame_index": n}
        for n in range(10)
    ]
)
_BOXES = {".txt": _MOT, ".csv": _TABLE, "-coco.json": _COCO, "-sink.json": _SINK}
_VIDEOS = ((".mp4", "libx264"), (".ts", "libx264"), (".avi", "mjpeg"))


@cache
def _video(suffix: str, codec: str) -> bytes:
    with TemporaryDirectory() as folder:
        return write_video(Path(folder) / f"v{suffix}", grey_pictures(10), codec=codec).read_bytes()


@kind("boxes text", weight=30)
def boxes_text(maker: Maker) -> Case:
    maker.write("v.avi", _video(".avi", "mjpeg"))
    suffix, text = maker.random.choice(sorted(_BOXES.items()))
    boxes = maker.write(f"boxes{suffix}", damaged_text(text, maker.random)).name
    if maker.random.random() < 0.5:
        return Case(("track", "v.avi", "--boxes", boxes, "--out", "t.csv"), writes=("t.csv",))
    return Case(("check", "video", "v.avi", "--boxes", boxes), codes=(0, 1, 2))


@kind("video bytes", weight=20)
def video_bytes(maker: Maker) -> Case:
    suffix, codec = maker.random.choice(_VIDEOS)
    maker.write(f"v{suffix}", damaged(_video(suffix, codec), maker.random))
    maker.write("boxes.txt", _MOT)
    if maker.random.random() < 0.3:
        return Case(("track", f"v{suffix}", "--boxes", "boxes.txt", "--out", "out.mkv"), writes=("out.mkv",))
    return Case(("check", "video", f"v{suffix}", "--boxes", "boxes.txt"), codes=(0, 1, 2))
