"""JLML-ResNet39 against the table of its paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import reidkit as rk
from reidkit import config
from reidkit.errors import ConfigError, UnknownName
from reidkit.models._cost import complexity
from reidkit.models._stripes import cut_stripes
from reidkit.models.jlml import JLML, Bottleneck, LocalBranch
from reidkit.training.runs import build_trainer
from reidkit.training.warm_start import start_from

# Table 1: channels, height and width of what each stage gives, for an image of 224 x 224.
GLOBAL = {
    "pool": (32, 56, 56),
    "stages.0": (64, 56, 56),
    "stages.1": (128, 28, 28),
    "stages.2": (256, 14, 14),
    "stages.3": (512, 7, 7),
}
LOCAL = {"0": (32, 28, 56), "1": (64, 14, 28), "2": (128, 7, 14), "3": (256, 4, 7)}


def random_images(count, height, width):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def shapes_of(network, images):
    """Name of every part to the shape of what it gives, without the batch."""
    shapes = {}
    for name, module in network.named_modules():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: (
                shapes.update({name: tuple(output.shape[1:])}) if isinstance(output, torch.Tensor) else None
            )
        )
    with torch.no_grad():
        network.eval()(images)
    return shapes


@pytest.fixture(scope="module")
def shapes():
    return shapes_of(rk.build_model("jlml"), random_images(1, 224, 224))


def test_first_convolution_and_global_branch_have_the_shapes_of_the_table(shapes):
    assert shapes["conv1"] == (32, 112, 112)
    assert {name: shapes[f"global_branch.{name}"] for name in GLOBAL} == GLOBAL
    assert shapes["global_branch"] == shapes["global_feature"] == (512,)


def test_local_streams_have_the_shapes_of_the_table(shapes):
    assert shapes["local_branch.pool"] == (32, 28, 56)
    for stream in range(4):
        found = {name: shapes[f"local_branch.streams.{stream}.{name}"] for name in LOCAL}
        assert found == LOCAL
    assert shapes["local_branch"] == (1024,)
    assert shapes["local_feature"] == (512,)


@pytest.mark.parametrize(
    ("branch", "widths"), [("global_branch.stages", (32, 64, 128, 256)), ("local_branch.streams.2", None)]
)
def test_blocks_have_the_widths_of_the_table(branch, widths):
    widths = widths or (16, 32, 64, 128)
    stages = rk.build_model("jlml").get_submodule(branch)
    for stage, width in zip(stages, widths, strict=True):
        assert len(stage) == 3
        for block in stage:
            convolutions = [m for m in block.residual if isinstance(m, nn.Conv2d)]
            assert [c.out_channels for c in convolutions] == [width, width, 2 * width]
            assert [c.kernel_size for c in convolutions] == [(1, 1), (3, 3), (1, 1)]
    strides = [[c.stride[0] for c in stage[0].residual if isinstance(c, nn.Conv2d)] for stage in stages]
    assert strides == [[1, 1, 1], [1, 2, 1], [1, 2, 1], [1, 2, 1]]


def test_it_has_39_layers_from_image_to_classifier():
    model = rk.build_model("jlml", branches="global")
    convolutions = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and "shortcut" not in name
    ]
    assert len(convolutions) + 2 == 39, "the feature layer, and the classifier in the loss"


def test_parameters_are_those_counted_from_the_table():
    def norm(width):
        return 2 * width

    def branch(widths):
        total, num_in = 0, 32
        for stage, width in enumerate(widths):
            for block in range(3):
                num_out = 2 * width
                total += num_in * width + norm(width) + 9 * width * width + norm(width)
                total += width * num_out + norm(num_out)
                if num_in != num_out or (stage > 0 and block == 0):
                    total += num_in * num_out + norm(num_out)
                num_in = num_out
        return total

    convolutions = 9 * 3 * 32 + norm(32) + branch((32, 64, 128, 256)) + 4 * branch((16, 32, 64, 128))
    features = (512 * 512 + 512) + (1024 * 512 + 512)
    cost = complexity(rk.build_model("jlml"), height=224, width=224)
    assert cost.num_parameters == convolutions + features
    assert round(convolutions / 1e6, 1) == 7.0
    assert round(cost.num_parameters / 1e6, 1) == 7.8
    assert round(cost.num_multiply_adds / 1e9, 2) == 0.83


def test_a_count_without_projected_shortcuts_comes_near_the_papers_operations():
    model, projections = rk.build_model("jlml"), []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and "shortcut" in name:
            module.register_forward_hook(
                lambda m, _inputs, output: projections.append(output.numel() * m.in_channels)
            )
    cost = complexity(model, height=224, width=224)
    assert len(projections) == 4 + 4 * 3, "the first stage of a stream keeps its shape"
    assert round((cost.num_multiply_adds - sum(projections)) / 1e9, 2) == 0.80


def test_the_local_pool_keeps_rows_and_halves_columns_as_loops_do():
    branch = LocalBranch(1)
    stripe = torch.rand(1, 2, 3, 6, generator=torch.Generator().manual_seed(0))
    seen = []
    branch.pool.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    branch.streams[0] = nn.Identity()
    branch(stripe)
    expected = torch.zeros(1, 2, 3, 3)
    for channel in range(2):
        for row in range(3):
            for column in range(3):
                window = [
                    float(stripe[0, channel, y, x])
                    for y in (row, row + 1)
                    for x in (2 * column, 2 * column + 1)
                    if y < 3
                ]
                expected[0, channel, row, column] = max(window)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("height", [10, 11, 13, 25, 64])
@pytest.mark.parametrize("num_stripes", [2, 4, 6, 8, 10])
def test_stripes_cover_the_map_in_nearly_equal_heights(height, num_stripes):
    rows = torch.arange(height).view(1, 1, height, 1)
    stripes = cut_stripes(rows, num_stripes)
    assert torch.cat(stripes, dim=2).flatten().tolist() == list(range(height))
    heights = [stripe.shape[2] for stripe in stripes]
    assert len(heights) == num_stripes
    assert max(heights) - min(heights) <= 1
    assert stripes[1].flatten()[0] == round(height / num_stripes)


def test_each_stream_sees_its_stripe_alone_with_weights_of_its_own():
    torch.manual_seed(0)
    branch = LocalBranch(4).eval()
    low = torch.rand(1, 32, 32, 16)
    changed = low.clone()
    changed[:, :, 8:16] += 1  # the second stripe
    with torch.no_grad():
        moved = (branch(changed) - branch(low)).view(4, 256).abs().amax(dim=1) > 0
        assert moved.tolist() == [False, True, False, False]
        same_stripes = branch(low[:, :, :8].repeat(1, 1, 4, 1)).view(4, 256)
    assert not torch.allclose(same_stripes[0], same_stripes[1])


def test_a_block_adds_its_input_and_ends_in_a_relu():
    torch.manual_seed(0)
    block = Bottleneck(8, 4, stride=1).eval()
    x = torch.randn(2, 8, 5, 3)
    assert isinstance(block.shortcut, nn.Identity)
    with torch.no_grad():
        torch.testing.assert_close(block(x), F.relu(block.residual(x) + x))
        for layer in block.residual:
            if isinstance(layer, nn.Conv2d):
                layer.weight.zero_()
        torch.testing.assert_close(block(x), F.relu(x))


def test_the_embedding_joins_the_two_features_each_of_unit_length():
    torch.manual_seed(0)
    model = rk.build_model("jlml").eval()
    images = random_images(3, 64, 32)
    with torch.no_grad():
        features = model(images)
        embedding = model.embed(images)
    unit = [features[name] / features[name].norm(dim=1, keepdim=True) for name in ("global", "local")]
    torch.testing.assert_close(features["embedding"], torch.cat(unit, dim=1))
    torch.testing.assert_close(embedding, torch.cat(unit, dim=1) / 2**0.5)


def test_the_two_feature_layers_stand_where_the_sparsity_loss_looks_for_them():
    torch.manual_seed(0)
    model = rk.build_model("jlml", stripes=6)
    parameters = dict(model.named_parameters())
    assert parameters["global_feature.weight"].shape == (512, 512)
    assert parameters["local_feature.weight"].shape == (512, 6 * 256)
    for name in ("global_feature", "local_feature"):
        assert parameters[f"{name}.weight"].std().item() == pytest.approx(0.01, rel=0.01)
        assert not parameters[f"{name}.bias"].any()


def test_it_regularises_its_feature_layers_as_the_paper_does():
    model = rk.build_model("jlml", stripes=6)
    found = model.regularizers()
    global_weight, local_weight = model.global_feature.weight, model.local_feature.weight
    columns = sum(column.norm() for column in global_weight.T)
    stripes = sum(stripe.abs().sum(dim=1).square().sum() for stripe in local_weight.split(256, dim=1))
    torch.testing.assert_close(found, {"sparsity_global": columns, "sparsity_local": stripes})
    sum(found.values()).backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == {"global_feature.weight", "local_feature.weight"}


@pytest.mark.parametrize("branch", ["global", "local"])
def test_one_branch_alone(branch):
    model = rk.build_model("jlml", branches=branch)
    assert model.features == {branch: 512}
    assert model.regularizers().keys() == {f"sparsity_{branch}"}
    assert {model.metric_feature, model.classification_feature, model.embedding_feature} == {branch}
    other = {"global": "local", "local": "global"}[branch]
    assert not any(name.startswith(other) for name in model.state_dict())
    assert model.embed(random_images(2, 64, 32)).shape == (2, 512)


def trained_by(model, feature):
    """Parts of the model that a loss on this feature moves."""
    model.zero_grad()
    model(random_images(2, 64, 32))[feature].square().sum().backward()
    return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}


def test_both_losses_train_the_shared_layer_and_nothing_else_together():
    model = rk.build_model("jlml")
    assert trained_by(model, "global") == {"conv1", "global_branch", "global_feature"}
    assert trained_by(model, "local") == {"conv1", "local_branch", "local_feature"}


def test_without_the_shared_layer_the_branches_have_nothing_in_common():
    model = rk.build_model("jlml", shared=False)
    assert trained_by(model, "global") == {"conv1", "global_branch", "global_feature"}
    assert trained_by(model, "local") == {"local_conv1", "local_branch", "local_feature"}


@pytest.mark.parametrize("stripes", [1, 2, 4, 6, 8, 10])
@pytest.mark.parametrize("size", [(256, 128), (128, 64), (61, 33)])
def test_any_number_of_stripes_and_any_size(stripes, size):
    model = JLML(stripes=stripes).eval()
    with torch.no_grad():
        features = model(random_images(1, *size))
    assert {name: value.shape[1] for name, value in features.items()} == model.features


def test_a_stripe_without_a_row_is_refused():
    model = rk.build_model("jlml", stripes=10)
    assert model(random_images(2, 19, 19))["local"].shape == (2, 512)
    with pytest.raises(
        ConfigError, match=r"18 x 24 .* too small for model 'jlml': neither side may be under 19"
    ):
        model(random_images(2, 18, 24))


def test_bad_options_are_named():
    with pytest.raises(UnknownName, match="unknown choice of branches 'globel'; did you mean 'global'"):
        rk.build_model("jlml", branches="globel")
    with pytest.raises(ConfigError, match="stripes = 0 is not possible"):
        rk.build_model("jlml", stripes=0)


def test_weights_of_imagenets_classes_are_taken_over(tmp_path, tiny_market):
    """The recipe jlml-imagenet, on a few drawn classes, and a run that starts from it."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 3), dtype=np.uint8)
    for number, colour in enumerate(colours):
        folder = tmp_path / "imagenet" / f"n{number:08}"
        folder.mkdir(parents=True)
        for name in "abcd":
            Image.new("RGB", (40, 30), tuple(map(int, colour))).save(folder / f"{name}.JPEG", format="JPEG")
    small = ["transform.height=32", "transform.width=32", "train.epochs=1", "train.num_workers=0"]
    small += ["optim.milestones=[]", "sampler.identities_per_batch=2", "sampler.images_per_identity=2"]
    first = config.load("jlml-imagenet", [f"data.root={tmp_path / 'imagenet'}", *small])
    build_trainer(first, tmp_path / "first").fit()
    learned = rk.load_encoder(tmp_path / "first").model.state_dict()
    second = config.load(
        "jlml-market1501",
        [f"data.root={tiny_market}", "data.val_identities=0", f"train.init={tmp_path / 'first'}", *small],
    )
    trainer = build_trainer(second, tmp_path / "second")
    start_from(trainer.model, trainer.train_config.init)
    assert all(torch.equal(weight, learned[name]) for name, weight in trainer.model.state_dict().items())
