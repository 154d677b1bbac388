"""Distances, masks, mining and batch statistics against loops."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.errors import ConfigError, DataError
from reidkit.ops import (
    BatchStatistics,
    batch_statistics,
    blocks,
    check_count,
    check_number,
    check_positive,
    distances_between,
    distances_to,
    hardest_distances,
    hardest_partners,
    identities_of,
    mean_over,
    mine_hardest,
    negative_mask,
    normalized,
    pairwise_distances,
    positive_mask,
)


def random_embeddings(num: int, *, dim: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64):
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- distances and masks -------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [0, 1, 2, 7])
def test_pairwise_distances_equal_a_loop(num):
    embeddings = random_embeddings(num)
    distances = pairwise_distances(embeddings)
    assert distances.shape == (num, num)
    for i in range(num):
        for j in range(num):
            expected = (embeddings[i] - embeddings[j]).norm().item() if i != j else 1e-6
            assert distances[i, j].item() == pytest.approx(expected, abs=1e-12)


def test_pairwise_distances_have_right_and_finite_gradients():
    embeddings = random_embeddings(5).requires_grad_()
    assert torch.autograd.gradcheck(pairwise_distances, embeddings)
    equal = torch.ones(4, 3, requires_grad=True)
    pairwise_distances(equal).sum().backward()
    assert equal.grad.isfinite().all()


def test_product_form_is_within_a_thousandth_in_float32():
    embeddings = normalized(random_embeddings(64, dim=512, dtype=torch.float32)).repeat(2, 1)
    exact = pairwise_distances(embeddings.double())
    assert (pairwise_distances(embeddings) - exact).abs().max() < 1e-3


def test_distances_between_rows_are_exact_at_zero():
    embeddings = normalized(random_embeddings(8, dtype=torch.float32)).requires_grad_()
    distances = distances_between(embeddings, embeddings.detach().clone())
    assert distances.tolist() == pytest.approx([1e-6] * 8, rel=1e-6)
    distances.sum().backward()
    assert embeddings.grad.eq(0).all()


@pytest.mark.parametrize("num_partners", [3, 9])
@pytest.mark.parametrize(("num", "dim"), [(1, 3), (7, 4), (40, 600), (1500, 5)])
def test_distances_to_chosen_rows_equal_those_of_matching_rows(num, dim, num_partners):
    embeddings = random_embeddings(num, dim=dim).requires_grad_()
    generator = torch.Generator().manual_seed(1)
    partners = torch.randint(0, num, (num, num_partners), generator=generator)
    distances, expected = (
        distances_to(embeddings, partners),
        distances_between(embeddings[:, None], embeddings[partners]),
    )
    torch.testing.assert_close(distances, expected, rtol=0, atol=1e-12)
    weights = torch.randn(num, num_partners, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((d * weights).sum(), embeddings)[0] for d in (distances, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


def test_a_row_is_at_the_floor_from_itself_with_no_gradient():
    embeddings = random_embeddings(3, dtype=torch.float32).requires_grad_()
    distances = distances_to(embeddings, torch.arange(3)[:, None])
    assert distances.tolist() == [[pytest.approx(1e-6)]] * 3
    distances.sum().backward()
    assert embeddings.grad.eq(0).all()


def test_normalized_rows_have_length_one_and_zero_stays_zero():
    embeddings = random_embeddings(4)
    embeddings[2] = 0
    embeddings.requires_grad_()
    unit = normalized(embeddings)
    assert unit.norm(dim=1).tolist() == pytest.approx([1, 1, 0, 1])
    unit.sum().backward()
    assert embeddings.grad[2].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-20, 1.0, 1e20, 1e38])
def test_rows_of_any_size_have_their_direction(size):
    rows = random_embeddings(4, dtype=torch.float32)
    unit = normalized((rows * size / rows.abs().amax()).requires_grad_())
    torch.testing.assert_close(unit, rows / rows.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-6)
    assert unit.norm(dim=1).tolist() == pytest.approx([1] * 4)


def test_the_gradient_of_a_direction_is_that_of_the_plain_quotient():
    embeddings = random_embeddings(4).requires_grad_()
    weights = random_embeddings(4).flip(0)
    (found,) = torch.autograd.grad((normalized(embeddings) * weights).sum(), embeddings)
    plain = embeddings / embeddings.norm(dim=1, keepdim=True)
    (expected,) = torch.autograd.grad((plain * weights).sum(), embeddings)
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradgradcheck(normalized, embeddings)


def test_masks_equal_loops():
    labels = torch.tensor([4, -1, 4, 4, 9])
    for i, first in enumerate(labels):
        for j, second in enumerate(labels):
            assert positive_mask(labels)[i, j] == (first == second and i != j)
            assert negative_mask(labels)[i, j] == (first != second)


@pytest.mark.parametrize("labels", [[4, -1, 4, 4, 9], [2, 2, 2], [1, 0], [7]])
def test_columns_of_an_identity_are_all_of_its_images(labels):
    identities = identities_of(torch.tensor(labels))
    assert identities.num_images.tolist() == [labels.count(label) for label in labels]
    assert identities.most == max(labels.count(label) for label in labels)
    columns = torch.cat([identities.columns(slice(start, start + 2)) for start in range(0, len(labels), 2)])
    for image, row in enumerate(columns.tolist()):
        assert set(row) == {other for other, label in enumerate(labels) if label == labels[image]}


def test_mean_over_nothing_is_zero_with_a_graph():
    values = torch.tensor([1.0, 4.0, math.inf], requires_grad=True)
    assert mean_over(values, torch.tensor([True, True, False])) == 2.5
    nothing = mean_over(values, torch.tensor([False, False, False]))
    nothing.backward()
    assert nothing == 0
    assert values.grad.eq(0).all()


# --- mining --------------------------------------------------------------------------------------------


def test_hardest_partners_of_a_written_out_batch():
    distances = torch.tensor(
        [
            [0.0, 2.0, 5.0, 9.0, 7.0],
            [2.0, 0.0, 4.0, 1.0, 8.0],
            [5.0, 4.0, 0.0, 6.0, 3.0],
            [9.0, 1.0, 6.0, 0.0, 2.0],
            [7.0, 8.0, 3.0, 2.0, 0.0],
        ]
    )
    partners = hardest_partners(distances, torch.tensor([0, 0, 0, 1, 2]))
    assert partners.has_positive.tolist() == [True, True, True, False, False]
    assert partners.has_negative.all()
    assert partners.positives[:3].tolist() == [2, 2, 0]
    assert partners.negatives.tolist() == [4, 3, 4, 1, 3]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=10), seed=st.integers(0, 10**6))
def test_hardest_distances_equal_a_loop(labels, seed):
    embeddings = random_embeddings(len(labels), seed=seed)
    hardest = hardest_distances(embeddings, torch.tensor(labels))
    for a in range(len(labels)):
        d = [(embeddings[a] - other).norm().item() for other in embeddings]
        positives = [d[j] for j in range(len(d)) if j != a and labels[j] == labels[a]]
        negatives = [d[j] for j in range(len(d)) if labels[j] != labels[a]]
        assert hardest.has_positive[a] == bool(positives)
        assert hardest.has_negative[a] == bool(negatives)
        if positives:
            assert hardest.positive[a].item() == pytest.approx(max(positives), abs=1e-12)
        if negatives:
            assert hardest.negative[a].item() == pytest.approx(min(negatives), abs=1e-12)


@pytest.mark.parametrize("size", [1, 20, 64, blocks.BLOCK])
def test_mining_in_blocks_finds_the_same_partners(size, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", size)
    embeddings = random_embeddings(13, seed=2)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 0, 5, 1, 3, 3])
    found, expected = (
        mine_hardest(embeddings, labels),
        hardest_partners(pairwise_distances(embeddings), labels),
    )
    assert found.has_positive.equal(expected.has_positive)
    assert found.has_negative.equal(expected.has_negative)
    assert found.positives[found.has_positive].equal(expected.positives[found.has_positive])
    assert found.negatives.equal(expected.negatives)
    nearness = torch.cat([of_rows for _, of_rows in blocks.nearness_blocks(embeddings)])
    others = pairwise_distances(embeddings).fill_diagonal_(torch.inf)
    assert nearness.argsort(dim=1, descending=True).equal(others.argsort(dim=1))
    assert nearness.diagonal().isneginf().all()


@pytest.mark.parametrize("num_rows", [0, 1, 7, 362, 1000])
def test_blocks_are_all_rows_each_once(num_rows):
    found = list(blocks.row_blocks(num_rows, num_rows, torch.device("cpu")))
    assert [row for rows in found for row in range(num_rows)[rows]] == list(range(num_rows))
    assert len(found) == -(-num_rows // max(1, blocks.BLOCK // max(num_rows, 1)))


# --- statistics ----------------------------------------------------------------------------------------


def slow_statistics(embeddings, labels, *, margin: float | None, normalize: bool) -> dict:
    f = [row / row.norm() if normalize else row for row in embeddings]
    y = labels.tolist()
    num = len(y)
    d = {(i, j): (f[i] - f[j]).norm().item() for i in range(num) for j in range(num)}
    positive = [pair for pair in d if pair[0] != pair[1] and y[pair[0]] == y[pair[1]]]
    negative = [pair for pair in d if y[pair[0]] != y[pair[1]]]
    usable = [a for a in range(num) if {a} <= {i for i, _ in positive} & {i for i, _ in negative}]
    furthest, nearest = max(positive, key=d.get, default=None), min(negative, key=d.get, default=None)
    violating = [
        max(d[i, j] for i, j in positive if i == a) + (margin or 0)
        > min(d[i, j] for i, j in negative if i == a)
        for a in usable
    ]
    means = {k: sum(f[i] for i in range(num) if y[i] == k) / y.count(k) for k in set(y)}
    whole = sum(f) / num
    return {
        "num_images": num,
        "num_identities": len(set(y)),
        "num_anchors_without_partner": num - len(usable),
        "mean_positive_distance": sum(d[p] for p in positive) / len(positive) if positive else None,
        "mean_negative_distance": sum(d[p] for p in negative) / len(negative) if negative else None,
        "hardest_positive_distance": d[furthest] if furthest else None,
        "hardest_negative_distance": d[nearest] if nearest else None,
        "hardest_pairs_share_identity": y[furthest[0]] in (y[nearest[0]], y[nearest[1]]) if usable else None,
        "margin_violation_share": sum(violating) / len(violating) if violating else None,
        "intra_identity_variance": sum((f[i] - means[y[i]]).norm().item() ** 2 for i in range(num)) / num,
        "inter_identity_variance": sum((means[k] - whole).norm().item() ** 2 for k in y) / num,
        "collapsed": False,
    }


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=10),
    seed=st.integers(0, 10**6),
    margin=st.sampled_from([0.3, 1.0, 0.0, None]),
    normalize=st.booleans(),
)
def test_statistics_equal_loops(labels, seed, margin, normalize):
    embeddings, labels = random_embeddings(len(labels), seed=seed), torch.tensor(labels)
    found = batch_statistics(embeddings, labels, margin=margin, normalize=normalize).as_dict()
    expected = slow_statistics(embeddings, labels, margin=margin, normalize=normalize)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, abs=1e-7) if isinstance(value, float) else value), name


def test_variances_add_up_to_that_of_the_batch():
    embeddings = random_embeddings(9)
    found = batch_statistics(embeddings, torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 3]), normalize=False)
    total = embeddings.var(dim=0, correction=0).sum().item()
    assert found.intra_identity_variance + found.inter_identity_variance == pytest.approx(total)


@pytest.mark.parametrize(
    ("points", "relative"),
    [
        (
            [[0.0], [5.0], [6.0], [7.0]],
            True,
        ),  # 0-5 is the furthest pair, 5-6 the nearest: both have identity 0
        ([[0.0], [5.0], [20.0], [21.0]], False),
    ],
)
def test_tells_the_relative_from_the_absolute_case(points, relative):
    labels = torch.tensor([0, 0, 1, 2])
    found = batch_statistics(torch.tensor(points), labels, normalize=False)
    assert found.hardest_positive_distance == 5
    assert found.hardest_negative_distance == 1
    assert found.hardest_pairs_share_identity is relative


@pytest.mark.parametrize("labels", [[], [3], [1, 1, 1], [0, 1, 2], [0, 0, 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_statistics_of_degenerate_batches_have_no_nan(labels, dtype, scale):
    embeddings = (scale * torch.ones(len(labels), 4)).to(dtype).requires_grad_()
    found = batch_statistics(embeddings, torch.tensor(labels, dtype=torch.int64))
    json.dumps(found.as_dict(), allow_nan=False)
    assert found.num_images == len(labels)
    assert found.collapsed == (len(set(labels)) > 1)


@pytest.mark.parametrize("spread", [0.0, 1e-4, 0.003])
@pytest.mark.parametrize("margin", [0.3, 0.0, None])
def test_says_that_a_batch_has_collapsed(spread, margin):
    embeddings = torch.ones(16, 64) + spread * random_embeddings(16, dim=64, dtype=torch.float32)
    labels = torch.arange(16) // 4
    assert batch_statistics(embeddings, labels, margin=margin).collapsed
    assert batch_statistics(embeddings.bfloat16(), labels, margin=margin).collapsed


@pytest.mark.parametrize("margin", [0.3, 0.0, None])
def test_does_not_cry_collapse(margin):
    labels = torch.arange(16) // 4
    spread_out = torch.ones(16, 64) + 0.2 * random_embeddings(16, dim=64, dtype=torch.float32)
    assert not batch_statistics(spread_out, labels, margin=margin).collapsed
    # Identities on one point each are what training wants, and one identity on one point too.
    assert not batch_statistics(torch.eye(4)[labels], labels, margin=margin).collapsed
    assert not batch_statistics(torch.ones(16, 4), torch.zeros_like(labels), margin=margin).collapsed


def test_statistics_do_not_look_at_scale_where_they_normalise():
    embeddings, labels = random_embeddings(12), torch.arange(12) // 3
    small, large = batch_statistics(embeddings, labels), batch_statistics(1000 * embeddings, labels)
    assert small.as_dict() == pytest.approx(large.as_dict())


def test_statistics_are_the_same_under_autocast():
    embeddings, labels = random_embeddings(12, dtype=torch.float32), torch.arange(12) // 3
    with torch.autocast("cpu", torch.bfloat16):
        assert batch_statistics(embeddings, labels) == batch_statistics(embeddings, labels)
        inside = batch_statistics(embeddings, labels)
    assert inside == batch_statistics(embeddings, labels)


def test_statistics_are_frozen_and_checked():
    with pytest.raises(AttributeError):
        BatchStatistics(num_images=0, num_identities=0, num_anchors_without_partner=0).num_images = 1
    with pytest.raises(DataError, match="labels have shape"):
        batch_statistics(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))


# --- arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 0.5, 1e30])
def test_numbers_in_range_pass(value):
    check_number("sigma", value)


@pytest.mark.parametrize("value", [-1, 2, math.nan, math.inf, "1", None, True])
def test_numbers_out_of_range_are_named(value):
    with pytest.raises(ConfigError) as error:
        check_number("sigma", value, high=2.0, also=", or nothing")
    assert str(error.value) == (
        f"sigma is {value!r}; expected a finite number of at least 0 and below 2, or nothing"
    )


@pytest.mark.parametrize("check", [check_number, check_positive])
def test_whole_numbers_beyond_all_floats_are_no_numbers_for_a_loss(check):
    for value in (10**400, 10**5000):
        with pytest.raises(ConfigError, match="expected a finite number") as error:
            check("sigma", value)
        assert len(str(error.value)) < 200


def test_positive_numbers_are_above_zero():
    check_positive("sigma", 1e-9)
    for value in (0, -1.0, math.inf, math.nan, "1", True):
        with pytest.raises(
            ConfigError, match=rf"sigma is {value!r}; expected a finite number greater than 0"
        ):
            check_positive("sigma", value)


@pytest.mark.parametrize("value", [0, -3, 1.0, "2", True])
def test_counts_are_whole_and_positive(value):
    check_count("num_neighbors", 1)
    with pytest.raises(ConfigError, match=f"num_neighbors is {value!r}; expected an integer of at least 1"):
        check_count("num_neighbors", value)
