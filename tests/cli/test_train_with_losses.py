"""`reid train` with losses of every kind: by registered name, by dotted path, of weights."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from reidkit import registry, trust
from reidkit.cli import cli
from reidkit.errors import ConfigError
from reidkit.training.trackers import read_metrics

METRIC_LEARNING = "pytorch_metric_learning.losses"
DISTANCES = "pytorch_metric_learning.distances"
RECIPE = """
[transform]
height = 48
width = 24
[model]
name = "timm:test_resnet"
{model}
[sampler]
identities_per_batch = 4
images_per_identity = 3
[optim]
lr = 1e-3
[train]
epochs = {epochs}
num_workers = 0
log_every = 1
precision = "float32"
"""


@pytest.fixture
def their_losses_allowed(monkeypatch):
    """As by --allow-code, since the recipe is a file."""
    monkeypatch.setenv(trust.ENVIRONMENT, "pytorch_metric_learning")


@pytest.fixture
def train(tiny_market, tmp_path):
    def run(losses: str, *, epochs: int = 1, model: str = ""):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(RECIPE.format(epochs=epochs, model=model) + losses)
        out = tmp_path / "run"
        words = ["train", str(recipe), f"data.root={tiny_market}", "--out", str(out)]
        result = CliRunner().invoke(cli, words)
        return result, read_metrics(out / "metrics.jsonl") if result.exit_code == 0 else []

    return run


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("TripletMarginLoss", "margin = 0.1"),
        (
            "MultiSimilarityLoss",
            "distance = {kind = 'pytorch_metric_learning.distances:DotProductSimilarity'}",
        ),
        ("CosFaceLoss", "scale = 30"),  # owns parameters, in sizes that are filled in
    ],
)
@pytest.mark.usefixtures("their_losses_allowed")
def test_a_loss_of_pytorch_metric_learning_by_dotted_path(train, name, options):
    pytest.importorskip("pytorch_metric_learning")
    result, metrics = train(f'[loss.theirs]\nkind = "{METRIC_LEARNING}:{name}"\nweight = 0.5\n{options}')
    assert result.exit_code == 0, result.output
    values = [record["loss/theirs"] for record in metrics if "loss/theirs" in record]
    assert len(values) > 1
    assert values[0] > 0


@pytest.mark.usefixtures("their_losses_allowed")
def test_a_misspelt_option_of_a_foreign_loss_is_named(train):
    pytest.importorskip("pytorch_metric_learning")
    result, _ = train(f'[loss.theirs]\nkind = "{METRIC_LEARNING}:TripletMarginLoss"\nmargn = 0.1')
    assert isinstance(result.exception, ConfigError)
    assert "[loss.theirs] has no option 'margn'; did you mean 'margin'?" in str(result.exception)


def test_every_metric_loss_trains_beside_the_identity_loss(train):
    names = [name for name in registry.names("loss") if registry.get("loss", name).reads == "metric"]
    result, metrics = train("[loss.identity]\n" + "".join(f"[loss.{name}]\nweight = 0.1\n" for name in names))
    assert result.exit_code == 0, result.output
    epoch = next(record for record in metrics if record["kind"] == "epoch")
    assert all(epoch[f"loss/{name}"] >= 0 for name in names)


def test_sparsity_shrinks_the_weights_it_names_from_the_epoch_it_starts_in(train):
    losses = '[loss.identity]\n[loss.sparsity]\nfeature = "neck.weight"\nweight = 0.1\nfrom_epoch = 1'
    result, metrics = train(losses, epochs=4, model='neck = "fc"\ndim = 16')
    assert result.exit_code == 0, result.output
    epochs = [record.get("loss/sparsity") for record in metrics if record["kind"] == "epoch"]
    assert epochs[0] is None
    assert epochs[1] > epochs[2] > epochs[3] > 0


def test_unknown_weights_are_named(train):
    result, _ = train('[loss.identity]\n[loss.sparsity]\nfeature = "nek.weight"', model='neck = "fc"')
    assert isinstance(result.exception, ConfigError)
    assert "reads weights 'nek.weight', which the model does not give; did you mean 'neck.weight'" in str(
        result.exception
    )


@pytest.mark.parametrize(
    ("change", "losses"),
    [
        ("seed=1", {"identity_global", "identity_local", "sparsity_global", "sparsity_local"}),
        ("model.branches=global", {"identity_global", "sparsity_global"}),
        ("model.branches=local", {"identity_local", "sparsity_local"}),
        ("model.uniloss=true", {"identity_joined", "sparsity_global", "sparsity_local"}),
        ("model.stripes=2", {"identity_global", "identity_local", "sparsity_global", "sparsity_local"}),
    ],
)
def test_every_ablation_of_jlml_is_one_change(tiny_market, tmp_path, change, losses):
    words = [f"data.root={tiny_market}", "train.epochs=1", "train.num_workers=0", "transform.height=64"]
    words += ["transform.width=32", "sampler.identities_per_batch=2", "data.train_identities=2", change]
    result = CliRunner().invoke(cli, ["train", "small-jlml", *words, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    epoch = next(r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "epoch")
    assert {key.removeprefix("loss/") for key in epoch if key.startswith("loss/")} == losses
    for absent in {"identity_global", "identity_local", "identity_joined"} - losses:
        assert f"loss {absent!r} left out: the network has no " in result.output
    groups = 2 if "stripes" in change else 4
    described = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["losses"]
    sparsity = next((loss for loss in described if loss["name"] == "sparsity_local"), None)
    assert sparsity is None or f"groups={groups})" in sparsity["loss"]


def test_a_loss_of_weights_must_say_which(train):
    result, _ = train("[loss.identity]\n[loss.sparsity]")
    assert isinstance(result.exception, ConfigError)
    assert "loss 'sparsity' reads the weights of a layer; say which by feature: " in str(result.exception)
