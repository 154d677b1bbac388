import sys
from importlib.metadata import EntryPoint

import pytest

from reidkit import registry, trust
from reidkit.errors import ConfigError, UnknownName


def test_names_come_from_the_folder():
    assert {"identity", "trihard", "msml"} <= set(registry.names("loss"))
    assert {"market1501", "synthetic", "folder", "table"} <= set(registry.names("dataset"))
    assert {"resnet18", "resnet50", "timm"} <= set(registry.names("model"))
    assert "embedded" in registry.names("gallery")


def test_unknown_names_and_kinds_suggest():
    with pytest.raises(UnknownName, match="unknown loss 'trihrd'; did you mean 'trihard'"):
        registry.get("loss", "trihrd")
    with pytest.raises(UnknownName, match="unknown kind of component 'losses'; did you mean 'loss'"):
        registry.names("losses")


def test_options_are_checked_before_construction():
    with pytest.raises(ConfigError, match="loss 'msml' has no option 'marign'; did you mean 'margin'"):
        registry.build("loss", "msml", {"marign": 1})
    with pytest.raises(ConfigError, match="model 'timm' needs the option 'backbone'"):
        registry.build("model", "timm")


def test_a_dotted_path_reaches_code_outside(tmp_path, monkeypatch):
    (tmp_path / "outside_losses.py").write_text(
        "class Mine:\n    def __init__(self, strength=1): self.strength = strength\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with trust.allow_code("outside_losses", "no_such_module"):
        built = registry.build("loss", "outside_losses:Mine", {"strength": 3})
        assert built.strength == 3
        with pytest.raises(ConfigError, match="has no class or function 'Mien'; did you mean 'Mine'"):
            registry.get("loss", "outside_losses:Mien")
        with pytest.raises(ConfigError, match="cannot import 'no_such_module'"):
            registry.get("loss", "no_such_module:X")
    del sys.modules["outside_losses"]


@pytest.mark.parametrize("name", ["my_losses.Mine", "my-losses:Mine", "./my_losses.py", "a:Outer.Inner"])
def test_a_name_meant_as_code_is_told_its_form(name):
    with pytest.raises(ConfigError, match="code of your own is named module:object"):
        registry.get("loss", name)


def test_a_module_in_the_current_folder_is_told_how_to_be_reached(tmp_path, monkeypatch):
    (tmp_path / "lies_here.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    with (
        trust.allow_code("lies_here"),
        pytest.raises(ConfigError, match=r"for one in the current folder put PYTHONPATH=. before"),
    ):
        registry.get("loss", "lies_here:Mine")


def test_an_installed_package_that_cannot_be_imported_is_named(monkeypatch):
    broken = EntryPoint("broken", "no_such_package.parts", "reidkit")
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    monkeypatch.setattr(registry, "_scanned", set())
    with pytest.raises(ConfigError, match=r"'no_such_package.parts' to reidkit, which cannot be imported"):
        registry.names("tracker")


def test_no_other_package_is_looked_for_where_a_component_is_ours(monkeypatch):
    looked: list[str] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: looked.append(group) or [])
    monkeypatch.setattr(registry, "_scanned", set())
    assert registry.get("gallery", "embedded").__name__ == "EmbeddedGallery"
    assert not looked
    with pytest.raises(UnknownName, match="unknown gallery 'embeded'; did you mean 'embedded'"):
        registry.get("gallery", "embeded")
    assert looked == ["reidkit"]


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="loss 'msml' is already registered by reidkit"):

        @registry.register("loss", "msml")
        class Other:
            pass
