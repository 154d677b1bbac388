import pytest

from reidkit.training.health import PATIENCE, LossHealth


def signs(records, *, margin=0.3):
    """What is said at each of (loss, batch statistics)."""
    health = LossHealth()
    return [health.signs({"msml": loss}, margins={"msml": margin}, batch=batch) for loss, batch in records]


BUSY = {"margin_violation_share": 0.5, "collapsed": False}


@pytest.mark.parametrize(
    ("record", "patience", "words"),
    [
        ((0.301, BUSY), PATIENCE, "stood at its margin"),
        ((0.01, {**BUSY, "margin_violation_share": 0.0}), PATIENCE, "no image of the last"),
        ((0.2, {**BUSY, "collapsed": True}), 1, "fallen onto one point"),
    ],
)
def test_a_sign_is_told_once_and_again_after_it_had_gone(record, patience, words):
    healthy = (0.2, BUSY)
    said = signs([healthy, *[record] * (patience + 3), healthy, *[record] * patience])
    told = [number for number, sentences in enumerate(said) if sentences]
    assert told == [patience, 1 + patience + 3 + patience]
    assert all(words in said[number][0] for number in told)


def test_a_loss_of_many_times_the_first_is_told():
    assert signs([(0.2, BUSY), (1.9, BUSY), (2.1, BUSY), (5.0, BUSY)]) == [[], [], signs_of_divergence(), []]


def signs_of_divergence():
    return signs([(0.2, BUSY), (2.1, BUSY)])[1]


def test_divergence_says_what_to_do():
    (sentence,) = signs_of_divergence()
    assert "10 times what it was at first" in sentence
    assert "Lower optim.lr" in sentence


def test_a_loss_that_joins_later_is_no_divergence():
    health = LossHealth()
    assert not health.signs({"msml": 0.1}, margins={}, batch={})
    assert not health.signs({"msml": 0.1, "identity": 6.0}, margins={}, batch={})


def test_a_run_that_goes_on_remembers_its_first_loss():
    before, after = LossHealth(), LossHealth()
    before.signs({"msml": 0.2}, margins={}, batch={})
    after.load_state_dict(before.state_dict())
    assert after.signs({"msml": 2.1}, margins={}, batch={}) == signs_of_divergence()


def test_of_several_metric_losses_the_idle_one_is_named():
    health, terms = LossHealth(), {"first": 0.01, "second": 0.2}
    idle = {"margin_violation_share": 0.0}
    *_, said = (health.signs(terms, margins=dict.fromkeys(terms, 0.3), batch=idle) for _ in range(PATIENCE))
    assert "'first' hardly learns" in said[0]
    assert "second" not in said[0]
