"""A page a loss, with its picture, whose snippets run and whose figures are those of the code."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import torch

from reidkit import config, registry
from reidkit.training.objective import Objective, check_objectives

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "losses"
PICTURES = sorted((PAGES / "images").glob("*.png"))
LOSSES = registry.names("loss")
PAIR_LOSSES = [
    name
    for name in LOSSES
    if registry.get("loss", name).reads == "metric" and not hasattr(registry.get("loss", name), "fill")
]
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def script():
    found = importlib.util.spec_from_file_location("make_loss_pages", ROOT / "docs" / "make_loss_pages.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build_model():
    models = {}

    def build(name, options):
        if name not in models:
            models[name] = registry.build("model", name, options)
        return models[name]

    return build


def text_of(page):
    return (PAGES / f"{page}.md").read_text("utf-8")


def snippet(page, language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    return found


def links(page):
    return re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(page))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_a_page_with_its_picture_and_is_in_the_decision_table(name):
    assert text_of(name).startswith("# ")
    assert f"images/{name}.png" in links(name)
    assert (PAGES / "images" / f"{name}.png").exists()
    decisions = text_of("README").partition("## Reading the pictures")[0]
    assert f"]({name}.md)" in decisions


@pytest.mark.parametrize("name", [name for name in LOSSES if registry.get("loss", name).reads != "weight"])
def test_every_loss_of_embeddings_has_a_trajectory(name):
    assert f"images/{name}-trajectory.png" in links("README")


@pytest.mark.parametrize("page", ["README", *LOSSES])
def test_links_lead_somewhere(page):
    for target in links(page):
        assert target.startswith("https:") or (PAGES / target).exists(), target


def test_every_picture_is_shown_and_small():
    shown = {PAGES / target for page in ("README", *LOSSES) for target in links(page)}
    assert set(PICTURES) <= shown
    assert max(picture.stat().st_size for picture in PICTURES) < 60_000
    assert sum(picture.stat().st_size for picture in PICTURES) < 1_000_000


@pytest.mark.parametrize("page", ["README", *LOSSES])
def test_what_the_script_writes_is_up_to_date(page, script):
    text = text_of(page)
    fresh = script.with_blocks(text, script.blocks(page))
    advise = "; run python docs/make_loss_pages.py"
    assert NUMBER.sub("#", fresh) == NUMBER.sub("#", text), page + advise
    # The last digit, or the step at which a loss reaches 0, may differ on another processor.
    written, computed = ([float(n) for n in NUMBER.findall(each)] for each in (text, fresh))
    assert written == pytest.approx(computed, abs=0.011, rel=0.03), page + advise


def test_a_page_without_its_marks_is_refused(script):
    with pytest.raises(ValueError, match="no <!-- options"):
        script.with_blocks("# Page\n", {"options": "table"})


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_pairs_drawn_are_the_gradient_of_the_images(name, script):
    loss, (embeddings, labels) = script.toy_loss(name), script.toy_batch()
    gradients = script.pair_gradients(loss, embeddings, labels)
    summed = torch.zeros_like(embeddings)
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i != j:
                difference = embeddings[i] - embeddings[j]
                summed[i] += gradients[i, j] * difference / difference.norm()
    torch.testing.assert_close(summed, script.image_gradients(loss, embeddings, labels), rtol=1e-5, atol=1e-7)
    assert gradients.abs().max() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_recipe_is_accepted_and_names_the_loss(name, build_model):
    tree = tomllib.loads(snippet(name, "toml"))
    model_table = tree.setdefault("model", {"name": "resnet18", "pretrained": False})
    parsed = config.parse(tree)
    config.check_components(parsed)
    assert name in {loss.kind for loss in parsed.loss.values()}
    objectives = [
        Objective(registry.build("loss", table.kind, table.options), table.weight, table.feature, name=key)
        for key, table in parsed.loss.items()
    ]
    model = build_model(model_table["name"], parsed.model.options)
    check_objectives(objectives, model, num_epochs=1)


@pytest.mark.parametrize("name", LOSSES)
def test_python_runs_and_learns(name):
    names = {}
    torch.manual_seed(0)
    exec(snippet(name, "python"), names)  # the page is ours
    assert type(names["loss"]) is registry.get("loss", name)
    learned = names["embeddings"] if "embeddings" in names else names["layer"].weight
    assert learned.grad.abs().max() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_formulas_survive_markdown(name):
    """Markdown eats a backslash before punctuation, also within $$ on some sites."""
    text = text_of(name)
    formulas = re.findall(r"^\$\$\n(.*?)\n\$\$$", text, re.MULTILINE | re.DOTALL)
    assert formulas
    for formula in [*formulas, *re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", text)]:
        assert not re.search(r"\\[^A-Za-z]", formula), formula
        assert formula.count("{") == formula.count("}"), formula
