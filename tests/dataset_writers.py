"""Small trees of every data set layout: made-up pixels, exact names and formats."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

Writer = Callable[[Path], None]


def write_images(root: Path, names: Iterable[str], *, size: tuple[int, int] = (8, 16)) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture("/".join(path.parts[-4:]), size).save(path)


def picture(name: str, size: tuple[int, int] = (8, 16)) -> Image.Image:
    """Another one for each name: equal files would be one picture, which is no match of itself."""
    width, height = size
    noise = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


# MATLAB 5: a cell is an object array, a struct a structured array whose fields are objects.


def cells(values: Sequence[Any], *, shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        array[place] = value
    return array.reshape(shape or (1, -1))


def structs(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """A (1, N) struct array; every row has the same fields."""
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in rows[0]])
    for place, row in enumerate(rows):
        for field, value in row.items():
            array[field][0, place] = value
    return array


def save_mat(path: Path, variables: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables, do_compression=True)


# MATLAB 7.3: HDF5 behind a header of 512 bytes, axes reversed, cells as references into #refs#.


class Hdf5Writer:
    def __init__(self, path: Path) -> None:
        import h5py

        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = h5py.File(path, "w", userblock_size=512)
        self._references = self._file.create_group("#refs#")
        self._reference_type = h5py.ref_dtype

    def matrix(self, values: np.ndarray) -> Any:
        """A reference to a matrix, as a cell holds it; empty ones as MATLAB marks them."""
        name = f"r{len(self._references)}"
        if values.size:
            dataset = self._references.create_dataset(name, data=values.T)
        else:
            dataset = self._references.create_dataset(name, data=np.zeros(2, np.uint64))
            dataset.attrs["MATLAB_empty"] = np.uint8(1)
        return dataset.ref

    def cell(self, references: list[list[Any]], name: str | None = None) -> Any:
        """A cell array (rows of references): a variable where it has a name, else a reference to it."""
        array = np.empty((len(references[0]), len(references)), dtype=self._reference_type)
        for row, items in enumerate(references):
            for column, item in enumerate(items):
                array[column, row] = item
        group, name = (self._file, name) if name else (self._references, f"r{len(self._references)}")
        return group.create_dataset(name, data=array, dtype=self._reference_type).ref

    def close(self) -> None:
        self._file.close()
        with self._path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


# Layouts


def market1501(root: Path) -> None:
    write_images(
        root,
        [
            *(f"bounding_box_train/{i:04}_c{c}s1_000001_00.jpg" for i in (2, 7) for c in (1, 2)),
            "query/0009_c1s1_000001_00.jpg",
            "bounding_box_test/0009_c2s1_000001_00.jpg",
            "bounding_box_test/0000_c2s1_000002_00.jpg",
            "bounding_box_test/-1_c2s1_000001_00.jpg",
        ],
    )


def dukemtmcreid(root: Path) -> None:
    write_images(
        root / "DukeMTMC-reID",
        [
            *(f"bounding_box_train/{i:04}_c{c}_f0046182.jpg" for i in (1, 5) for c in (2, 8)),
            "query/0003_c1_f0000001.jpg",
            "bounding_box_test/0003_c2_f0000002.jpg",
            "bounding_box_test/0004_c2_f0000003.jpg",
        ],
    )


def veri776(root: Path) -> None:
    write_images(
        root / "VeRi",
        [
            *(f"image_train/{i:04}_c{c:03}_00016450_0.jpg" for i in (1, 3) for c in (1, 20)),
            "image_query/0002_c002_00030600_0.jpg",
            "image_test/0002_c003_00030605_1.jpg",
        ],
    )


def folder(root: Path) -> None:
    write_images(
        root,
        [
            *("train/ben/2.jpg", "train/ben/10.jpg", "train/anna/1.jpg"),
            *("query/cleo/1.jpg", "test/cleo/2.jpg"),
        ],
    )


def table(root: Path) -> None:
    folder(root)
    names = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*/*.jpg"))
    rows = (f"{name},{name.split('/')[1]},{name.split('/')[0]}" for name in names)
    (root / "samples.csv").write_text("\n".join(["path,identity,split", *rows]))


def msmt17(root: Path, *, folders: tuple[str, str] = ("mask_train_v2", "mask_test_v2")) -> None:
    tree = root / "MSMT17"
    lists = {
        "train": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_15_0303noon_0008_1.jpg 1"],
        "val": ["0000/0000_001_14_0303afternoon_0001_0.jpg 0"],
        "query": ["0000/0000_000_05_0303morning_0021_0.jpg 0"],
        "gallery": [
            "0000/0000_001_06_0303morning_0022_0.jpg 0",
            "0001/0001_000_07_0303morning_0002_0.jpg 1",
        ],
    }
    for name, lines in lists.items():
        part = folders[0] if name in ("train", "val") else folders[1]
        write_images(tree / part, [line.split()[0] for line in lines])
        (tree / f"list_{name}.txt").write_text("\n".join(lines) + "\n")


def viper(root: Path) -> None:
    names = [f"{camera}/{person:03}_{angle}.bmp" for camera, angle in (("cam_a", 0), ("cam_b", 90))
             for person in (0, 3, 4, 7)]  # fmt: skip
    write_images(root / "VIPeR", names)


def viper_splits(persons: Sequence[Sequence[int]]) -> str:
    """Text of SDALF_VIPeR_sets.txt with these test persons."""
    blocks = []
    for number, split in enumerate(persons, start=1):
        pairs = [
            f"{place} - cam_a/{p:03}_0.bmp  cam_b/{p:03}_90.bmp \n" for place, p in enumerate(split, start=1)
        ]
        blocks.append(f"% Experiment Number {number} \n\n" + "".join(pairs) + "\n")
    return "\n".join(blocks)


def mars(root: Path) -> None:
    train = [(1, 1, 1, 2), (1, 2, 1, 1), (3, 1, 2, 3)]  # identity, camera, tracklet, frames
    test = [(-1, 1, 1, 2), (0, 2, 1, 1), (2, 1, 1, 2), (2, 3, 1, 3), (4, 1, 1, 1), (4, 2, 1, 1)]
    for part, tracks in (("train", train), ("test", test)):
        names, rows = mars_names(tracks)
        write_images(root / f"bbox_{part}", [f"{name[:4]}/{name}" for name in names])
        (root / "info").mkdir(exist_ok=True)
        (root / f"info/{part}_name.txt").write_text("\n".join(names) + "\n")
        save_mat(root / f"info/tracks_{part}_info.mat", {f"track_{part}_info": rows})
    save_mat(root / "info/query_IDX.mat", {"query_IDX": np.array([[3, 5]], np.uint16)})


def mars_names(tracks: Iterable[tuple[int, int, int, int]]) -> tuple[list[str], np.ndarray]:
    """Names and table of tracks, each given as identity, camera, number, frames."""
    names: list[str] = []
    rows = []
    for identity, camera, number, num_frames in tracks:
        person = "00-1" if identity == -1 else f"{identity:04}"
        rows.append((len(names) + 1, len(names) + num_frames, identity, camera))
        names += [f"{person}C{camera}T{number:04}F{frame:03}.jpg" for frame in range(1, num_frames + 1)]
    return names, np.array(rows, np.int32)


def cuhk03_persons(boxes: str) -> list[list[list[int]]]:
    """Filled cells, from 1, by camera pair and person: 30 persons, one of them without a second view."""
    if boxes == "detected":
        return [[[1, 2, 6]] * 20, [[1, 6, 10]] * 10, [], [], []]
    return [[[1, 2, 5, 6, 7]] * 11 + [[1, 2]] + [[1, 2, 6]] * 8, [[1, 6]] * 10, [], [], []]


def cuhk03_pixels(pair: int, person: int, cell: int) -> np.ndarray:
    pixels = np.zeros((6, 4, 3), np.uint8)
    pixels[0, 1] = pair, person, cell
    pixels[5] = 200
    return pixels


def cuhk03(root: Path) -> None:
    tree = root / "cuhk03_release"
    file = Hdf5Writer(tree / "cuhk-03.mat")
    empty = np.empty((0, 0))
    for boxes in ("labeled", "detected"):
        pairs = []
        for pair, persons in enumerate(cuhk03_persons(boxes), start=1):
            rows = [
                [
                    file.matrix(cuhk03_pixels(pair, person, cell) if cell in filled else empty)
                    for cell in range(1, 11)
                ]
                for person, filled in enumerate(persons, start=1)
            ]
            pairs.append(file.cell(rows) if rows else file.matrix(empty))
        file.cell([[reference] for reference in pairs], boxes)
        names = [
            (pair, person, 1 if cell <= 5 else 2, cell)
            for pair, persons in enumerate(cuhk03_persons(boxes), start=1)
            for person, filled in enumerate(persons, start=1)
            for cell in filled
        ]
        save_mat(root / f"cuhk03_new_protocol_config_{boxes}.mat", cuhk03_new_protocol(names))
    # Split s tests person s + 1 of pair 1 and person 1 of pair 2.
    tests = [[file.matrix(np.array([[1, split], [2, 1]], float))] for split in range(1, 21)]
    file.cell(tests, "testsets")
    file.close()


def cuhk03_new_protocol(names: list[tuple[int, int, int, int]]) -> dict[str, Any]:
    """Persons 1 to 12 of pair 1 train; of the others, the first image asks."""
    labels = np.array([[person + 20 * (pair - 1)] for pair, person, _, _ in names], np.uint16)
    train = [row for row, (pair, person, _, _) in enumerate(names, 1) if pair == 1 and person <= 12]
    test = [row for row in range(1, len(names) + 1) if row not in train]
    query = [row for row in test if names[row - 1][3] == 1]
    return {
        "filelist": cells(["{}_{:03}_{}_{:02}.png".format(*name) for name in names], shape=(-1, 1)),
        "labels": labels,
        "camId": np.array([[view] for _, _, view, _ in names], np.uint8),
        "train_idx": np.array([train], np.uint16).T,
        "query_idx": np.array([query], np.uint16).T,
        "gallery_idx": np.array([[row for row in test if row not in query]], np.uint16).T,
    }


def cuhk01(root: Path, *, num_identities: int = 102) -> None:
    (root / "campus").mkdir(parents=True)
    for identity in range(1, num_identities + 1):
        for image in range(1, 5):
            name = f"campus/{identity:04}{image:03}.png"
            picture(name).save(root / name, compress_level=0)


def grid(root: Path) -> None:
    tree = root / "underground_reid"
    names = [f"probe/{person:04}_1_25008_169_19_94_223.jpeg" for person in range(1, 7)]
    names += [f"gallery/{person:04}_5_25023_116_134_128_330.jpeg" for person in range(1, 7)]
    names += [f"gallery/0000_{camera}_25023_{camera}_134_128_330.jpeg" for camera in (1, 6)]
    write_images(tree, names)
    partitions = [
        structs([{"a": 0.0, "b": "x", "c": np.array([[1 + split % 4, 5, 6]], float)}]) for split in range(10)
    ]
    save_mat(tree / "features_and_partitions.mat", {"trainIdxAll": cells(partitions), "features": np.eye(2)})


def prid2011(root: Path) -> None:
    tree = root / "prid_2011/multi_shot"
    for camera, persons in (("cam_a", (1, 2, 3, 7)), ("cam_b", (1, 2, 3, 7))):
        write_images(
            tree / camera,
            [f"person_{person:04}/{frame:04}.png" for person in persons for frame in range(1, 29)],
        )


def prid2011_single(root: Path) -> None:
    tree = root / "prid_2011/single_shot"
    names = [f"cam_a/person_{person:04}.png" for person in (*range(1, 201), 201, 385)]
    names += [f"cam_b/person_{person:04}.png" for person in (*range(1, 201), 201, 385, 749)]
    touch(tree, *names)


def ilidsvid(root: Path) -> None:
    persons = (1, 2, 4, 9)
    write_images(
        root / "i-LIDS-VID/sequences",
        [
            f"cam{camera}/person{person:03}/cam{camera}_person{person:03}_{frame:05}.png"
            for camera in (1, 2)
            for person in persons
            for frame in (317, 318)
        ],
    )
    orders = [np.roll([1, 2, 3, 4], split) for split in range(10)]
    save_mat(
        root / "train-test people splits/train_test_splits_ilidsvid.mat",
        {"ls_set": np.array(orders, np.uint16)},
    )


def cub200(root: Path) -> None:
    tree = root / "CUB_200_2011"
    names = [
        f"{label:03}.Bird_{label}/Bird_{label}_{image:04}_18.jpg"
        for label in (1, 100, 101, 200)
        for image in (1, 2)
    ]
    write_images(tree / "images", names)
    lines = list(enumerate(names, start=1))
    (tree / "images.txt").write_text("".join(f"{number} {name}\n" for number, name in lines))
    (tree / "image_class_labels.txt").write_text(
        "".join(f"{number} {int(name[:3])}\n" for number, name in lines)
    )
    (tree / "bounding_boxes.txt").write_text("".join(f"{number} 0.0 0.0 8.0 16.0\n" for number, _ in lines))


CAR_CLASSES = (1, 1, 98, 99, 99, 98, 196, 196)


def cars196(root: Path) -> None:
    names = [f"car_ims/{number:06}.jpg" for number in range(1, len(CAR_CLASSES) + 1)]
    write_images(root, names, size=(16, 8))
    rows = [
        {"relative_im_path": name, "bbox_x1": 1, "class": np.uint8(label), "test": 0}
        for name, label in zip(names, CAR_CLASSES, strict=True)
    ]
    save_mat(root / "cars_annos.mat", {"annotations": structs(rows), "class_names": cells(["a", "b"])})


def cars196_devkit(root: Path) -> None:
    for part, labels, file in (
        ("train", CAR_CLASSES[::2], "devkit/cars_train_annos.mat"),
        ("test", CAR_CLASSES[1::2], "cars_test_annos_withlabels.mat"),
    ):
        names = [f"{number:05}.jpg" for number in range(1, len(labels) + 1)]
        write_images(root / f"cars_{part}", names, size=(16, 8))
        rows = [
            {"bbox_x1": 1, "class": np.uint8(label), "fname": name}
            for name, label in zip(names, labels, strict=True)
        ]
        save_mat(root / file, {"annotations": structs(rows)})


NO_BOX = np.empty((0, 0))


def scene_struct(scene: str, box: Sequence[int] | None) -> dict[str, Any]:
    location = NO_BOX if box is None else np.array([box], np.int32)
    return {"imname": scene, "idlocate": location, "ishard": np.uint8(0)}


def cuhksysu(root: Path) -> None:
    """s1, s2 to train on; p7 asks from s3 and is shown in s4; p9 asks from s4 and is shown in s5."""
    tree = root / "dataset"
    boxes = {
        "s1.jpg": [(0, 0, 8, 16), (20, 0, 8, 16)],
        "s2.jpg": [(4, 4, 8, 16)],
        "s3.jpg": [(0, 2, 8, 16), (30, 0, 0, 16)],
        "s4.jpg": [(1, 1, 8, 16), (12, 1, 8, 16), (24, 1, 8, 16)],
        "s5.jpg": [(3, 3, 8, 16)],
    }
    write_images(tree / "Image/SSM", boxes, size=(40, 24))
    images = [
        {
            "imname": scene,
            "nAppear": np.uint8(len(found)),
            "box": structs([{"idlocate": np.array([box], np.int32), "ishard": 0} for box in found]),
        }
        for scene, found in boxes.items()
    ]
    save_mat(tree / "annotation/Images.mat", {"Img": structs(images)})
    train = [
        ("p3", [scene_struct("s1.jpg", (0, 0, 8, 16)), scene_struct("s2.jpg", (4, 4, 8, 16))]),
        ("p12", [scene_struct("s1.jpg", (20, 0, 8, 16))]),
    ]
    persons = [
        structs([{"idname": name, "nAppear": len(scenes), "scene": structs(scenes)}])
        for name, scenes in train
    ]
    save_mat(tree / "annotation/test/train_test/Train.mat", {"Train": cells(persons, shape=(-1, 1))})
    queries = [
        {
            "Query": structs([scene_struct("s4.jpg", (24, 1, 8, 16)) | {"idname": "p9"}]),
            "Gallery": structs([scene_struct("s5.jpg", (3, 3, 8, 16)), scene_struct("s3.jpg", None)]),
        },
        {
            "Query": structs([scene_struct("s3.jpg", (0, 2, 8, 16)) | {"idname": "p7"}]),
            "Gallery": structs([scene_struct("s4.jpg", (1, 1, 8, 16)), scene_struct("s5.jpg", None)]),
        },
    ]
    for size in (50, 100):
        listed = queries if size == 100 else [row | {"Gallery": row["Gallery"][:, :1]} for row in queries]
        save_mat(tree / f"annotation/test/train_test/TestG{size}.mat", {f"TestG{size}": structs(listed)})


WRITERS: dict[str, Writer] = {
    "cars196": cars196,
    "cub200": cub200,
    "cuhk01": cuhk01,
    "cuhk03": cuhk03,
    "cuhksysu": cuhksysu,
    "dukemtmcreid": dukemtmcreid,
    "folder": folder,
    "grid": grid,
    "ilidsvid": ilidsvid,
    "market1501": market1501,
    "mars": mars,
    "msmt17": msmt17,
    "occluded_duke": dukemtmcreid,
    "prid2011": prid2011,
    "synthetic": market1501,
    "table": table,
    "veri776": veri776,
    "viper": viper,
}
