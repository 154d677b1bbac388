"""A run goes on only with the losses that it began with: their text in its folder is not to change."""

from __future__ import annotations

from reidkit.losses import MarginSampleMiningLoss


def test_an_option_that_is_off_leaves_the_text_as_runs_of_before_have_it() -> None:
    assert repr(MarginSampleMiningLoss()) == "MarginSampleMiningLoss(margin=0.3, normalize=True)"
    assert "temperature=0.1" in repr(MarginSampleMiningLoss(temperature=0.1))
