"""What cannot teach, or cannot be scored, is told before the first step."""

import dataclasses
import shutil

import pytest

import reidkit as rk
from reidkit.config import OptimConfig, SamplerConfig, TrainConfig
from reidkit.errors import ConfigError, DataError
from reidkit.files import exclusive
from reidkit.losses import BatchHardTripletLoss, ContrastiveLoss, IdentityLoss, MarginSampleMiningLoss
from reidkit.types import Dataset
from tests.trainings import load, make_trainer, trainer_of

RANDOM = SamplerConfig(kind="random")


def test_settings_that_cannot_work_are_refused_at_once(tiny_market, tmp_path):
    refuse = [
        (
            {"losses": [rk.Objective(MarginSampleMiningLoss(), feature="nek")]},
            "reads feature 'nek'.*did you mean 'neck'",
        ),
        ({"losses": [MarginSampleMiningLoss(), MarginSampleMiningLoss()]}, "two losses are called"),
        ({"losses": [rk.Objective(MarginSampleMiningLoss(), from_epoch=1)]}, "no loss counts in epoch 0"),
        ({"identities_per_batch": 9}, "identities_per_batch = 9, but the training set has only 8"),
        ({"precision": "float8"}, "precision: input should be 'auto', .* not 'float8'"),
        ({"optim": OptimConfig(schedule="exponential")}, r"optim.milestones = \[40, 70\], but"),
    ]
    for options, message in refuse:
        with pytest.raises(ConfigError, match=message):
            make_trainer(tiny_market, tmp_path / "never", **options)
    with pytest.raises(DataError, match="has no training images"):
        rk.Trainer(
            rk.build_model("timm:test_resnet"),
            Dataset("empty", tmp_path),
            [IdentityLoss()],
            out=tmp_path / "n",
        )
    assert not (tmp_path / "never").exists()


def test_an_unknown_sampler_is_refused(tiny_market, tmp_path):
    with pytest.raises(ConfigError, match="kind: input should be 'identity' or 'random', not 'identiy'"):
        make_trainer(tiny_market, tmp_path / "run", kind="identiy")


def test_a_folder_of_something_else_is_refused(tiny_market, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="exists and is not a run folder"):
        make_trainer(tiny_market, tmp_path).fit()
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_of_other_settings_is_refused_and_untouched(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "run", epochs=1).fit()
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}
    other = make_trainer(
        tiny_market, tmp_path / "run", epochs=1, optim=OptimConfig(name="adamw", lr=2e-3, schedule="onecycle")
    )
    with pytest.raises(
        ConfigError, match=r"(?s)holds a run with other settings.*optim\.lr: 0\.001 there, 0\.002 now"
    ):
        other.fit()
    make_trainer(tiny_market, tmp_path / "x", epochs=1, losses=[MarginSampleMiningLoss(margin=0.3)]).fit()
    with pytest.raises(ConfigError, match=r"losses\[0\]\.loss: .*margin=0\.3.* there, .*margin=0\.5"):
        make_trainer(tiny_market, tmp_path / "x", epochs=1, losses=[MarginSampleMiningLoss(margin=0.5)]).fit()
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()} == before


def test_another_shape_of_batch_is_another_run(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "run", epochs=1).fit()
    same_size = make_trainer(
        tiny_market, tmp_path / "run", epochs=1, identities_per_batch=3, images_per_identity=4
    )
    with pytest.raises(ConfigError, match=r"sampler\.identities_per_batch: 4 there, 3 now"):
        same_size.fit()


def test_two_trainings_in_one_folder_are_refused(tiny_market, tmp_path):
    out = tmp_path / "run"
    with exclusive(out / ".lock"), pytest.raises(ConfigError, match="is being trained by another process"):
        make_trainer(tiny_market, out, epochs=1).fit()
    assert [path.name for path in out.iterdir()] == [".lock"]
    (out / ".run.json.x1.unfinished").write_bytes(b"half")  # of one that was killed at its first file
    make_trainer(tiny_market, out, epochs=1).fit()
    assert not (out / ".run.json.x1.unfinished").exists()


def test_options_of_no_table_and_tables_of_another_kind_are_told(tiny_market, tmp_path):
    refuse = [
        ({"epoch": 3}, "unknown option 'epoch'; did you mean 'epochs'"),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1, not 0"),
        ({"sampler": "random"}, r"sampler = 'random' is no SamplerConfig; give sampler=SamplerConfig\(...\)"),
        ({"train": {"epochs": 3}}, r"is no TrainConfig; give train=TrainConfig\(...\)"),
        ({"lr": 0.1}, r"lr is a key of optim; give optim=OptimConfig\(lr=...\)"),
        ({"height": 64}, r"height is a key of transform; give transform=TransformConfig\(height=...\)"),
        ({"say": print}, "training tells its progress to logging"),
    ]
    for options, message in refuse:
        with pytest.raises(ConfigError, match=message):
            make_trainer(tiny_market, tmp_path / "never", **options)


def test_single_options_are_those_of_the_tables(tiny_market, tmp_path):
    tables = {
        "sampler": SamplerConfig(identities_per_batch=2, spread_cameras=True),
        "train": TrainConfig(epochs=9, ema_decay=0.9),
    }
    one = make_trainer(tiny_market, tmp_path / "run", **tables, epochs=3, identities_per_batch=4)
    assert one.sampler_config.spread_cameras
    assert (one.sampler_config.identities_per_batch, one.train_config.epochs) == (4, 3)
    other = make_trainer(tiny_market, tmp_path / "run", epochs=3, spread_cameras=True, ema_decay=0.9)
    assert one.settings == other.settings


def test_a_batch_larger_than_the_data_and_a_piece_too_small_are_told(tiny_market, tmp_path, told):
    options = {"identities_per_batch": 8, "images_per_identity": 13, "epochs": 1}
    make_trainer(tiny_market, tmp_path / "run", **options).fit()
    assert any("a batch of 104 is larger than the 96 training images" in text for text in told)
    with pytest.raises(ConfigError, match="accumulate = 7 leaves pieces of less than 2 of the 12 images"):
        make_trainer(tiny_market, tmp_path / "never", accumulate=7)


def test_a_batch_of_one_image_is_refused(tiny_market, tmp_path):
    options = {"sampler": RANDOM, "identities_per_batch": 1, "images_per_identity": 1}
    with pytest.raises(ConfigError, match="has 1 image of each batch, and batch norm needs 2"):
        make_trainer(tiny_market, tmp_path / "run", losses=[IdentityLoss()], **options)
    make_trainer(tiny_market, tmp_path / "run", losses=[IdentityLoss()], batch_norm="frozen", **options)


def with_train(data, keep):
    """The data set with those training samples."""
    train = tuple(sample for sample in data.train if keep(sample))
    return dataclasses.replace(
        data, train=tuple(dataclasses.replace(s, index=i) for i, s in enumerate(train))
    )


@pytest.mark.parametrize("loss", [BatchHardTripletLoss, MarginSampleMiningLoss, ContrastiveLoss])
def test_metric_losses_without_pairs_are_refused(tiny_market, tmp_path, loss):
    data = load(tiny_market, 0)
    first = min(sample.identity for sample in data.train)
    one = with_train(data, lambda sample: sample.identity == first)
    singles = with_train(data, lambda sample: sample.path.name.endswith("c1s1_000000_01.jpg"))
    refuse = [
        (data, {"images_per_identity": 1}, f"images_per_identity = 1, but loss '{loss.__name__}' compares"),
        (data, {"identities_per_batch": 1}, "identities_per_batch = 1, but"),
        (one, {"sampler": RANDOM, "identities_per_batch": 1}, "training images of 'market1501' are of one"),
        (singles, {}, "no identity of 'market1501' has two training images"),
    ]
    for part, options, message in refuse:
        with pytest.raises(ConfigError, match=message):
            trainer_of(part, tmp_path / "never", [IdentityLoss(), loss()], **options)
        trainer_of(part, tmp_path / "never", [IdentityLoss()], **options)


def test_batches_that_often_lack_pairs_are_told_once(tiny_market, tmp_path, told):
    data = load(tiny_market, 0)
    options = {"sampler": RANDOM, "identities_per_batch": 3, "images_per_identity": 1, "epochs": 1}
    trainer_of(data, tmp_path / "run", **options).fit()
    named = [text for text in told if "do not hold two images of one identity" in text]
    assert len(named) == 1
    assert "of the first 32 batches" in named[0]
    assert not trainer_of(data, tmp_path / "other").remarks


@pytest.mark.parametrize(
    ("camera_of", "need"), [(lambda s: 1, "with two"), (lambda s: s.identity, "seen by")]
)
def test_a_validation_part_without_matches_is_refused(tiny_market, tmp_path, camera_of, need):
    """Nobody is seen by two cameras, or, where all images are under one, nobody twice."""
    data = load(tiny_market, 3)
    first_of_each = {sample.identity: sample for sample in reversed(data.val)}.values()
    kept = first_of_each if need == "with two" else data.val
    val = [dataclasses.replace(s, index=i, camera=camera_of(s)) for i, s in enumerate(kept)]
    with pytest.raises(DataError, match=f"val part of 'market1501' .* holds no identity {need}"):
        trainer_of(dataclasses.replace(data, val=tuple(val)), tmp_path / "run")


def test_a_validation_part_in_which_nobody_can_be_mistaken_is_refused(tiny_market, tmp_path):
    data = load(tiny_market, 3)
    one = [sample for sample in data.val if sample.identity == data.val[0].identity]
    val = tuple(dataclasses.replace(sample, index=i) for i, sample in enumerate(one))
    with pytest.raises(DataError, match="all images to find are of one identity"):
        trainer_of(dataclasses.replace(data, val=val), tmp_path / "run")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_in_which_all_that_losses_read_is_frozen_is_refused(tiny_market, tmp_path, accumulate):
    """Triplets of the feature before the neck, and a frozen backbone: no weight has a gradient."""
    frozen = OptimConfig(freeze_epochs=2, schedule="constant")
    late = rk.Objective(IdentityLoss(), from_epoch=1)
    for losses in ([BatchHardTripletLoss()], [BatchHardTripletLoss(), late]):
        with pytest.raises(ConfigError, match=r"nothing would learn in epoch 0: .*\(BatchHardTripletLoss\)"):
            make_trainer(tiny_market, tmp_path / "no", losses=losses, optim=frozen, accumulate=accumulate)
    early = rk.Objective(IdentityLoss(), until_epoch=1)
    with pytest.raises(ConfigError, match="nothing would learn in epoch 1"):
        make_trainer(tiny_market, tmp_path / "no", losses=[BatchHardTripletLoss(), early], optim=frozen)
    behind_the_neck = rk.Objective(BatchHardTripletLoss(), feature="neck")
    trainer = make_trainer(tiny_market, tmp_path / "yes", losses=[behind_the_neck], optim=frozen)
    assert all(parameter.requires_grad for parameter in trainer.model.backbone.parameters())


def test_whatever_fails_in_a_validation_the_encoder_is_there(tiny_market, tmp_path):
    data = load(tiny_market, 3)
    damaged = tmp_path / "damaged.jpg"
    shutil.copy(data.val[-1].path, damaged)
    val = [*data.val[:-1], dataclasses.replace(data.val[-1], path=damaged)]
    trainer = trainer_of(dataclasses.replace(data, val=tuple(val)), tmp_path / "run", epochs=1)
    damaged.write_bytes(b"")
    with pytest.raises(DataError, match=r"damaged\.jpg"):
        trainer.fit()
    assert rk.load_encoder(tmp_path / "run").card["epoch"] == 1
