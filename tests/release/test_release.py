"""What is released: one version everywhere, a wheel that works by itself, little to wait for."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import reidkit

ROOT = Path(__file__).parents[2]
WHEEL_BYTES, SDIST_BYTES = 7_000_000, 14_000_000
"""Most of it is the encoder that comes along, 5 MB."""
IMPORT_SECONDS, HELP_SECONDS = 0.3, 0.6
"""Of processor time, Python's own start included; the least of several tries, since machines are busy."""


def test_one_version_everywhere() -> None:
    version = reidkit.__version__
    assert f'\nversion: "{version}"\n' in (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[1] == version


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("import reidkit", IMPORT_SECONDS),
        ("from reidkit.cli import cli; cli.main(['--help'], standalone_mode=False)", HELP_SECONDS),
    ],
)
def test_nobody_waits_for_an_import(code: str, limit: float) -> None:
    timed = f"{code}\nimport time, sys\nprint(time.process_time(), file=sys.stderr)"
    seconds = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
        seconds.append(float(done.stderr.splitlines()[-1]))
        if seconds[-1] < limit:
            break
    assert min(seconds) < limit


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist; the wheel is made from the sdist, as an installer would make it."""
    pytest.importorskip("build", reason="build is not installed")
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    out = tmp_path_factory.mktemp("dist")
    # Without isolation, which would fetch the build backend from the network.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_should(built: tuple[Path, Path]) -> None:
    wheel, sdist = built
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "reidkit"
    kept = {
        f"reidkit/{f.relative_to(package)}"
        for f in package.rglob("*")
        if f.is_file() and "__pycache__" not in f.parts
    }
    assert kept <= inside
    assert {name.split("/")[0] for name in inside} == {"reidkit", f"reidkit-{reidkit.__version__}.dist-info"}
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "SECURITY.md", "pyproject.toml"} <= names
    assert {"docs/index.md", "examples/README.md", "tests/conftest.py"} <= names
    assert not [name for name in names if "_build" in name or name.startswith(("runs", "data", "shared"))]
    assert wheel.stat().st_size < WHEEL_BYTES
    assert sdist.stat().st_size < SDIST_BYTES


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, _ = built
    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    [packages] = home.glob("lib/python*/site-packages")
    # Torch and its kin are 5 GB: they are taken from where they are. A path in a .pth file brings packages,
    # but not that folder's own .pth files, so that an editable reidkit there stays out.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*words: str | Path) -> str:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    place = run(python, "-c", "import reidkit; print(reidkit.__file__, reidkit.__version__)").split()
    assert Path(place[0]).is_relative_to(home)
    assert place[1] == reidkit.__version__
    reid = home / "bin" / "reid"
    assert reidkit.__version__ in run(reid, "--version")
    assert "Draw people" in run(reid, "demo", "--help")
    assert "small-cpu" in run(reid, "recipes")
    assert "msml-table1" in run(reid, "study", "--list")
    assert "trihard" in run(reid, "list", "losses")
    template = "from reidkit.reports.page import *; import jinja2, reidkit.reports as r, pathlib as p;"
    template += "assert (p.Path(r.__file__).parent / 'templates' / 'report.html').is_file()"
    run(python, "-c", template)
