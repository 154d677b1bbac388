"""The cache of crops: right whatever happens to files, processes and disks."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from reidkit.config import TransformConfig
from reidkit.errors import DataError, UnknownName
from reidkit.images import cache as crops
from reidkit.images.cache import CropCache, default_folder, open_cache, read
from reidkit.training.loader import TrainingImages, collate
from reidkit.training.samplers import RandomSampler
from reidkit.types import Sample

SIZE = {"height": 32, "width": 16}
NUM_IMAGES = 12
KINDS = pytest.mark.parametrize("kind", ["ram", "disk"])


def draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def split(tmp_path):
    (tmp_path / "images").mkdir()
    samples = []
    for index in range(NUM_IMAGES):
        path = tmp_path / "images" / f"{index}.png"
        draw(path, index)
        box = (2, 3, 12, 30) if index % 2 else None
        samples.append(Sample(path, index // 3, 1, index, box=box))
    return tuple(samples)


@pytest.fixture
def decodings(tmp_path, monkeypatch):
    """Every decoding, in whatever process: (process, file) pairs, read back by calling it."""
    log = tmp_path / "decodings"
    log.touch()
    load = crops.load_image

    def counted(path, **options):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {path.name}\n")
        return load(path, **options)

    monkeypatch.setattr(crops, "load_image", counted)

    def taken():
        pairs = [tuple(line.split()) for line in log.read_text().splitlines()]
        log.write_text("")
        return pairs

    return taken


def opened(kind, split, tmp_path, *, gigabytes=1.0):
    return open_cache(kind, split, **SIZE, gigabytes=gigabytes, folder=tmp_path / "cache")


def is_right(cache, split):
    return all(torch.equal(cache.read(sample), read(sample, **SIZE)) for sample in split)


def epoch(split, cache, *, num_workers, start="fork"):
    """Batches of two epochs with persistent workers."""
    config = TransformConfig(**SIZE, shift=3, erasing=0.5)
    images = TrainingImages(split, config, mean=(0.5, 0.5, 0.5), crop=cache.read if cache else None)
    sampler = RandomSampler(len(split), batch_size=4)
    loader = DataLoader(
        images,
        batch_sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        multiprocessing_context=start if num_workers else None,
        collate_fn=collate,
    )
    for number in range(2):
        sampler.start(number)
        yield [(batch.images.clone(), batch.indices.clone()) for batch in loader]


@KINDS
def test_each_image_is_decoded_once_and_comes_back_the_same(kind, split, tmp_path, decodings):
    cache = opened(kind, split, tmp_path)
    first = [cache.read(sample) for sample in split]
    assert len(decodings()) == NUM_IMAGES
    second = [cache.read(sample) for sample in split]
    assert decodings() == []
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert is_right(cache, split)
    second[0].zero_()
    assert is_right(cache, split), "what a reader does to its crop does not reach the cache"


@pytest.mark.parametrize(
    ("kind", "num_workers", "start"),
    [
        *((kind, number, "fork") for kind in ("ram", "disk") for number in (0, 1, 2)),
        ("ram", 1, "spawn"),  # slow to start; that a disk cache can be pickled is held apart
    ],
)
def test_batches_are_equal_with_and_without_it_for_any_workers(kind, num_workers, start, split, tmp_path):
    plain = list(epoch(split, None, num_workers=0))
    cached = list(epoch(split, opened(kind, split, tmp_path), num_workers=num_workers, start=start))
    for these, those in zip(plain, cached, strict=True):
        for (images, indices), (same_images, same_indices) in zip(these, those, strict=True):
            assert torch.equal(images, same_images)
            assert torch.equal(indices, same_indices)


@KINDS
def test_workers_decode_each_image_once_an_epoch_and_with_a_cache_once_ever(kind, split, tmp_path, decodings):
    names = sorted(sample.path.name for sample in split)
    for _ in epoch(split, None, num_workers=2):
        done = decodings()
        assert sorted(name for _, name in done) == names
        assert str(os.getpid()) not in {process for process, _ in done}
    counts = [len(decodings()) for _ in epoch(split, opened(kind, split, tmp_path), num_workers=2)]
    assert counts == [NUM_IMAGES, 0]


def test_a_disk_cache_serves_the_next_run_and_a_changed_file_anew(split, tmp_path, decodings):
    assert is_right(opened("disk", split, tmp_path), split)
    decodings()
    # Another picture of as many bytes, with the old time of change: what a copying tool leaves.
    stamp = split[4].path.stat()
    old = split[4].path.read_bytes()
    new = Path(tmp_path / "new.png")
    draw(new, 99)
    size = max(len(old), new.stat().st_size)
    split[4].path.write_bytes(new.read_bytes().ljust(size, b"\0"))
    os.utime(split[4].path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    cache = opened("disk", split, tmp_path)
    for sample in split:
        cache.read(sample)
    assert [name for _, name in decodings()] == ["4.png"]
    assert is_right(cache, split)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_disk_cache_serves_the_same_files_under_a_relative_root(split, tmp_path, decodings, monkeypatch):
    assert is_right(opened("disk", split, tmp_path), split)
    decodings()
    monkeypatch.chdir(tmp_path)
    near = tuple(replace(sample, path=sample.path.relative_to(tmp_path)) for sample in split)
    cache = opened("disk", near, tmp_path)
    for sample in near:
        cache.read(sample)
    assert decodings() == []


@KINDS
def test_a_file_that_became_unreadable_or_vanished_is_told_as_without_a_cache(kind, split, tmp_path):
    cache = opened(kind, split, tmp_path)
    assert is_right(cache, split)
    split[0].path.write_bytes(split[0].path.read_bytes()[:60])
    split[1].path.unlink()
    for sample, words in ((split[0], "truncated"), (split[1], "missing")):
        with pytest.raises(DataError, match=words):
            cache.read(sample)


@KINDS
def test_another_box_is_another_crop(kind, split, tmp_path):
    assert is_right(opened(kind, split, tmp_path), split)
    moved = tuple(Sample(sample.path, sample.identity, 1, sample.index, box=(0, 0, 9, 9)) for sample in split)
    assert is_right(opened(kind, moved, tmp_path), moved)


def test_half_written_and_damaged_records_are_never_served(split, tmp_path):
    """Whatever part of the file did not reach the disk, and whatever bit fell over."""
    assert is_right(opened("disk", split, tmp_path), split)
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    record = len(whole) // NUM_IMAGES
    for trial in range(60):
        damaged = bytearray(whole)
        place = int(rng.integers(len(whole)))
        if trial % 2:
            damaged[place] ^= 1 << int(rng.integers(8))
        else:
            start = place - place % record
            damaged[place : start + record] = bytes(start + record - place)
        file.write_bytes(damaged)
        assert is_right(opened("disk", split, tmp_path), split)


def test_a_process_killed_while_it_writes_leaves_nothing_false(split, tmp_path):
    large = {"height": 1000, "width": 1000}
    crops_of = [read(sample, **large) for sample in split]

    def write_for_ever(started):
        cache = CropCache(split, **large, gigabytes=1, folder=tmp_path / "cache")
        cache._decode = lambda sample: crops_of[sample.index]  # so that it mostly writes
        while True:
            for sample in split:
                cache.read(sample)
                started.set()
            cache._records.zero_()

    for delay in np.linspace(0, 0.03, 16):
        context = multiprocessing.get_context("fork")
        started = context.Event()
        process = context.Process(target=write_for_ever, args=(started,))
        process.start()
        started.wait()
        time.sleep(delay)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        cache = CropCache(split, **large, gigabytes=1, folder=tmp_path / "cache")
        assert all(torch.equal(cache.read(sample), crops_of[sample.index]) for sample in split)


@KINDS
def test_a_forked_process_reads_large_crops_whatever_threads_its_parent_used(kind, split, tmp_path):
    large = {"height": 256, "width": 128}
    cache = CropCache(split, **large, gigabytes=1, folder=tmp_path / "cache" if kind == "disk" else None)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.ones(1_000_000).clone()  # starts the threads, which a fork leaves behind
        for _ in range(2):
            process = multiprocessing.get_context("fork").Process(
                target=lambda: [cache.read(sample) for sample in split]
            )
            process.start()
            process.join(timeout=30)
            process.kill()
            assert process.exitcode == 0
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(cache.read(sample), read(sample, **large)) for sample in split)


@KINDS
def test_what_is_over_the_limit_is_decoded_each_time_and_said_once(kind, split, tmp_path, decodings, told):
    record = 12 + 3 * 32 * 16
    cache = opened(kind, split, tmp_path, gigabytes=5.5 * record / 1e9)
    assert told == [
        "the cache holds 5 of 12 crops, its limit being 8.514e-06 GB; the others are decoded each time they "
        "are needed. All of them take 0.00 GB"
    ]
    for count in (12, 7):
        for sample in split:
            cache.read(sample)
        assert len(decodings()) == count
    assert is_right(cache, split)


@KINDS
def test_where_there_is_no_room_images_are_decoded_and_that_is_said(kind, split, tmp_path, told):
    place = Path("/dev/shm") if kind == "ram" else tmp_path
    if not place.is_dir():
        pytest.skip("no /dev/shm here")
    side = int((shutil.disk_usage(place).free / len(split) / 3) ** 0.5 * 1.2)
    cache = open_cache(kind, split, height=side, width=side, gigabytes=1e6, folder=tmp_path / "cache")
    assert cache is None
    assert len(told) == 1
    assert "no cache in" in told[0]
    assert "GB free; images are decoded each time" in told[0]
    assert sum(file.stat().st_size for file in tmp_path.glob("cache/*")) == 0, "no room is kept for nothing"


def test_a_disk_that_fills_up_meanwhile_is_no_end(split, tmp_path, monkeypatch, told):
    def full(handle: int, offset: int, length: int) -> None:
        os.truncate(handle, length // 2)  # as much as there was
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    assert opened("disk", split, tmp_path) is None
    assert "No space left on device" in told[0]
    assert sum(file.stat().st_size for file in tmp_path.glob("cache/*")) == 0


def test_a_folder_that_cannot_be_written_is_no_end(split, tmp_path, told):
    (tmp_path / "cache").write_text("a file in its place")
    assert opened("disk", split, tmp_path) is None
    assert "no cache in" in told[0]


def test_without_fallocate_the_room_is_written(split, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    assert is_right(opened("disk", split, tmp_path), split)


def test_a_higher_limit_goes_on_with_the_same_file(split, tmp_path, decodings):
    small = opened("disk", split, tmp_path, gigabytes=8e-6)
    for sample in split:
        small.read(sample)
    decodings()
    large = opened("disk", split, tmp_path)
    for sample in split:
        large.read(sample)
    assert len(decodings()) == NUM_IMAGES - small.num_kept
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_disk_cache_can_be_pickled(split, tmp_path):
    cache = pickle.loads(pickle.dumps(opened("disk", split, tmp_path)))
    assert isinstance(cache, CropCache)
    assert is_right(cache, split)


def test_kinds_and_folders(split, tmp_path, monkeypatch):
    assert opened("none", split, tmp_path) is None
    with pytest.raises(UnknownName, match="unknown cache 'rma'; did you mean 'ram'"):
        opened("rma", split, tmp_path)
    monkeypatch.setenv("REIDKIT_CACHE", str(tmp_path / "elsewhere"))
    assert default_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("REIDKIT_CACHE")
    assert default_folder() == Path.home() / ".cache" / "reidkit"


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode on Windows")
def test_a_disk_cache_of_files_whose_names_are_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    draw(path, 0)
    cache = CropCache((Sample(path, 1, 1, 0),), **SIZE, gigabytes=1e-3, folder=tmp_path / "cache")
    sample = Sample(path, 1, 1, 0)
    assert torch.equal(cache.read(sample), cache.read(sample))


def test_a_box_without_a_pixel_gets_no_crop(tmp_path):
    draw(tmp_path / "1.png", 0)
    sample = Sample(tmp_path / "1.png", 1, 1, 0, box=(90, 0, 99, 9))
    cache = CropCache((sample,), **SIZE, gigabytes=1e-3)
    for _ in range(2):  # and none is kept
        with pytest.raises(DataError, match="holds no pixel"):
            cache.read(sample)
