"""The terms of SN and their gradient made by hand."""

from __future__ import annotations

import pytest
import torch

from reidkit.losses import sn


@pytest.mark.parametrize("kind", ["range", "nearest"])
@pytest.mark.parametrize("squeeze_weight", [0.0, 0.7])
def test_the_gradient_by_hand_is_autograds(kind, squeeze_weight):
    """Equal distances among them: these share their gradient."""
    generator = torch.Generator().manual_seed(0)
    distances = torch.randint(1, 5, (40, 6), generator=generator).double() / 4
    positive = torch.rand(40, 6, generator=generator) < 0.3  # often none but the first
    positive[:, 0] = True
    negative = ~positive & (torch.rand(40, 6, generator=generator) < 0.7)
    options = {"kind": kind, "squeeze_weight": squeeze_weight}
    terms = sn.support_terms(distances.requires_grad_(), positive, negative, scale=3.0, **options)
    weights = torch.randn(40, generator=generator, dtype=torch.float64)
    (by_hand,) = torch.autograd.grad((terms * weights).sum(), distances)
    plain = sn.separation(distances, positive, negative, scale=3.0)
    plain = plain + squeeze_weight * sn.squeeze(distances, positive, kind=kind)
    (by_autograd,) = torch.autograd.grad((plain * weights).sum(), distances)
    torch.testing.assert_close(terms, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(by_hand, by_autograd, rtol=1e-12, atol=1e-12)
