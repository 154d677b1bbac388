"""ResNets are timm's, to the last bit."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from reidkit.models.residual import ResNet
from reidkit.models.resnet import resnet_backbone

IMAGES = torch.rand(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))


def of_timm(architecture: str, *, pretrained: bool = False) -> nn.Module:
    network: nn.Module = timm.create_model(architecture, pretrained=pretrained, num_classes=0, global_pool="")
    return network


def outcome(network: nn.Module) -> list[Tensor]:
    """The map of images in training, its gradients, and the map in evaluation."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.7)  # those that start at 0 would hide their block
    feature_map = network.train()(IMAGES)
    feature_map.square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    with torch.no_grad():
        return [feature_map.detach(), *gradients, network.eval()(IMAGES)]


@pytest.mark.parametrize("architecture", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_weights_at_the_start_maps_and_gradients(architecture: str) -> None:
    torch.manual_seed(3)
    theirs, drawn_next = of_timm(architecture), torch.rand(1)
    torch.manual_seed(3)
    ours = ResNet(architecture)
    assert torch.equal(torch.rand(1), drawn_next), "as many numbers were drawn"
    states = theirs.state_dict(), ours.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert ours.num_features == theirs.num_features
    for ours_is, theirs_is in zip(outcome(ours), outcome(theirs), strict=True):
        assert torch.equal(ours_is, theirs_is)


def test_pretrained_weights_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    made = of_timm("resnet18")
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.append((name, options)) or made)
    backbone = resnet_backbone("resnet18", pretrained=True, last_stride=2)
    assert asked == [("resnet18", {"pretrained": True, "num_classes": 0, "global_pool": ""})]
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    with torch.no_grad():
        assert torch.equal(backbone.eval()(IMAGES), made.eval()(IMAGES))
