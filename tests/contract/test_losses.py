"""What every registered loss must meet, whatever it computes."""

from __future__ import annotations

import copy
import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

import reidkit.losses
from reidkit import registry
from reidkit.errors import ConfigError, DataError, UnknownName
from reidkit.losses.sn import separation
from reidkit.losses.sparsity import share_of_small_groups
from reidkit.ops import batch_statistics, normalized, pairwise_distances, positive_mask
from tests.reference_losses import (
    BATCH_LOSSES,
    CASES,
    VARIANTS,
    WEIGHT_LOSSES,
    build,
    case_name,
    distance_table,
    reference_of,
    sn_terms,
    trihard_terms,
)

NUM_IDENTITIES, DIM = 6, 5

every_loss = pytest.mark.parametrize("name", BATCH_LOSSES)
METRIC_LOSSES = [
    name
    for name in BATCH_LOSSES
    if registry.get("loss", name).reads == "metric" and not hasattr(registry.get("loss", name), "fill")
]
every_metric_loss = pytest.mark.parametrize("name", METRIC_LOSSES)
every_case = pytest.mark.parametrize("case", CASES, ids=case_name)

HISTOGRAMS = {
    "balanced": [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3],
    "ragged": [3, 0, 0, 1, 3, 2, 2, 3, 3, 5],
    "two identities": [1, 1, 0, 0, 0],
    "pair and singletons": [4, 0, 4, 2, 1],
    "singletons": [0, 1, 2, 3, 4],
    "one identity": [2, 2, 2, 2],
    "one of each": [0, 1],
    "one image": [1],
    "empty": [],
}


def make(case_or_name: tuple | str) -> nn.Module:
    case = (case_or_name, {}) if isinstance(case_or_name, str) else case_or_name
    return build(case, num_identities=NUM_IDENTITIES, dim=DIM)


def random_batch(labels: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(labels), DIM, generator=generator, dtype=torch.float64)
    return embeddings.requires_grad_(), torch.tensor(labels, dtype=torch.int64)


def value_and_gradients(loss, embeddings: Tensor, labels: Tensor, owner: nn.Module | None = None):
    """The loss, its gradient for the embeddings and for the parameters of the loss."""
    inputs = [embeddings, *(owner or loss).parameters()]
    value = loss(embeddings, labels)
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    pairs = zip(gradients, inputs, strict=True)
    return value.detach(), [torch.zeros_like(x) if g is None else g for g, x in pairs]


def assert_close(actual, expected, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# --- values and gradients ------------------------------------------------------------------------------


def check_against_reference(case, embeddings: Tensor, labels: Tensor, *, gradients: bool = True) -> None:
    loss = make(case).double()
    reference = reference_of(case[0])
    value, found = value_and_gradients(loss, embeddings, labels)
    expected, wanted = value_and_gradients(lambda f, y: reference(loss, f, y), embeddings, labels, loss)
    assert value.shape == ()
    assert_close(value, expected)
    if gradients:
        assert_close(found, wanted)


@every_case
@pytest.mark.parametrize("labels", HISTOGRAMS.values(), ids=HISTOGRAMS)
def test_equals_its_loop_reference(case, labels):
    check_against_reference(case, *random_batch(labels))


@every_case
@settings(max_examples=15, deadline=None, derandomize=True)
@given(labels=st.lists(st.integers(0, NUM_IDENTITIES - 1), max_size=11), seed=st.integers(0, 10**6))
def test_equals_its_loop_reference_on_any_histogram(case, labels, seed):
    check_against_reference(case, *random_batch(labels, seed))


@every_case
@pytest.mark.parametrize("kind", ["duplicates", "all equal", "all zero", "one zero"])
def test_values_equal_the_reference_at_ties(case, kind):
    embeddings, labels = degenerate_batch(kind)
    check_against_reference(case, embeddings.double().requires_grad_(), labels, gradients=False)


# The gradient of a loss with constant weights is not that of its value.
every_case_without_constants = pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if not case[1].get("detach_weights")
        and not getattr(registry.get("loss", case[0]), "has_constant_weights", False)
    ],
    ids=case_name,
)


@every_case_without_constants
def test_gradients_are_those_of_the_value(case):
    loss = make(case).double()
    embeddings, labels = random_batch(HISTOGRAMS["ragged"], seed=3)
    assert loss(embeddings, labels) > 0
    # gradcheck moves the parameters in place, so the loss sees them without being told.
    inputs = (embeddings, *loss.parameters())
    assert torch.autograd.gradcheck(lambda f, *_: loss(f, labels), inputs)


@every_case_without_constants
def test_second_derivatives_are_those_of_the_gradient(case):
    loss = make(case).double()
    embeddings, labels = random_batch([0, 0, 1, 1, 2, 0], seed=3)
    inputs = (embeddings, *loss.parameters())
    assert torch.autograd.gradgradcheck(lambda f, *_: loss(f, labels), inputs)


@every_case
def test_second_derivatives_are_those_of_the_reference(case):
    """Constant weights, which the test above leaves out, are constants here and there."""
    loss, (embeddings, labels) = make(case).double(), random_batch([0, 0, 1, 1, 2, 0], seed=3)
    reference = reference_of(case[0])

    def gradients_of_the_slope(loss_of_batch):
        value = loss_of_batch(embeddings, labels)
        (gradient,) = torch.autograd.grad(value, embeddings, create_graph=True)
        inputs = [embeddings, *loss.parameters()]
        return torch.autograd.grad(gradient.square().sum(), inputs, materialize_grads=True)

    expected = gradients_of_the_slope(lambda f, y: reference(loss, f, y))
    assert_close(gradients_of_the_slope(loss), expected, tolerance=1e-7)


@every_case
@pytest.mark.parametrize("num_images", [10, 200])  # of many images, few partners are summed in bags
def test_goes_backwards_for_several_gradients_at_once(case, num_images):
    loss, (embeddings, labels) = make(case).double(), random_batch([i % 5 for i in range(num_images)])
    value = loss(embeddings, labels)
    (both,) = torch.autograd.grad(
        value,
        embeddings,
        torch.tensor([1.0, -2.0], dtype=value.dtype),
        is_grads_batched=True,
        retain_graph=True,
    )
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert_close(both, torch.stack((gradient, -2 * gradient)))


@every_case
def test_goes_with_the_transforms_of_torch_func(case):
    loss = make(case).double()
    batches = torch.stack([random_batch(HISTOGRAMS["ragged"], seed)[0].detach() for seed in range(3)])
    labels = torch.tensor(HISTOGRAMS["ragged"])

    def value(embeddings):
        return loss(embeddings, labels)

    expected = [value_and_gradients(loss, f.clone().requires_grad_(), labels) for f in batches]
    assert_close(torch.vmap(value)(batches), torch.stack([found for found, _ in expected]))
    gradients = torch.vmap(torch.func.grad(value))(batches)
    assert_close(gradients, torch.stack([of_embeddings for _, (of_embeddings, *_) in expected]))


@every_case
def test_goes_forwards_as_it_goes_backwards(case):
    """The derivative along a direction, by torch.func.jvp and by forward_ad itself."""
    loss = make(case).double()
    embeddings, labels = random_batch(HISTOGRAMS["ragged"])
    direction = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    _, (gradient, *_) = value_and_gradients(loss, embeddings, labels)
    embeddings = embeddings.detach()
    _, along = torch.func.jvp(lambda f: loss(f, labels), (embeddings,), (direction,))
    assert_close(along, (gradient * direction).sum())
    with forward_ad.dual_level():
        dual = loss(forward_ad.make_dual(embeddings, direction), labels)
        assert_close(forward_ad.unpack_dual(dual).tangent, (gradient * direction).sum())


@every_case
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_has_its_value_where_no_gradient_is_wanted(case, mode):
    loss = make(case).double()
    embeddings, labels = random_batch(HISTOGRAMS["ragged"])
    with mode():
        value = loss(embeddings.detach().clone(), labels)
    assert not value.requires_grad
    assert_close(value, loss(embeddings, labels).detach())


@every_metric_loss
def test_asks_for_no_gradient_where_nothing_does(name):
    loss = make(name).requires_grad_(False)
    embeddings, labels = random_batch(HISTOGRAMS["balanced"])
    assert not loss(embeddings.detach(), labels).requires_grad


@every_case
def test_order_of_the_batch_does_not_matter(case):
    loss = make(case).double()
    embeddings, labels = random_batch(HISTOGRAMS["ragged"], seed=5)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    value, (gradient, *_) = value_and_gradients(loss, embeddings, labels)
    shuffled, (shuffled_gradient, *_) = value_and_gradients(loss, embeddings[order], labels[order])
    assert_close(shuffled, value)
    assert_close(shuffled_gradient, gradient[order])


@every_metric_loss
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
def test_only_equality_of_labels_matters(name, dtype):
    embeddings, labels = random_batch(HISTOGRAMS["ragged"])
    renamed = torch.tensor([-7, 3000, 12, 5, 0, 99], dtype=dtype)[labels]
    loss = make(name).double()
    assert loss(embeddings, renamed) == loss(embeddings, labels)


@every_loss
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_labels_may_be_integers_that_pytorch_does_not_sort(name, dtype):
    embeddings, labels = random_batch(HISTOGRAMS["ragged"])
    loss = make(name).double()
    assert_close(loss(embeddings, labels.to(dtype)), loss(embeddings, labels))


@every_metric_loss
def test_normalisation_makes_scale_irrelevant(name):
    embeddings, labels = random_batch(HISTOGRAMS["balanced"])
    loss = make(name).double()
    assert_close(loss(1000 * embeddings, labels), loss(embeddings, labels))


@every_metric_loss
@pytest.mark.parametrize("size", [1e20, 1e37])
def test_embeddings_of_any_size_are_normalised_or_refused(name, size):
    embeddings, labels = random_batch(HISTOGRAMS["balanced"])
    small = embeddings.detach().float() / embeddings.detach().abs().max()
    assert_close(make(name)(size * small, labels), make(name)(small, labels), tolerance=1e-3)
    with pytest.raises(DataError, match=f"values of {size:.3g}".replace("+", r"\+") + ".* squares overflow"):
        make((name, {"normalize": False}))(size * small, labels)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_are_finite_or_refused_at_any_size(name, dtype):
    embeddings, labels = random_batch(HISTOGRAMS["balanced"])
    large = (embeddings.detach() / embeddings.detach().abs().max() * torch.finfo(dtype).max).to(dtype)
    options = {"normalize": False} if name in METRIC_LOSSES else {}
    for case in [(name, {}), (name, options)]:
        loss = make(case).to(dtype)
        if getattr(loss, "normalize", False):
            assert loss(large, labels).isfinite()
        else:
            with pytest.raises(DataError, match="squares overflow; scale them below"):
                loss(large, labels)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_empty_batch_gives_zero_with_a_graph(name, dtype):
    embeddings = torch.zeros(0, DIM, dtype=dtype, requires_grad=True)
    value = make(name)(embeddings, torch.zeros(0, dtype=torch.int64))
    assert value.item() == 0
    value.backward()
    assert embeddings.grad.shape == (0, DIM)


@every_metric_loss
def test_a_single_image_gives_zero_with_a_graph(name):
    embeddings = torch.randn(1, DIM, requires_grad=True)
    value = make(name)(embeddings, torch.tensor([3]))
    value.backward()
    assert value.item() == 0
    assert embeddings.grad.eq(0).all()


# --- finite everywhere ---------------------------------------------------------------------------------

DEGENERATE = [
    *("duplicates", "all equal", "all zero", "one zero", "norms x 1000", "norms / 1000"),
    *("singletons", "one identity", "one identity duplicated", "one image", "empty"),
]


def degenerate_batch(kind: str) -> tuple[Tensor, Tensor]:
    histogram = {
        "singletons": HISTOGRAMS["singletons"],
        "one identity": HISTOGRAMS["one identity"],
        "one identity duplicated": HISTOGRAMS["one identity"],
        "one image": HISTOGRAMS["one image"],
        "empty": [],
    }.get(kind, HISTOGRAMS["ragged"])
    embeddings, labels = random_batch(histogram)
    embeddings = embeddings.detach().float()
    if kind == "duplicates":
        embeddings[1::2] = embeddings[0::2]  # across identities and within one
    elif kind in ("all equal", "one identity duplicated"):
        embeddings[:] = embeddings[0].clone()
    elif kind == "all zero":
        embeddings[:] = 0
    elif kind == "one zero":
        embeddings[2] = 0
    elif kind == "norms x 1000":
        embeddings *= 1000
    elif kind == "norms / 1000":
        embeddings /= 1000
    return embeddings, labels


@every_case
@pytest.mark.parametrize("kind", DEGENERATE)
def test_values_and_gradients_are_finite_in_every_precision(case, kind):
    loss, (batch, labels) = make(case), degenerate_batch(kind)
    for precision in ("float32", "bfloat16", "float16", "autocast"):
        dtype = torch.float32 if precision == "autocast" else getattr(torch, precision)
        embeddings = batch.to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            value, gradients = value_and_gradients(loss, embeddings, labels)
        assert value.dtype == torch.float32, f"{precision}: the loss is {value.dtype}"
        assert math.isfinite(value), f"{precision}: the loss is {value}"
        assert gradients[0].dtype == dtype, f"{precision}: gradients are {gradients[0].dtype}"
        finite = [bool(gradient.isfinite().all()) for gradient in gradients]
        assert all(finite), f"{precision}: gradients are {gradients}"


@every_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(case, dtype):
    embeddings, labels = random_batch(HISTOGRAMS["ragged"])
    embeddings, loss = embeddings.detach().to(dtype), make(case)
    expected = loss(embeddings.float(), labels)
    assert expected.dtype == torch.float32
    assert loss(embeddings, labels).equal(expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(embeddings, labels).equal(expected)
        assert loss(embeddings.float(), labels).equal(expected)


@every_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_its_own_parameters_does_not_matter(case, dtype):
    embeddings, labels = random_batch(HISTOGRAMS["ragged"])
    loss = make(case).to(dtype)
    assert loss(embeddings.float(), labels).dtype == torch.float32
    assert loss(embeddings, labels).dtype == torch.float64


# --- manners -------------------------------------------------------------------------------------------


@every_case
def test_holds_no_state_about_past_calls(case):
    loss = make(case)
    before = copy.deepcopy(loss.state_dict())
    embeddings, labels = random_batch(HISTOGRAMS["balanced"])
    first = loss(embeddings, labels)
    loss(*random_batch(HISTOGRAMS["ragged"], seed=9))
    assert loss(embeddings, labels).equal(first)
    assert loss.state_dict().keys() == before.keys()
    assert all(loss.state_dict()[key].equal(value) for key, value in before.items())
    assert not list(loss.buffers())


def graph_of(case: tuple) -> tuple:
    """What decides the graph: numbers are constants in it, and normalisation is the same for all losses."""
    name, options = case
    others = {key: value for key, value in options.items() if type(value) not in (int, float)}
    return name, *sorted((key, str(value)) for key, value in others.items() if key != "normalize")


ONE_OF_EACH_GRAPH = list({graph_of(case): case for case in reversed(CASES)}.values())


@pytest.mark.parametrize("case", [*ONE_OF_EACH_GRAPH, ("msml", {"normalize": False})], ids=case_name)
def test_compiles_into_one_graph(case):
    torch._dynamo.reset()
    loss = make(case)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for histogram in ("balanced", "ragged"):  # two lengths of the batch
        embeddings, labels = random_batch(HISTOGRAMS[histogram])
        embeddings = embeddings.detach().float().requires_grad_()
        expected = value_and_gradients(loss, embeddings, labels)
        assert_close(value_and_gradients(compiled, embeddings, labels, loss), expected, tolerance=1e-6)


@every_loss
@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.zeros(4, DIM), torch.zeros(3, dtype=torch.int64), r"labels have shape \(3,\).* 4 embeddings"),
        (torch.zeros(4, DIM), torch.zeros(4, 1, dtype=torch.int64), r"labels have shape \(4, 1\)"),
        (torch.zeros(4, DIM), torch.zeros(4), "labels have type torch.float32; expected integers"),
        (torch.zeros(4, DIM), torch.zeros(4, dtype=torch.bool), "labels have type torch.bool"),
        (torch.zeros(4, DIM), [0, 0, 1, 1], "labels are a list; expected a tensor"),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), r"embeddings have shape \(4,\)"),
        (torch.zeros(2, 2, DIM), torch.zeros(2, dtype=torch.int64), r"embeddings have shape \(2, 2, 5\)"),
        (torch.zeros(4, DIM, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), "type torch.int64"),
        (torch.tensor([[0.0] * DIM, [math.nan] * DIM]), torch.tensor([0, 1]), "NaN or infinity.* row 1"),
        (torch.full((2, DIM), math.inf), torch.tensor([0, 1]), "NaN or infinity.* row 0"),
    ],
)
def test_says_what_is_wrong_with_a_batch(name, embeddings, labels, message):
    with pytest.raises(DataError, match=message):
        make(name)(embeddings, labels)


@every_loss
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.3", True])
def test_says_what_is_wrong_with_a_margin(name, value):
    parameters = inspect.signature(registry.get("loss", name)).parameters
    for margin in [p for p in parameters if p.endswith("margin")]:
        with pytest.raises(ConfigError, match=rf"{margin} is {value!r}; expected a finite number"):
            registry.build("loss", name, {margin: value})


@every_case
def test_repr_shows_every_option_and_builds_the_same_loss(case):
    name, options = case
    factory = registry.get("loss", name)
    loss = make(case)
    again = eval(f"factory({loss.extra_repr()})", {"factory": factory})
    assert again.extra_repr() == loss.extra_repr()
    for option in inspect.signature(factory).parameters:
        assert f"{option}={getattr(loss, option)!r}" in loss.extra_repr()
    assert all(getattr(loss, option) == value for option, value in options.items())


@pytest.mark.parametrize("name", registry.names("loss"))
def test_is_documented_as_a_decision(name):
    text = inspect.getdoc(registry.get("loss", name))
    for part in ("L = ", "Use with:", "Pitfalls:", "See also:", "Args:", "Shapes:", "Raises:", ">>> "):
        assert part in text, f"the docstring of {name} has no {part!r}"


@every_metric_loss
def test_metric_losses_normalise_unless_told_otherwise(name):
    assert registry.defaults(registry.get("loss", name))["normalize"] is True


@pytest.mark.parametrize("name", registry.names("loss"))
def test_is_exported(name):
    factory = registry.get("loss", name)
    assert getattr(reidkit.losses, factory.__name__) is factory
    assert factory.__name__ in reidkit.losses.__all__
    assert isinstance(factory.reads, str)


# --- what single losses promise ------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=12),
    seed=st.integers(0, 10**6),
    margin=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_msml_is_at_least_every_trihard_term(labels, seed, margin):
    embeddings, labels = random_batch(labels, seed)
    msml, trihard = make(("msml", {"margin": margin})), make(("trihard", {"margin": margin}))
    terms = trihard_terms(trihard, embeddings, labels)
    assert all(msml(embeddings, labels) >= term - 1e-12 for term in terms)
    # The same holds to the last bit in float32, near-duplicates included.
    near = (embeddings[:1] + 1e-4 * embeddings).detach().float()
    assert msml(near, labels) >= trihard(near, labels) - 1e-7


@pytest.mark.parametrize("name", ["trihard", "msml", "sn"])
def test_chosen_distances_are_exact_where_the_product_form_is_not(name):
    """Every image twice, in float32: positives are at distance 0, of which the product makes up to 1e-3."""
    images = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    embeddings, labels = normalized(images.repeat(2, 1)), torch.arange(16).repeat(2)
    assert pairwise_distances(embeddings)[positive_mask(labels)].max() > 1e-4
    loss = make((name, {} if name == "sn" else {"margin": 2.0}))
    exact = reference_of(name)(loss, embeddings.double(), labels)
    assert loss(embeddings, labels).item() == pytest.approx(exact.item(), abs=2e-6)


def test_a_recipe_can_ask_for_the_soft_margin():
    assert registry.build("loss", "trihard", {"margin": "soft"}).margin is None


@pytest.mark.parametrize("name", ["trihard", "msml", "triplet", "quadruplet", "p2s", "hap2s", "sn"])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0]])
def test_no_usable_anchor_gives_zero_and_zero_gradients(name, labels):
    value, (gradient,) = value_and_gradients(make(name), *random_batch(labels))
    assert value == 0
    assert gradient.eq(0).all()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_smooth_msml_is_msml_at_low_temperatures_and_compares_means_at_high_ones(kind):
    embeddings, labels = random_batch(HISTOGRAMS["ragged"], seed=1)
    embeddings = embeddings.detach().to(kind)
    distances = pairwise_distances(normalized(embeddings))
    near, far = distances[positive_mask(labels)], distances[labels[:, None] != labels]
    # Of the series in 1 / t, the first two terms.
    means = near.mean() - far.mean() + (near.var(correction=0) + far.var(correction=0)) / (2 * 9.9)
    cold, warm = (make(("msml", {"temperature": t, "margin": 1.0})) for t in (1e-6, 9.9))
    hardest = make(("msml", {"margin": 1.0}))
    assert_close(cold(embeddings, labels), hardest(embeddings, labels), tolerance=1e-4)
    assert_close(warm(embeddings, labels), means + 1, tolerance=2e-4)


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 0.1, 3.0, 9.9])
def test_a_smooth_msml_is_as_good_in_float32(temperature):
    embeddings, labels = random_batch([i % 16 for i in range(64)])
    loss = make(("msml", {"temperature": temperature, "margin": 1.0}))
    found, exact = loss(embeddings.float(), labels).item(), loss(embeddings, labels).item()
    assert found == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(
    ("temperature", "told"),
    [(1e-30, "1e-06 or more, or 0"), (1e6, "at least 0 and below 10; 0 for"), (10**400, "below 10")],
)
def test_a_smooth_msml_has_no_temperature_at_which_it_would_be_wrong(temperature, told):
    """At 1e6 a mean of float32 distances is off by two hundredths, at 1e39 it is NaN."""
    with pytest.raises(ConfigError, match=told):
        make(("msml", {"temperature": temperature}))


def test_msml_shares_the_gradient_at_ties():
    """Two negative pairs at one distance: each carries half, so order does not decide."""
    embeddings = torch.tensor([[0.0], [-3.0], [1.0], [-4.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1, 2])
    value, (gradient,) = value_and_gradients(
        make(("msml", {"margin": 0.0, "normalize": False})), embeddings, labels
    )
    assert value == 2  # |0 + 3| - 1
    assert gradient.flatten().tolist() == [1 + 0.5, -1 - 0.5, -0.5, 0.5]


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"sigma": 1e-4}, "trihard"),
        ({"weighting": "polynomial", "alpha": 1e6}, "trihard"),
        ({"sigma": 1e12}, "p2s"),
        ({"weighting": "polynomial", "alpha": 0.0}, "p2s"),
    ],
)
@pytest.mark.parametrize("labels", [HISTOGRAMS["balanced"], HISTOGRAMS["ragged"]])
def test_hap2s_lies_between_its_limits(options, limit, labels):
    embeddings, labels = random_batch(labels)
    found = value_and_gradients(make(("hap2s", {"margin": 1.0, **options})), embeddings, labels)
    expected = value_and_gradients(make((limit, {"margin": 1.0})), embeddings, labels)
    assert_close(found, expected, tolerance=1e-7)


def test_hap2s_says_what_is_wrong_with_its_options():
    for option, value in [("sigma", 0.0), ("sigma", -1.0), ("sigma", math.nan)]:
        with pytest.raises(ConfigError, match=f"{option} is {value!r}; expected a finite number greater"):
            registry.build("loss", "hap2s", {option: value})
    with pytest.raises(ConfigError, match="alpha is -1"):
        registry.build("loss", "hap2s", {"alpha": -1})
    with pytest.raises(UnknownName, match="weighting 'exponental'; did you mean 'exponential'"):
        registry.build("loss", "hap2s", {"weighting": "exponental"})


def test_sn_separation_does_not_change_when_all_distances_grow_alike():
    embeddings, labels = random_batch(HISTOGRAMS["balanced"])
    loss = make(("sn", {"num_neighbors": 4, "squeeze_weight": 0.0}))
    table = distance_table(loss, embeddings)
    shifted = [[d + 0.7 for d in row] for row in table]
    for (before, _), (after, _) in zip(
        sn_terms(loss, table, labels.tolist()), sn_terms(loss, shifted, labels.tolist()), strict=True
    ):
        assert_close(after, before)
    distances = torch.rand(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positive, negative = distances < 0.4, distances > 0.6
    positive[:, 0], negative[:, 0] = True, False
    assert_close(
        separation(distances + 0.7, positive, negative, scale=50.0),
        separation(distances, positive, negative, scale=50.0),
    )


def test_sn_says_what_is_wrong_with_its_options():
    for options, message in [
        ({"num_neighbors": 0}, "num_neighbors is 0; expected an integer of at least 1"),
        ({"scale": 0.0}, "scale is 0.0; expected a finite number greater than 0"),
        ({"squeeze_weight": -1.0}, "squeeze_weight is -1.0"),
    ]:
        with pytest.raises(ConfigError, match=message):
            registry.build("loss", "sn", options)
    with pytest.raises(UnknownName, match="squeeze 'rang'; did you mean 'range'"):
        registry.build("loss", "sn", {"squeeze": "rang"})
    with pytest.raises(UnknownName, match="ties 'included'; did you mean 'include'"):
        registry.build("loss", "sn", {"ties": "included"})


def test_sn_at_collapse_is_0_unless_ties_count():
    """Three images of each of four identities on one point."""
    embeddings, labels = torch.ones(12, 8), torch.arange(12) // 3
    assert make(("sn", {"num_neighbors": 4}))(embeddings, labels).item() == pytest.approx(0, abs=1e-4)
    assert make(("sn", {"num_neighbors": 4, "ties": "include"}))(embeddings, labels).item() > 0.1
    assert batch_statistics(embeddings, labels, margin=None).collapsed


def test_two_identities_have_triplets_and_no_quadruplets():
    embeddings, labels = random_batch(HISTOGRAMS["two identities"])
    quadruplets, triplets = make(("quadruplet", {"margin": 1.0})), make(("triplet", {"margin": 1.0}))
    assert_close(
        value_and_gradients(quadruplets, embeddings, labels),
        value_and_gradients(triplets, embeddings, labels),
    )


def test_verification_learns_its_threshold():
    """Positives at distance 1, negatives at distance 2: the decision moves between their squares."""
    embeddings = torch.tensor([[0.0], [1.0], [3.0], [4.0]])
    labels, loss = torch.tensor([0, 0, 1, 1]), reidkit.losses.VerificationLoss(normalize=False)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss(embeddings, labels).backward()
        optimizer.step()
    assert 1 < (loss.offset / loss.scale).item() < 4
    assert loss(embeddings, labels) < 0.1


# --- losses of a layer's weights -----------------------------------------------------------------------

every_weight_case = pytest.mark.parametrize(
    "case", [(name, o) for name in WEIGHT_LOSSES for o in [{}, *VARIANTS.get(name, [])]], ids=case_name
)


@every_weight_case
@pytest.mark.parametrize("kind", ["random", "zero", "a column of zeros", "huge"])
def test_weight_losses_equal_their_loop_reference(case, kind):
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = {"random": weight, "zero": weight * 0, "huge": weight * 1e3}.get(kind, weight)
    if kind == "a column of zeros":
        weight[:, 3] = 0
    weight.requires_grad_()
    loss = registry.build("loss", *case)
    value = loss(weight)
    gradients = torch.autograd.grad(value, weight)
    expected = reference_of(case[0])(loss, weight)
    assert_close(value, expected)
    if kind == "random":
        assert_close(gradients, torch.autograd.grad(expected, weight))
    assert gradients[0].isfinite().all()


@every_weight_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weight_losses_are_float32_or_more_and_finite(case, dtype):
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    loss = registry.build("loss", *case)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(weight)
    assert value.dtype == torch.float32
    assert_close(value, loss(weight.detach().float()))
    value.backward()
    assert weight.grad.isfinite().all()


@every_weight_case
def test_weight_losses_have_second_derivatives_and_go_with_torch_func(case):
    loss = registry.build("loss", *case)
    weights = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradgradcheck(loss, weights[0].clone().requires_grad_())
    found = torch.vmap(torch.func.grad(loss))(weights)
    single = [torch.autograd.grad(loss(w), w)[0] for w in map(Tensor.requires_grad_, weights.unbind())]
    assert_close(found, torch.stack(single))
    assert torch.func.hessian(loss)(0 * weights[0]).isfinite().all()


@every_weight_case
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_weight_losses_say_where_weights_are_not_finite(case, value):
    with pytest.raises(DataError, match="the weights hold NaN, infinity or values whose squares overflow"):
        registry.build("loss", *case)(torch.full((4, 6), value))


@every_weight_case
def test_weight_losses_show_their_options_and_compile(case):
    loss, factory = registry.build("loss", *case), registry.get("loss", case[0])
    again = eval(f"factory({loss.extra_repr()})", {"factory": factory})
    assert again.extra_repr() == loss.extra_repr()
    assert not list(loss.parameters()) + list(loss.buffers())
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    assert_close(torch.compile(loss, fullgraph=True, backend="aot_eager")(weight), loss(weight), 1e-6)


def test_sparsity_by_hand():
    weight = torch.tensor([[3.0, 0.0, 1.0, -1.0], [4.0, 0.0, 0.0, 2.0]])
    # Columns of length 5, 0, 1 and root 5.
    assert reidkit.losses.StructuredSparsity("l21")(weight).item() == pytest.approx(6 + 5**0.5, abs=1e-5)
    # Stripes of absolute sum 3, 2 and 4, 2.
    assert reidkit.losses.StructuredSparsity("l12", groups=2)(weight).item() == 9 + 4 + 16 + 4
    assert share_of_small_groups(weight, norm="l21") == 0.25
    weight[0, :2] = 0
    assert share_of_small_groups(weight, norm="l12", groups=2) == 0.25


def test_sparsity_says_what_is_wrong():
    loss = reidkit.losses.StructuredSparsity("l12", groups=4)
    with pytest.raises(DataError, match="10 inputs cannot be cut into 4 equal stripes"):
        loss(torch.zeros(3, 10))
    with pytest.raises(DataError, match=r"shape \(3,\); expected floating-point \(out, in\)"):
        loss(torch.zeros(3))
    with pytest.raises(UnknownName, match="unknown norm 'l2'"):
        reidkit.losses.StructuredSparsity("l2")
    with pytest.raises(ConfigError, match="no trainer has filled it in"):
        reidkit.losses.StructuredSparsity("l12", groups="stripes")(torch.zeros(3, 10))
    with pytest.raises(ConfigError, match="groups is 0"):
        reidkit.losses.StructuredSparsity("l12", groups=0)


def test_identity_loss_waits_for_its_sizes():
    loss = reidkit.losses.IdentityLoss(dim=DIM)
    embeddings, labels = random_batch(HISTOGRAMS["ragged"])
    with pytest.raises(ConfigError, match=r"num_identities None and dim 5; give both, or call fill"):
        loss(embeddings, labels)
    loss.fill(num_identities=NUM_IDENTITIES, dim=DIM)
    assert loss(embeddings, labels).item() == pytest.approx(math.log(NUM_IDENTITIES), abs=0.01)
    weight = loss.classifier.weight
    loss.fill(num_identities=NUM_IDENTITIES, dim=DIM)
    assert loss.classifier.weight is weight
    with pytest.raises(ConfigError, match=r"has num_identities 6, but the data and the model need 7"):
        loss.fill(num_identities=7, dim=DIM)


def test_identity_loss_starts_from_small_weights_and_no_bias():
    loss = reidkit.losses.IdentityLoss(1000, 100, bias=True, init_std=0.02)
    assert loss.classifier.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert loss.classifier.bias.eq(0).all()


def test_identity_loss_drops_out_in_training_only():
    loss = make(("identity", {"dropout": 0.5}))
    embeddings, labels = random_batch(HISTOGRAMS["balanced"])
    torch.manual_seed(0)
    assert loss(embeddings, labels) != loss(embeddings, labels)
    loss.eval()
    assert loss(embeddings, labels) == make("identity")(embeddings, labels)


@pytest.mark.parametrize("label", [-1, NUM_IDENTITIES])
def test_identity_loss_names_the_label_out_of_range(label):
    with pytest.raises(DataError, match=rf"label {label} in row 1 is outside 0\.\.5"):
        make("identity")(torch.zeros(3, DIM), torch.tensor([0, label, 2]))


def test_identity_loss_names_the_wrong_width():
    with pytest.raises(DataError, match="embeddings have 3 values each, but the classifier reads 5"):
        make("identity")(torch.zeros(2, 3), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; .* at least 0 and below 1"),
        ({"dropout": -0.5}, "dropout is -0.5"),
        ({"init_std": math.nan}, "init_std is nan"),
        ({"num_identities": 0}, "num_identities is 0; expected an integer of at least 1, or None"),
        ({"dim": 2.5}, "dim is 2.5"),
    ],
)
def test_identity_loss_says_what_is_wrong_with_its_options(options, message):
    with pytest.raises(ConfigError, match=message):
        reidkit.losses.IdentityLoss(**options)
