"""What training reads: the cache, images that break while it runs, frames of tracklets."""

from __future__ import annotations

import re
import shutil
import signal

import pytest
import torch

import reidkit as rk
from reidkit.config import OptimConfig, SamplerConfig, TransformConfig
from reidkit.errors import ConfigError, DataError
from reidkit.images import cache as crops
from reidkit.losses import IdentityLoss
from reidkit.training.trackers import read_metrics
from tests.dataset_writers import WRITERS

RANDOM = SamplerConfig(kind="random")


def trainer(data, out, **options):
    torch.manual_seed(0)
    settings = {
        "epochs": 4,
        "identities_per_batch": 4,
        "images_per_identity": 3,
        "transform": TransformConfig(height=48, width=24, shift=2),
        "optim": OptimConfig(name="adamw", lr=1e-3, schedule="constant", warmup_epochs=0),
        "precision": "float32",
        "num_workers": 0,
    }
    model = rk.build_model("timm:test_resnet")
    return rk.Trainer(model, data, [IdentityLoss()], out=out, **{**settings, **options})


def weights(out):
    return torch.load(out / "last.ckpt", weights_only=True)["weights"]


def epochs(out):
    return [record for record in read_metrics(out / "metrics.jsonl") if record["kind"] == "epoch"]


@pytest.fixture
def market(tiny_market, tmp_path):
    shutil.copytree(tiny_market, tmp_path / "market")
    return rk.load_dataset("market1501", tmp_path / "market")


@pytest.mark.parametrize(("cache", "num_workers"), [("ram", 2), ("disk", 0), ("disk", 1)])
def test_a_cache_changes_no_weight(market, tmp_path, cache, num_workers):
    trainer(market, tmp_path / "plain", epochs=2).fit()
    options = {"cache": cache, "cache_folder": tmp_path / "cache", "num_workers": num_workers}
    trainer(market, tmp_path / "cached", epochs=2, **options).fit()
    plain, cached = weights(tmp_path / "plain"), weights(tmp_path / "cached")
    assert all(torch.equal(plain[key], cached[key]) for key in plain)


def break_after_epoch(epoch, samples):
    """A tracker that cuts files short between two epochs."""

    def track(record):
        if record["kind"] == "epoch" and record["epoch"] == epoch:
            for sample in samples:
                sample.path.write_bytes(sample.path.read_bytes()[:300])

    return track


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_image_that_breaks_between_epochs_stops_training_and_is_named(market, tmp_path, num_workers):
    run = trainer(
        market,
        tmp_path / "run",
        sampler=RANDOM,
        num_workers=num_workers,
        trackers=[break_after_epoch(1, [market.train[7]])],
    )
    with pytest.raises(DataError, match=f"{market.train[7].path.name} is truncated or damaged"):
        run.fit()
    assert [record["epoch"] for record in epochs(tmp_path / "run")] == [0, 1]


@pytest.mark.parametrize(("num_workers", "cache"), [(0, "none"), (2, "none"), (2, "ram")])
def test_or_it_is_replaced_named_once_and_counted(market, tmp_path, num_workers, cache, monkeypatch, told):
    broken = [market.train[7], market.train[30]]
    seen: list[tuple[list[int], list[int]]] = []
    run = trainer(
        market,
        tmp_path / "run",
        sampler=RANDOM,
        unreadable="skip",
        cache=cache,
        num_workers=num_workers,
        trackers=[break_after_epoch(1, broken)],
    )
    step = run._train_step

    def spied(wrapped, images, indices, rate):
        seen.append((indices.tolist(), run.labels[indices].tolist()))
        return step(wrapped, images, indices, rate)

    monkeypatch.setattr(run, "_train_step", spied)
    run.fit()
    # 96 images are 8 batches of 12: an epoch has each once.
    assert [record["images_replaced"] for record in epochs(tmp_path / "run")] == [0, 0, 2, 2]
    named = [text for text in told if text.startswith("another image is taken instead: ")]
    assert sorted(re.findall(r"[^/]+\.jpg", " ".join(named))) == sorted(s.path.name for s in broken)
    assert told[-1] == "2 images could not be read, and were replaced 4 times"
    late = [index for indices, _ in seen[16:] for index in indices]
    assert not {7, 30} & set(late)
    counts = torch.bincount(torch.tensor([label for _, labels in seen[16:] for label in labels]))
    assert counts.tolist() == [24] * 8, "an image of the same identity has taken its place"


def test_replacements_do_not_depend_on_the_workers(market, tmp_path):
    market.train[7].path.write_bytes(b"")
    for name, num_workers in (("a", 0), ("b", 2)):
        trainer(market, tmp_path / name, epochs=2, unreadable="skip", num_workers=num_workers).fit()
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def mars(tmp_path):
    (tmp_path / "mars").mkdir()
    WRITERS["mars"](tmp_path / "mars")
    return rk.load_dataset("mars", tmp_path / "mars")


@pytest.mark.parametrize("frames", ["random", "evenly"])
@pytest.mark.parametrize("sampler", ["identity", "random"])
def test_an_epoch_takes_a_frame_of_each_tracklet(mars, tmp_path, monkeypatch, frames, sampler):
    decoded = []
    load = crops.load_image
    monkeypatch.setattr(
        crops, "load_image", lambda path, **options: decoded.append(path) or load(path, **options)
    )
    sizes = {"identities_per_batch": 2, "images_per_identity": 1}
    table = SamplerConfig(kind=sampler, frames=frames, frames_per_tracklet=1)
    run = trainer(mars, tmp_path / "run", epochs=1, sampler=table, **sizes).fit()
    tracklet_of = {sample.path: sample.tracklet for sample in mars.train}
    num_tracklets = len(set(tracklet_of.values()))
    assert num_tracklets < len(mars.train)
    assert run.sampler.num_batches == num_tracklets // 2
    drawn = [tracklet_of[path] for path in decoded]
    if sampler == "random":
        assert len(drawn) == len(set(drawn)) == num_tracklets // 2 * 2
    assert len(set(decoded)) == len(set(drawn)), "one frame of each"
    assert run.settings["sampler"]["frames"] == frames


def test_what_does_not_go_together_is_said(market, tmp_path):
    with pytest.raises(ConfigError, match="no training image of 'market1501' belongs to a tracklet"):
        trainer(market, tmp_path / "run", frames="random")
    with pytest.raises(
        ConfigError, match="frames: input should be 'all', 'random' or 'evenly', not 'randon'"
    ):
        trainer(market, tmp_path / "run", frames="randon")
    with pytest.raises(ConfigError, match="unreadable: input should be 'stop' or 'skip', not 'skipp'"):
        trainer(market, tmp_path / "run", unreadable="skipp")


def test_replacements_are_counted_across_a_stop(market, tmp_path, told):
    market.train[7].path.write_bytes(market.train[7].path.read_bytes()[:300])
    for stop_at in (5, 13):
        run = trainer(market, tmp_path / "run", sampler=RANDOM, unreadable="skip", log_every=1)
        run.trackers = [lambda record, run=run, at=stop_at: stop(run) if record["step"] == at else None]
        with pytest.raises(KeyboardInterrupt):
            run.fit()
    trainer(market, tmp_path / "run", sampler=RANDOM, unreadable="skip", log_every=1).fit()
    assert [r["images_replaced"] for r in epochs(tmp_path / "run")] == [1, 1, 1, 1]
    assert told[-1] == "1 images could not be read, and were replaced 4 times"


def stop(run):
    run.stop._signal = signal.SIGINT
