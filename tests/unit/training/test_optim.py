import pytest
import torch
from torch import nn

import reidkit as rk
from reidkit.config import OptimConfig
from reidkit.errors import ConfigError
from reidkit.training.optim import build_optimizer, layer_rates, learning_rate, set_learning_rate
from reidkit.training.precision import Precision

EPOCHS, STEPS = 10, 20


def rates(**options):
    config = OptimConfig(lr=1.0, **options)
    return [learning_rate(config, s, steps_per_epoch=STEPS, num_epochs=EPOCHS) for s in range(EPOCHS * STEPS)]


def test_multistep_falls_at_the_first_step_of_each_milestone():
    got = rates(schedule="multistep", milestones=[4, 7], gamma=0.1, warmup_epochs=0)
    assert got[4 * STEPS - 1] == 1.0
    assert got[4 * STEPS] == pytest.approx(0.1)
    assert got[7 * STEPS] == pytest.approx(0.01)


def test_exponential_falls_from_its_milestone_by_one_factor_a_step_to_gamma():
    got = rates(schedule="exponential", milestones=[6], gamma=0.001, warmup_epochs=0)
    start, num_steps = 6 * STEPS, EPOCHS * STEPS
    factor = 0.001 ** (1 / (num_steps - start))
    expected = [1.0] * start
    for _ in range(start, num_steps):
        expected.append(expected[-1] * factor if len(expected) > start else 1.0)
    assert got == pytest.approx(expected, rel=1e-9)
    assert got[-1] * factor == pytest.approx(0.001)


def test_exponential_is_that_of_torch():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    start, num_steps = 6 * STEPS, EPOCHS * STEPS
    theirs = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=start),
            torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.001 ** (1 / (num_steps - start))),
        ],
        milestones=[start],
    )
    for rate in rates(schedule="exponential", milestones=[6], gamma=0.001, warmup_epochs=0):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_warm_up_multiplies_the_exponential_rate():
    options = {"schedule": "exponential", "milestones": [1], "gamma": 0.01}
    warm, cold = rates(warmup_epochs=2, **options), rates(warmup_epochs=0, **options)
    assert warm[0] == pytest.approx(0.1)
    assert warm[2 * STEPS - 1] == pytest.approx(
        cold[2 * STEPS - 1] * (0.1 + 0.9 * (2 * STEPS - 1) / (2 * STEPS))
    )
    assert warm[2 * STEPS :] == cold[2 * STEPS :]


@pytest.mark.parametrize("milestones", [[], [40, 70], [EPOCHS]])
def test_exponential_takes_one_milestone_below_the_number_of_epochs(milestones):
    with pytest.raises(
        ConfigError, match=r"milestones = \[.*takes one epoch.*below train.epochs = 10; set .*\[5\]"
    ):
        rates(schedule="exponential", milestones=milestones)


def test_warm_up_rises_from_a_tenth_to_the_whole():
    got = rates(schedule="constant", warmup_epochs=2)
    assert got[0] == pytest.approx(0.1)
    assert got[STEPS] == pytest.approx(0.55)
    assert got[2 * STEPS :] == [1.0] * (8 * STEPS)


def test_cosine_ends_near_zero():
    got = rates(schedule="cosine", warmup_epochs=0)
    assert got[0] == 1.0
    assert got[EPOCHS * STEPS // 2] == pytest.approx(0.5)
    assert 0 < got[-1] < 1e-3


def test_one_cycle_is_that_of_torch():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=EPOCHS * STEPS + 1,
        div_factor=25,
        final_div_factor=4000,
        pct_start=0.3,
    )
    got = rates(schedule="onecycle")
    for rate in got:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=0.02)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_weight_decay_spares_biases_and_norms(name):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[1].bias.requires_grad_(False)
    decayed, spared = build_optimizer(OptimConfig(name=name, weight_decay=0.1), [model]).param_groups
    assert [p.shape for p in decayed["params"]] == [(4, 3)]
    assert [p.shape for p in spared["params"]] == [(4,), (4,)]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


def test_weight_decay_spares_a_transformers_token_and_positions():
    model = rk.build_model("timm:vit_tiny_patch16_224", pretrained=False, image_size=[64, 32])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = build_optimizer(OptimConfig(weight_decay=0.1), [nn.ModuleList([model])]).param_groups
    assert {"backbone.network.pos_embed", "backbone.network.cls_token"} & {
        names[id(p)] for p in spared["params"]
    }
    assert not any("pos_embed" in names[id(p)] or "cls_token" in names[id(p)] for p in decayed["params"])


def test_layers_nearer_to_the_image_learn_more_slowly():
    model = rk.build_model("timm:vit_tiny_patch16_224", image_size=[32, 16])
    rates = layer_rates(model, 0.5)
    assert rates["backbone.network.blocks.11.mlp.fc1.weight"] == 0.5
    assert rates["backbone.network.norm.weight"] == 0.5, "belongs to the last block"
    assert rates["backbone.network.blocks.0.mlp.fc1.weight"] == 0.5**12
    assert rates["backbone.network.patch_embed.proj.weight"] == 0.5**13
    assert "neck.weight" not in rates
    optimizer = build_optimizer(OptimConfig(layer_decay=0.5), [model])
    set_learning_rate(optimizer, 2.0)
    learned = [p for p in model.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(learned)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate_of[id(model.neck.weight)] == 2.0
    assert rate_of[id(model.backbone.network.patch_embed.proj.weight)] == 2.0 * 0.5**13


def test_the_blocks_of_a_resnet_are_its_layers():
    rates = layer_rates(rk.build_model("resnet18"), 0.5)
    assert rates["backbone.layer4.1.conv1.weight"] == 0.5
    assert rates["backbone.conv1.weight"] == rates["backbone.bn1.weight"] == 0.5**9


def test_layer_decay_without_a_backbone_is_refused():
    with pytest.raises(ConfigError, match=r"optim.layer_decay = 0.7 goes with networks of backbone and neck"):
        build_optimizer(OptimConfig(layer_decay=0.7), [rk.build_model("jlml")])


# --- SGD, whose fused kernel must not make its momentum by itself ---------------------------------------


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def plain_sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=False)


def sgd(model):
    config = OptimConfig(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.0)
    return build_optimizer(config, [model])


def train(model, optimizer, *, steps, freeze_until=0):
    """Least squares; the first layer learns from ``freeze_until`` on."""
    for step in steps:
        for parameter in model[0].parameters():
            parameter.requires_grad_(step >= freeze_until)
        optimizer.zero_grad(set_to_none=True)
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        model(inputs).square().mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("freeze_until", [0, 7])
def test_fused_sgd_steps_as_plain_sgd_does_though_layers_join_late(freeze_until):
    plain, fused = two_layers(), two_layers()
    train(plain, plain_sgd(plain), steps=range(20), freeze_until=freeze_until)
    train(fused, sgd(fused), steps=range(20), freeze_until=freeze_until)
    for expected, found in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_sgd_goes_on_from_a_checkpoint_whose_frozen_layers_have_no_momentum():
    expected = two_layers()
    train(expected, plain_sgd(expected), steps=range(20), freeze_until=7)
    before = two_layers()
    kept = sgd(before)
    train(before, kept, steps=range(7), freeze_until=7)
    state = kept.state_dict()
    shapes = [tuple(p.shape) for group in kept.param_groups for p in group["params"]]
    frozen_shapes = {tuple(p.shape) for p in before[0].parameters()}
    for number, shape in enumerate(shapes):
        if shape in frozen_shapes:
            del state["state"][number]  # as torch leaves it
    after = two_layers()
    after.load_state_dict(before.state_dict())
    resumed = sgd(after)
    resumed.load_state_dict(state)
    train(after, resumed, steps=range(7, 20), freeze_until=7)
    for wanted, found in zip(expected.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


def test_a_first_step_that_overflows_leaves_no_momentum(monkeypatch):
    """The scale starts high, and the first steps in float16 usually overflow."""
    # Memory that nobody has filled, made visible.
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(1e6))
    model, plain = two_layers(), two_layers()
    optimizer, precision = sgd(model), Precision("float16", torch.device("cpu"))
    inputs = torch.randn(5, 3)
    for overflows in (True, False):
        optimizer.zero_grad(set_to_none=True)
        total = model(inputs).square().mean()
        precision.backward(total * float("inf") if overflows else total)
        precision.step(optimizer, clip_norm=None)
        if overflows:
            assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    reference = plain_sgd(plain)
    plain(inputs).square().mean().backward()
    reference.step()
    for expected, found in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
