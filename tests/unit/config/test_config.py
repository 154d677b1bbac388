import dataclasses
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from reidkit import config
from reidkit.cli import cli
from reidkit.errors import ConfigError, UnknownName
from reidkit.texts.printable import printable


@pytest.mark.parametrize("name", config.recipes())
def test_recipe_is_complete_commented_and_buildable(name):
    recipe = config.load(name)
    config.check_components(recipe)
    body = config.recipe_text(name).partition("\n\n")[2]
    assert body == config.dump(recipe), (
        "the file must hold every key with its comment; write it with config.dump"
    )


@pytest.mark.parametrize("name", config.recipes())
def test_dump_reads_back_to_the_same_tree(name):
    recipe = config.load(name)
    assert config.parse(tomllib.loads(config.dump(recipe))) == recipe
    assert config.parse(tomllib.loads(config.dump(recipe, comments=False))) == recipe


def test_dump_quotes_what_toml_would_misread():
    tree = {"data": {"root": 'a "b"\\c\n', "pattern": "é", "nested": {"a b": [1, 2.5, True]}}}
    parsed = config.parse(tree)
    assert config.parse(tomllib.loads(config.dump(parsed))) == parsed


def test_every_fault_is_reported_at_once_with_its_key():
    with pytest.raises(ConfigError) as error:
        config.load("small-cpu", ["optim.lr=-1", "train.epcohs=3", "sampler.kind='identiy'", "sede=1"])
    problems = error.value.problems
    assert len(problems) == 4
    text = str(error.value)
    assert "optim.lr: input should be greater than 0, not -1" in text
    assert "unknown key 'train.epcohs'; did you mean 'epochs'?" in text
    assert "sampler.kind: input should be 'identity' or 'random', not 'identiy'" in text
    assert "unknown key 'sede'; did you mean 'seed'?" in text


def test_component_options_are_checked_against_constructors_all_at_once():
    overrides = ["model.last_strid=1", "loss.metric.margn=1", "loss.metric.wieght=2", "loss.x.kind='msl'"]
    with pytest.raises(ConfigError) as error:
        config.check_components(config.load("small-cpu", overrides))
    text = str(error.value)
    assert "[model] has no option 'last_strid'; did you mean 'last_stride'?" in text
    assert "[loss.metric] has no option 'margn'; did you mean 'margin'?" in text
    assert "[loss.metric] has no option 'wieght'; did you mean 'weight'?" in text
    assert "[loss.x] unknown loss 'msl'; did you mean 'msml'?" in text


def test_faults_of_keys_and_of_components_are_told_together():
    with pytest.raises(ConfigError) as error:
        config.load("small-cpu", ["train.epoch=2", "loss.metric.weight=-1", "loss.metric.marginn=3"])
    text = str(error.value)
    assert "unknown key 'train.epoch'; did you mean 'epochs'?" in text
    assert "loss.metric.weight: input should be greater than or equal to 0, not -1" in text
    assert "[loss.metric] has no option 'marginn'; did you mean 'margin'?" in text
    assert len(error.value.problems) == 3


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.name=3", "data.split=1"],
        ["model.name=3"],
        ["loss.metric.kind=3"],
        ["loss.metric=3"],
        ["loss=3"],
        ["data=3"],
        ["optim.milestones=[1, 'x']"],
        ["train.trackers=[3]"],
    ],
)
def test_options_of_a_component_that_is_not_named_are_not_faults(overrides):
    with pytest.raises(ConfigError) as error:
        config.load("small-cpu", overrides)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        (["optim.milestones=[40, 70]"], "milestones=[60]"),
        (["optim.milestones=[]"], "milestones=[60]"),
        (["optim.milestones=[20]", "train.epochs=20"], "milestones=[10]"),
        (["optim.milestones=[1]", "train.epochs=1"], "schedule=constant"),
    ],
)
def test_an_exponential_schedule_needs_one_epoch_to_start_from(overrides, advice):
    recipe = config.load("strong-resnet50-market1501", ["optim.schedule=exponential", *overrides])
    with pytest.raises(ConfigError, match=r"optim\.milestones = .* takes one epoch") as error:
        config.check_components(recipe)
    assert advice in str(error.value)
    config.check_components(config.load("strong-resnet50-market1501", overrides))  # other schedules may


def test_overrides_are_toml_values_and_bare_text_is_text():
    got = config.load(
        "small-cpu",
        ["optim.lr=3e-4", "data.root=some/folder", "optim.milestones=[3, 4]", "loss.metric.kind=msml"],
    )
    assert got.optim.lr == 3e-4
    assert got.data.root == "some/folder"
    assert got.optim.milestones == [3, 4]
    assert got.loss["metric"].kind == "msml"
    assert got.loss["metric"].options == {"margin": 0.3}


@pytest.mark.parametrize("override", ["optim.lr", "=3", "optim..lr=3", "seed.x=3"])
def test_bad_overrides_say_what_is_expected(override):
    with pytest.raises(ConfigError, match=r"override '.*"):
        config.load("small-cpu", [override])


def test_an_option_given_twice_is_refused():
    with pytest.raises(
        ConfigError, match=r"'column\.path' is given more than once, as 'a' and 'b'; leave one"
    ):
        config.parse_options(["column.path=a", "column.path=b"])
    assert config.parse_options(["seed=1", "seed=1"]) == {"seed": 1}


def test_a_star_in_an_override_sets_every_table_that_fits():
    changed = config.load("small-jlml", ["loss.sparsity_*.weight=0"])
    weights = {name: loss.weight for name, loss in changed.loss.items()}
    assert weights["sparsity_global"] == weights["sparsity_local"] == 0
    assert weights["identity_global"] == 1
    with pytest.raises(ConfigError, match=r"no table fits 'sparsty_\*'"):
        config.load("small-jlml", ["loss.sparsty_*.weight=0"])


def test_kind_of_a_loss_defaults_to_its_name():
    parsed = config.parse({"loss": {"msml": {"margin": 0.5}}})
    assert parsed.loss["msml"].kind == "msml"
    assert parsed.loss["msml"].options == {"margin": 0.5}


def test_a_file_is_read_and_a_broken_one_named(tmp_path):
    good = tmp_path / "mine.toml"
    good.write_text("seed = 3\n")
    assert config.load(good).seed == 3
    bad = tmp_path / "bad.toml"
    bad.write_text("seed = \n")
    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML"):
        config.load(bad)
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        config.load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="unknown recipe 'smal-cpu'; did you mean 'small-cpu'"):
        config.load("smal-cpu")


def test_a_recipe_is_not_copied_into_a_folder_that_is_not_there(tmp_path):
    result = CliRunner().invoke(cli, ["recipes", "copy", "demo", str(tmp_path / "missing" / "mine.toml")])
    assert isinstance(result.exception, ConfigError)
    assert f"{tmp_path / 'missing'}: no such folder" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=1979-05-27", "seed: 1979-05-27 is a date, which no key takes"),
        ("model.dim=07:32:00", "model.dim: 07:32:00 is a time"),
        ("seed=" + "1" * 5000, "seed: "),
        ("seed=" + "[" * 10_000, "seed: "),
        (".".join(["a"] * 2000) + "=1", "nested too deeply"),
        ("data.root=\udcff", "is not UTF-8"),
        ("transform.height=1000000000", "less than or equal to 4096"),
        ("train.num_workers=1000000", "less than or equal to 1024"),
        ("seed=1e400", "seed: "),
        ("x" * 100_000, "is not of the form key=value"),
        ("model.name=" + "x" * 100_000, "unknown model"),
        ("optim.milestones=[" + "'x'," * 5000 + "]", "and 4,980 more problems"),
    ],
)
def test_odd_overrides_are_told_briefly(override, said):
    with pytest.raises(ConfigError) as error:
        config.check_components(config.load("small-cpu", [override]))
    assert said in str(error.value)
    assert max(map(len, str(error.value).split("\n"))) < 1000


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loss.metric.margin='x'", r"margin is 'x'; expected a finite number"),
        ("loss.metric.margin=[1]", r"margin is \[1\]; expected a finite number"),
        ("loss.metric.margin=inf", r"margin is inf; expected a finite number"),
        ("model.last_stride=true", r"last_stride is True; expected a whole number"),
        ("model.neck={}", r"neck is \{\}; expected a text"),
    ],
)
def test_values_of_options_are_held_against_the_types_that_a_component_says(override, said):
    with pytest.raises(ConfigError, match=said):
        config.check_components(config.load("small-cpu", [override]))


def test_files_that_are_no_utf_8_or_no_files_are_told(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 3")
    assert config.load(path).seed == 3
    path.write_bytes("seed = 3".encode("utf-16"))
    with pytest.raises(ConfigError, match="UTF-16"):
        config.load(path)
    for name, said in {
        tmp_path: "is a folder",
        "x" * 5000: "File name too long",
        tmp_path / "no.toml": "no such",
    }.items():
        with pytest.raises(ConfigError, match=said):
            config.load(name)


def test_dump_shows_what_would_hide_and_reads_back():
    texts = ["a\u202eb", "\x7f\x9b", "\u2028", "José 李 😀", "\U000e0041", 'a"\\\n\t']
    parsed = config.parse(
        {"data": {"root": "".join(texts), "😀 \u202e": texts}, "loss": {"😀": {"kind": "msml"}}}
    )
    text = config.dump(parsed)
    assert printable(text, keep="\n\t") == text
    assert "José 李 😀" in text
    assert config.parse(tomllib.loads(text)) == parsed


def test_many_names_are_not_all_listed():
    message = str(UnknownName("timm model", "resnt50" * 20_000, [f"resnet{n}" for n in range(1000)]))
    assert message.count("resnet") <= 12
    assert "and 990 more" in message
    assert len(message) < 500


def test_tables_made_in_python_tell_all_their_faults_as_our_own_error():
    with pytest.raises(ConfigError) as caught:
        config.TrainConfig(epochs=0, epoch=3)
    assert (
        caught.value.problems[0] == "TrainConfig: epochs: input should be greater than or equal to 1, not 0"
    )
    assert caught.value.problems[1].startswith("TrainConfig: unknown key 'epoch'; did you mean 'epochs'?")
    with pytest.raises(ConfigError, match=r"SamplerConfig: kind: .* 'identity' or 'random', not 'identiy'"):
        dataclasses.replace(config.SamplerConfig(), kind="identiy")


def test_places_may_be_paths():
    table = config.TrainConfig(init=Path("runs") / "a", cache_folder=Path("cache"))
    assert (table.init, table.cache_folder) == ("runs/a", "cache")


def test_another_network_leaves_the_options_of_the_first_behind(told):
    """Of the recipe's options it keeps those that it has, and nobody is blamed for what he did not type."""
    loaded = config.load("small-cpu", ["model.name=osnet_x0_25"])
    assert loaded.model.options == {"pooling": "average", "neck": "bnneck"}
    assert told == ["[model] pretrained, last_stride left out: of 'resnet18', and 'osnet_x0_25' has none"]
    config.check_components(loaded)
    other_loss = config.load("small-cpu", ["loss.metric.kind=sn", "loss.metric.temperature=8.0"])
    assert "margin" not in other_loss.loss["metric"].options
    assert config.load("small-cpu", ["loss.metric.kind=msml"]).loss["metric"].options == {"margin": 0.3}


def test_another_loss_keeps_a_margin_that_was_chosen_for_the_first_and_says_so(told):
    loaded = config.load("small-strong", ["loss.metric.kind=circle"])
    assert loaded.loss["metric"].options == {"margin": 1.0}
    assert told == [
        "[loss.metric] temperature left out: of 'msml', and 'circle' has none",
        "[loss.metric] margin stays 1.0, as chosen for 'msml'; 'circle' has 0.25 by itself",
    ]
    told.clear()
    config.load("small-strong", ["loss.metric.kind=smooth_ap"])
    assert "temperature stays 0.1, as chosen for 'msml'; 'smooth_ap' has 0.01 by itself" in told[-1]
    told.clear()
    config.load("small-strong", ["loss.metric.kind=trihard", "loss.metric.margin=1.0"])
    config.load("small-strong", ["loss.metric={kind = 'trihard'}"])
    config.load("small-cpu", ["loss.metric.kind=msml"])
    assert told == ["[loss.metric] temperature left out: of 'msml', and 'trihard' has none"]


def test_what_is_typed_stays_and_is_told_to_be_wrong():
    loaded = config.load("small-cpu", ["model.name=osnet_x0_25", "model.last_stride=1"])
    with pytest.raises(ConfigError, match="no option 'last_stride'"):
        config.check_components(loaded)
    assert config.load("small-cpu", ["model.name=no_such"]).model.options["last_stride"] == 1


@pytest.mark.parametrize("override", ["train.epochs=many", "train.epoch=3", "loss.*.weight=heavy"])
def test_a_key_of_the_command_line_is_not_blamed_on_the_file(override):
    with pytest.raises(ConfigError) as caught:
        config.load("demo", [override])
    assert "demo: " not in str(caught.value)
    assert override.partition("=")[0].split(".")[-1] in str(caught.value)


def test_a_key_of_the_file_is(tmp_path):
    (tmp_path / "mine.toml").write_text("[train]\nepochs = 'many'\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: train\.epochs"):
        config.load(tmp_path / "mine.toml", ["train.log_every=3"])


def test_a_pattern_without_its_key_is_known_as_one() -> None:
    with pytest.raises(
        ConfigError, match=r"looks like a pattern of names; write pattern='\{identity\}/\*\.\*'"
    ):
        config.parse_options(["{identity}/*.*"])
    with pytest.raises(ConfigError, match="of a folder"):
        config.parse_options(["people"])
