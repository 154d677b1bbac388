"""Every example runs, on drawn people, in seconds."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import reidkit as rk
from tests.docs import world as worlds
from tests.docs.world import World, with_small_networks_and_one_step

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        with_small_networks_and_one_step(patch)
        yield World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program of the test's own name."""
    name = request.function.__name__.removeprefix("test_")
    found = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, name, module)
    found.loader.exec_module(module)
    return module


def folders(world: World, tmp_path: Path, text: str) -> Path:
    world.give(tmp_path, text, ())
    return tmp_path


def test_own_photos(example: Any, world: World, tmp_path: Path) -> None:
    here = folders(world, tmp_path, "runs/mine photos")
    query = here / "photos" / "0017_c1_000000.jpg"
    hits = example.main(here / "runs/mine", here / "photos", query, here / "g")
    assert all("0017_" in hit for hit in hits[:3])  # its own picture is left out


def test_custom_loss(example: Any, world: World, tmp_path: Path) -> None:
    encoder = example.main(world.data / "market1501", tmp_path / "run")
    assert encoder.dim == 8


def test_custom_network(example: Any, world: World, tmp_path: Path) -> None:
    encoder = example.main(world.data / "market1501", tmp_path / "run")
    assert encoder.dim == 64


@pytest.mark.parametrize("loss", ["msml", "trihard", "sn"])
def test_bare_loop(example: Any, loss: str) -> None:
    values = example.main(loss)
    assert values[-1] < 0.7 * values[0]


def test_metric_learning_parts(example: Any) -> None:
    assert min(example.main().values()) > 0.9


def test_tracker(example: Any, world: World, tmp_path: Path) -> None:
    here = folders(world, tmp_path, "runs/mine door.mp4")
    seen = example.main(here / "runs/mine", here / "door.mp4", here / "door.txt")
    assert 1 <= len(seen) <= 2


def test_two_cameras(example: Any, world: World, tmp_path: Path) -> None:
    here = folders(world, tmp_path, "runs/mine")
    for number, camera in enumerate(("door", "hall")):
        for identity in range(1, 7):
            for frame in range(3):
                worlds.draw(here / camera / f"{identity}_{frame}.jpg", identity, 10 * number + frame)
    people = example.main(here / "runs/mine", here / "door", here / "hall", here / "g")
    of_one = [len({Path(source).name[0] for source in person}) == 1 for person in people]
    assert len(people) >= 5
    assert sum(of_one) >= len(people) - 1


def test_postgres_gallery(example: Any, world: World, tmp_path: Path, postgres_server: Any) -> None:
    here = folders(world, tmp_path, "runs/mine photos")
    address = postgres_server.gallery()
    num_photos = len(list((here / "photos").glob("*_c*_*.jpg")))
    assert example.main(address, here / "runs/mine", here / "photos") == num_photos - 4  # of one person


def test_service_client(example: Any, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    from tests.web.processes import serving
    from tests.web.serving import make_world, picture

    folder = make_world(tmp_path)
    query = tmp_path / "query.png"
    query.write_bytes(picture(1))
    with serving(folder) as service:
        names = example.main(service.address, query, gallery="own")
    assert len(names) == 5
    assert [name for name in names if name and name.startswith("person ")]


def test_compare_toolkits(example: Any, world: World, tmp_path: Path) -> None:
    here = folders(world, tmp_path, "theirs.npz")
    query, gallery = world.sides()
    rk.save_features(
        here / "ours.npz", query, rk.Features(-gallery.embeddings, gallery.identities, gallery.cameras)
    )
    assert example.main(here / "theirs.npz", here / "ours.npz").difference < -0.1


def test_wildlife_flanks(example: Any, world: World, tmp_path: Path) -> None:
    here = folders(world, tmp_path, "runs/mine")
    known, new = here / "known.csv", here / "new.csv"
    with known.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "individual", "flank", "session"])
        for animal in range(1, 5):
            picture = worlds.draw(here / f"{animal}.jpg", animal)
            rows.writerow([picture, f"animal {animal}", "left" if animal < 4 else "right", "may"])
    with new.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "flank", "session"])
        rows.writerow([worlds.draw(here / "a.jpg", 2, 5), "left", "june"])
        rows.writerow(
            [worlds.draw(here / "b.jpg", 3, 5), "left", "may"]
        )  # nothing of another session is like it
        rows.writerow([worlds.draw(here / "c.jpg", 1, 5), "right", "june"])  # only another's flank is like it
    names = example.main(here / "runs/mine", known, new, here / "g", lowest=0.99)
    assert names == ["animal 2", "new", "new"]


def test_report_notebook(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.give(tmp_path, "runs/demo/run", ())
    (tmp_path / "runs/demo/people").symlink_to(world.data / "market1501")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in json.loads((EXAMPLES / "report.ipynb").read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # the notebook is ours
    assert names["page"].stat().st_size > 10_000
    assert names["evaluation"].num_queries == 12


def test_every_example_is_listed_and_tested() -> None:
    files = {path.name for path in EXAMPLES.glob("*.*") if path.suffix in (".py", ".ipynb")}
    listed = set(re.findall(r"\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text("utf-8")))
    assert listed == files
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {Path(name).stem for name in files if name.endswith(".py")} <= tests
