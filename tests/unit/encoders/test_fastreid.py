"""FastReID's ResNets: non-local blocks, a first pooling without padding, and their documented names."""

import re

import pytest
import torch
from torch import nn

import reidkit as rk
from reidkit.encoders.foreign_weights import import_weights
from reidkit.errors import CheckpointError, ConfigError
from reidkit.models._non_local import NonLocal
from tests.published_weights import fastreid, made_up


def test_every_weight_of_a_documented_sbs_finds_its_place(tmp_path):
    file = made_up(fastreid(with_non_local=True, power=True))
    torch.save({"model": file}, tmp_path / "market_sbs_R50.pth")
    model = rk.build_model("resnet50", non_local=True, pooling="gem", ceil_pool=True)
    report = import_weights(model, tmp_path / "market_sbs_R50.pth")
    assert (report.missing, report.wrong_shape, report.left_over, report.notes) == ({}, {}, {}, ())
    own = model.state_dict()
    assert torch.equal(own["backbone.layer3.non_local.2.W.1.bias"], file["backbone.NL_3.2.W.1.bias"])
    assert torch.equal(own["backbone.layer2.non_local.0.theta.weight"], file["backbone.NL_2.0.theta.weight"])
    with pytest.raises(CheckpointError, match=r"The file has non-local blocks: give model.non_local=true"):
        import_weights(rk.build_model("resnet50", pooling="gem"), tmp_path / "market_sbs_R50.pth")
    report = import_weights(rk.build_model("resnet50", non_local=True), tmp_path / "market_sbs_R50.pth")
    assert "model.ceil_pool=true does so here" in str(report)


def test_a_non_local_block_is_the_sum_over_all_pairs_of_places():
    torch.manual_seed(0)
    block = NonLocal(4).eval()
    nn.init.normal_(block.W[1].weight)
    x = torch.randn(2, 4, 3, 2)
    with torch.no_grad():
        result = block(x)
        for image in range(2):
            places = x[image].flatten(1).T  # (6, 4)
            theta, phi, g = (
                places @ layer.weight.flatten(1).T + layer.bias for layer in (block.theta, block.phi, block.g)
            )
            for i, place in enumerate(places):
                total = sum(theta[i] * phi[j] * g[j] for j in range(6)) / 6
                added = block.W[0].weight.flatten() * total + block.W[0].bias
                norm = block.W[1]
                added = (added - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight
                expected = place + added + norm.bias
                torch.testing.assert_close(result[image].flatten(1)[:, i], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "resnet50_ibn_a"])
def test_non_local_blocks_stand_behind_the_last_blocks_of_two_stages(name):
    torch.manual_seed(0)
    model = rk.build_model(name, non_local=True).eval()
    plain = rk.build_model(name).eval()
    assert len(plain.load_state_dict(model.state_dict(), strict=False).unexpected_keys) == 5 * 13
    images, passed = torch.randn(1, 3, 64, 32), []
    for path, module in model.backbone.named_modules():
        if re.fullmatch(r"layer[23]\.(non_local\.)?\d", path):
            module.register_forward_hook(lambda *_, path=path: passed.append(path))
    with torch.no_grad():
        # They start as nothing.
        torch.testing.assert_close(model(images)["neck"], plain(images)["neck"])
    stage2 = ["0", "1", "2", "non_local.0", "3", "non_local.1"]
    stage3 = ["0", "1", "2", "3", "non_local.0", "4", "non_local.1", "5", "non_local.2"]
    assert passed == [f"layer2.{part}" for part in stage2] + [f"layer3.{part}" for part in stage3]


def test_non_local_blocks_have_a_place_in_few_networks():
    with pytest.raises(ConfigError, match="non_local goes with resnet50 and resnet101, not with resnet18"):
        rk.build_model("resnet18", non_local=True)
    assert len(rk.build_model("resnet101", non_local=True).backbone.layer3.non_local) == 9


def test_the_first_pooling_without_padding_starts_at_the_edge():
    model = rk.build_model("resnet18", ceil_pool=True)
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    pooled = model.backbone.maxpool(x)
    assert pooled.shape == (1, 1, 3, 3)
    assert pooled[0, 0].tolist() == [[14, 16, 17], [26, 28, 29], [32, 34, 35]]
    assert rk.build_model("resnet18").backbone.maxpool(x)[0, 0, 0, 0] == 7
