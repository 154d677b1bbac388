"""Modules that moved are found by the names that they had in version 0.1.0."""

import subprocess
import sys
import warnings
from importlib import import_module

import pytest

import reidkit as rk

PROGRAM = """
import sys, warnings
from importlib import import_module
import reidkit as rk
warnings.simplefilter("ignore", DeprecationWarning)
table = rk._FormerNames.table()
assert len(table) > 50
for former, name in table.items():
    assert import_module(former) is import_module(name), former
assert callable(rk.report) and callable(rk.export) and callable(rk.evaluate)
"""


def test_each_former_name_gives_the_module_of_today():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_new_name_is_told(monkeypatch):
    monkeypatch.delitem(sys.modules, "reidkit.weights", raising=False)
    with pytest.warns(DeprecationWarning, match=r"is reidkit\.encoders\.foreign_weights now"):
        from reidkit.weights import import_weights
    assert import_weights.__module__ == "reidkit.encoders.foreign_weights"


def test_functions_that_moved_out_of_a_module_are_found_in_it():
    from reidkit.encoders.encoder import load_encoder, weights_file

    assert load_encoder is rk.load_encoder
    assert weights_file.__module__ == "reidkit.encoders.loading"
    with pytest.raises(ImportError, match="cannot import name 'no_such_name'"):
        exec("from reidkit.encoders.encoder import no_such_name")


def test_todays_names_warn_of_nothing_and_others_are_unknown():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rk.images.load_image is import_module("reidkit.images.reading").load_image
    with pytest.raises(ModuleNotFoundError, match=r"reidkit\.nothing"):
        import_module("reidkit.nothing")
