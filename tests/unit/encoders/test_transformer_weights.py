"""Weights of vision transformers: the token they embed by, position embeddings, TransReID's parts."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import reidkit as rk
from reidkit.encoders.foreign_names import toolkit_of
from reidkit.encoders.foreign_weights import import_weights
from reidkit.errors import CheckpointError, ConfigError
from tests import published_weights

SIZE = (64, 32)
NAME = "timm:test_vit"  # patches of 16, a class token, 64 wide, 6 blocks
WIDTH = 64


def transreid(*, jigsaw=False, cameras=0, grid=(4, 2)):
    """A file of TransReID at the size of timm's test_vit, each value a number of its own."""
    shapes = published_weights.transreid("test_vit", size=SIZE, grid=grid, jigsaw=jigsaw, cameras=cameras)
    generator = torch.Generator().manual_seed(0)
    file = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: value.abs() if name.endswith("running_var") else value for name, value in file.items()}


def pixels(count=3):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3, *SIZE)).astype(np.float32))


def of_transreid(file, images, *, stride=16, jigsaw=False):
    """The authors' forward pass, step by step: all tokens through all blocks, the class token normalised."""
    network = timm.create_model("test_vit", num_classes=0, img_size=SIZE).eval()
    last = {f"base.blocks.5.{k}": f"b1.0.{k}" for k in network.blocks[5].state_dict()} if jigsaw else {}
    last |= {"base.norm.weight": "b1.1.weight", "base.norm.bias": "b1.1.bias"} if jigsaw else {}
    own = network.state_dict().keys() - {"pos_embed"}
    network.load_state_dict({k: file[last.get(f"base.{k}", f"base.{k}")] for k in own}, strict=False)
    patches = F.conv2d(
        images, file["base.patch_embed.proj.weight"], file["base.patch_embed.proj.bias"], stride
    )
    tokens = patches.flatten(2).transpose(1, 2)
    tokens = (
        torch.cat([file["base.cls_token"].expand(len(images), -1, -1), tokens], 1) + file["base.pos_embed"]
    )
    for block in network.blocks:
        tokens = block(tokens)
    neck = nn.BatchNorm1d(WIDTH).eval()
    names = ("weight", "bias", "running_mean", "running_var")
    neck.load_state_dict({name: file[f"bottleneck.{name}"] for name in names}, strict=False)
    return F.normalize(neck(network.norm(tokens)[:, 0]))


def imported(file, tmp_path, *, drop=(), **options):
    torch.save(file, tmp_path / "w.pth")
    model = rk.build_model(NAME, image_size=list(SIZE), **options)
    return model.eval(), import_weights(model, tmp_path / "w.pth", drop=drop)


def test_transreid_embeds_by_its_class_token_through_its_bottleneck(tmp_path):
    file = transreid()
    model, report = imported(file, tmp_path, pooling="token")
    assert toolkit_of(file).name == report.toolkit == "TransReID"
    assert (report.missing, report.wrong_shape, report.left_over) == ({}, {}, {})
    assert set(report.dropped) == {"base.fc.weight", "base.fc.bias", "classifier.weight"}
    with torch.inference_mode():
        torch.testing.assert_close(model.embed(pixels()), of_transreid(file, pixels()), atol=1e-5, rtol=1e-4)
    assert list(model.last_maps) == [], "a token shows no place in the image"


def test_transreid_is_not_pooled_otherwise(tmp_path):
    with pytest.raises(CheckpointError, match=r"embeds by the class token.*give model.pooling=token"):
        imported(transreid(), tmp_path)


def test_side_information_is_refused_or_dropped_loudly(tmp_path):
    file = transreid(cameras=6)
    with pytest.raises(CheckpointError, match=r"base.sie_embed is added to every token.*--drop sie_embed"):
        imported(file, tmp_path, pooling="token")
    with pytest.raises(CheckpointError, match="no weight 'sie_embedding' to drop"):
        imported(file, tmp_path, pooling="token", drop=["sie_embedding"])
    model, report = imported(file, tmp_path, pooling="token", drop=["sie_embed"])
    assert report.left_out == {"base.sie_embed": (6, 1, WIDTH)}
    assert "base.sie_embed dropped, as asked: embeddings are not those" in str(report)
    with torch.inference_mode():
        torch.testing.assert_close(model.embed(pixels()), of_transreid(file, pixels()), atol=1e-5, rtol=1e-4)


def test_of_jpm_the_global_branch_is_taken_and_the_local_ones_are_told(tmp_path):
    file = transreid(jigsaw=True)
    model, report = imported(file, tmp_path, pooling="token")
    assert (report.missing, report.wrong_shape, report.left_over) == ({}, {}, {})
    assert {name.partition(".")[0] for name in report.left_out} == {
        *("base", "b2", "bottleneck_1", "bottleneck_2", "bottleneck_3", "bottleneck_4")
    }
    assert "left out are the local branches of TransReID's JPM" in str(report)
    with torch.inference_mode():
        expected = of_transreid(file, pixels(), jigsaw=True)
        torch.testing.assert_close(model.embed(pixels()), expected, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(expected, of_transreid(file, pixels()), atol=1e-2)


def test_overlapping_patches(tmp_path):
    """Stride 12 over 64 x 32: 5 x 2 patches of 16."""
    file = transreid(grid=(5, 2))
    model, report = imported(file, tmp_path, pooling="token", patch_stride=12)
    assert report.notes == ()
    with torch.inference_mode():
        expected = of_transreid(file, pixels(), stride=12)
        torch.testing.assert_close(model.embed(pixels()), expected, atol=1e-5, rtol=1e-4)
        map_of_patches = rk.build_model(NAME, image_size=list(SIZE), patch_stride=12).backbone(pixels())
    assert map_of_patches.shape == (3, WIDTH, 5, 2)
    with pytest.raises(ConfigError, match=r"images are 32 x 64 .* built for 64 x 32 only"):
        model(torch.zeros(1, 3, 32, 64))
    _, report = imported(file, tmp_path, pooling="token")  # without overlap: 4 x 2 patches
    assert report.wrong_shape == {"backbone.network.pos_embed": ((1, 9, WIDTH), (1, 11, WIDTH))}
    assert report.untrained == ("backbone.network.pos_embed",)


def test_position_embeddings_are_resampled_as_for_pretrained_networks(tmp_path):
    theirs = timm.create_model("test_vit", num_classes=10)  # for 160 x 160
    model, report = imported(theirs.state_dict(), tmp_path, pooling="token")
    assert "position embedding resampled from (1, 101, 64) to (1, 9, 64)" in str(report)
    assert report.untrained == ()
    network = timm.create_model("test_vit", num_classes=0, img_size=SIZE)
    network.load_state_dict(
        timm.models.vision_transformer.checkpoint_filter_fn(theirs.state_dict(), network), strict=False
    )
    ours = model.backbone.network.pos_embed
    torch.testing.assert_close(ours, network.pos_embed)


def test_a_network_with_a_class_token_that_embeds_by_patches_is_told(tmp_path):
    theirs = timm.create_model("test_vit", num_classes=10, img_size=SIZE).state_dict()
    _, report = imported(theirs, tmp_path)
    assert "model.pooling=token takes the class token" in str(report)
    _, report = imported(theirs, tmp_path, pooling="token")
    assert report.notes == ()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm:test_resnet", {"pooling": "token"}, "has no class token; choose average, max or gem"),
        (NAME, {"patch_stride": 12}, r"patch_stride = 12 needs image_size = \[height, width\]"),
        (NAME, {"patch_stride": 17, "image_size": [64, 32]}, "patch_stride = 17 is not possible"),
        (NAME, {"patch_stride": 1, "image_size": [2048, 2048]}, "gives 4,133,089 patches of an image"),
        (NAME, {"patch_stride": 8, "image_size": [8, 8]}, "is smaller than a patch, 16 x 16"),
        (NAME, {"image_size": [10**9, 10**9]}, r"is not \[height, width\] in pixels, each from 1 to 2048"),
    ],
)
def test_what_does_not_go_together(name, options, message):
    with pytest.raises(ConfigError, match=message):
        rk.build_model(name, **options)
