import copy

import pytest
import torch
from torch import nn

import reidkit as rk
from reidkit.errors import ConfigError
from reidkit.losses import IdentityLoss, MarginSampleMiningLoss, SupportNeighborLoss
from reidkit.training.gradient_cache import check_pieces, embed_in_pieces
from reidkit.training.objective import Objective, Step

IMAGES = torch.randn(12, 3, 48, 24, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) // 3


def gradients(model, losses, *, num_pieces, seed=0):
    step = Step(model, [Objective(loss) for loss in losses], num_pieces=num_pieces)
    torch.manual_seed(seed)
    terms, _ = step(IMAGES.to(next(model.parameters()).dtype), LABELS, 0)
    sum(terms.values()).backward()
    return terms, {name: p.grad for name, p in step.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("num_pieces", [2, 3, 5])
@pytest.mark.parametrize("loss", [MarginSampleMiningLoss(), SupportNeighborLoss(num_neighbors=2)])
def test_pieces_give_the_step_of_the_whole_batch(num_pieces, loss):
    torch.manual_seed(0)
    model = rk.build_model("timm:test_resnet").double().eval()
    identity = IdentityLoss(num_identities=4, dim=model.features["neck"]).double()
    results = []
    for pieces in (1, num_pieces):
        model.zero_grad()
        losses = [copy.deepcopy(identity), loss]
        results.append(gradients(copy.deepcopy(model), losses, num_pieces=pieces))
    (terms, whole), (terms_of_pieces, in_pieces) = results
    assert whole.keys() == in_pieces.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in whole.values())
    for name in terms:
        torch.testing.assert_close(terms_of_pieces[name], terms[name], rtol=0, atol=1e-10)
    for name, gradient in whole.items():
        torch.testing.assert_close(in_pieces[name], gradient, rtol=0, atol=1e-10)


class Dropping(nn.Module):
    def __init__(self, norm=nn.BatchNorm1d):
        super().__init__()
        self.norm, self.drop = norm(5), nn.Dropout(0.5)

    def forward(self, images):
        return {"feature": self.drop(self.norm(images))}


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d, nn.SyncBatchNorm]
)  # without a process group, one and the same
def test_both_passes_see_one_dropout_and_statistics_move_once_a_piece(norm):
    torch.manual_seed(0)
    model, images = Dropping(norm).double(), torch.randn(6, 5, dtype=torch.float64)
    feature = embed_in_pieces(model, images, 3)["feature"]
    feature.sum().backward()
    # Of weights that are 1 the gradient is the sum of what was let through: in the second pass the same.
    torch.testing.assert_close(model.norm.weight.grad, feature.sum(dim=0))
    plain = nn.BatchNorm1d(5).double()
    for piece in images.chunk(3):
        plain(piece)
    torch.testing.assert_close(model.norm.running_mean, plain.running_mean)
    torch.testing.assert_close(model.norm.running_var, plain.running_var)
    assert model.norm.num_batches_tracked == 3
    assert model.norm.momentum == 0.1


def test_no_piece_is_left_with_a_single_image():
    model = Dropping()
    assert embed_in_pieces(model, torch.randn(10, 5), 4)["feature"].shape == (10, 5)
    assert model.norm.num_batches_tracked == 4


def test_pieces_of_one_image_are_refused_where_batch_norm_learns():
    with pytest.raises(
        ConfigError, match="has 1 image of each batch, and batch norm needs 2; choose a larger"
    ):
        check_pieces(1, 1)
    with pytest.raises(ConfigError, match=r"leaves pieces of less than 2 of the 5 images.*choose 2 or less"):
        check_pieces(3, 5)
    with pytest.raises(ConfigError, match=r"leaves pieces of less than 1 of the 5 images.*choose 5 or less"):
        check_pieces(6, 5, smallest=1)
    check_pieces(1, 1, smallest=1)
    check_pieces(5, 5, smallest=1)
