"""`reid index`, `search` and `gallery`: what they print and answer to bad input."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reidkit as rk
from reidkit.galleries import open_gallery
from tests.cli.running import ok, refused


def draw(path, seed):
    rng = np.random.default_rng(seed)
    pixels = np.kron(rng.integers(0, 255, (4, 2, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    return rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24).save(path)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    for day, cameras in [("mon", ("door", "hall")), ("tue", ("hall", "yard"))]:
        for number, camera in enumerate(cameras):
            draw(tmp_path / day / f"000{number + 1}_c{camera}.png", hash((day, camera)) % 2**32)
    return tmp_path


def index(run, *words):
    return ok("index", run, *words, "--gallery", "g", "--pattern", "{identity}_c{camera}.png")


def found(*words):
    [answer] = json.loads(ok("search", *words, "--gallery", "g", "--json").stdout)
    return [(hit["identity"], hit["camera"], os.path.relpath(hit["source"])) for hit in answer["hits"]]


def test_labels_stay_as_they_are_written_over_several_calls(run):
    index(run, "mon")
    index(run, "tue")
    query = "mon/0001_cdoor.png"
    assert set(found(query)) == {
        ("0002", "hall", "mon/0002_chall.png"),
        ("0001", "hall", "tue/0001_chall.png"),
        ("0002", "yard", "tue/0002_cyard.png"),
    }
    assert {camera for _, camera, _ in found(query, "--where", "camera!=hall")} == {"yard"}
    assert found(query, "--where", "identity=0001") == [("0001", "hall", "tue/0001_chall.png")]
    assert found(query, "--where", "source=tue/0001_chall.png") == [("0001", "hall", "tue/0001_chall.png")]


def test_a_search_that_finds_nothing_says_why(run):
    index(run, "mon")
    result = ok("search", "mon/0001_cdoor.png", "--gallery", "g", "--where", "identity=1")
    assert "the condition on identity alone leaves 0 of 2 (there are 0001, 0002)" in result.stderr


def test_conditions_that_let_nothing_through_are_told_by_every_verb(run):
    index(run, "mon")
    for words in (("list", "g"), ("remove", "g", "--dry-run"), ("remove", "g")):
        result = ok("gallery", *words, "--where", "camera=Hall")
        assert "the condition on camera alone leaves 0 of 2 (there are door, hall)" in result.stderr, words
        assert "did you mean camera=hall?" in result.stderr, words
    assert "leaves 0 of 2" in ok("cluster", "g", "--where", "camera=Hall").stderr


def test_sources_are_given_as_a_shell_completes_them(run):
    index(run, "mon")
    source = "source=mon/0001_cdoor.png"
    assert "0001_cdoor.png" in ok("gallery", "list", "g", "--where", source).stdout
    assert "1 item," in ok("gallery", "remove", "g", "--where", source).stdout
    assert ok("gallery", "list", "g").stdout == "#2  mon/0002_chall.png  identity 0002  camera hall\n"
    assert "1 picture," in ok("cluster", "g", "--where", "source=mon/0002_chall.png").stdout


def test_an_item_without_a_source_is_shown_by_its_number(run):
    index(run, "mon")
    with open_gallery("g") as gallery:
        gallery.add(gallery.embeddings(ids=[2]), identities=["ann"])
    assert "#3  identity ann" in ok("gallery", "list", "g").stdout
    for words in ((), ("--group", "identity")):
        assert ok("search", "mon/0001_cdoor.png", "--gallery", "g", *words).stdout.count("#3") == 1


def test_items_without_a_time_stay_when_others_expire_and_that_is_said(run):
    index(run, "mon")
    result = ok("gallery", "expire", "g", "--older-than", "30d")
    assert "removed 0 items, 2 left" in result.stdout
    assert "not looked at: 2 items without a time" in result.stderr


def test_a_gallery_is_not_copied_onto_itself_nor_exported_into_itself(run):
    index(run, "mon")
    assert "are the same gallery" in refused("gallery", "copy", "g", "./g")
    assert "g/inside is inside the gallery" in refused("gallery", "export", "g", "g/inside")
    assert sorted(path.name for path in Path("g").iterdir() if path.is_dir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_file_among_photos_is_left_out_and_told(run, here):
    os.mkfifo(here / "mon" / "pipe.png")
    (here / "mon" / "gone.png").symlink_to("nowhere.png")
    result = ok("index", run, "mon", "--gallery", "g")
    assert "2 embedded, 2 left out, since they cannot be read" in result.stderr
    assert "mon/pipe.png is a named pipe, not a file" in result.stderr
    assert "mon/gone.png is a link to nowhere.png, which is missing" in result.stderr
    assert "is a named pipe, not a file" in refused("index", run, "mon/pipe.png", "--gallery", "g")


def test_columns_that_are_not_read_are_told(run):
    Path("list.csv").write_text("path,when,shoe\nmon/0001_cdoor.png,2024-05-01T10:00,42\n")
    result = ok("index", run, "list.csv", "--gallery", "g")
    assert "left out: list.csv: columns that are not read: when, shoe" in result.stderr


def test_conditions_that_refer_to_the_query(run, here):
    """A picture that the gallery holds is of its own camera; of another one that is said."""
    index(run, "mon")
    index(run, "tue")
    assert {camera for _, camera, _ in found("mon/0002_chall.png", "--where", "camera!=query")} == {
        "door",
        "yard",
    }
    draw(here / "new.png", 77)
    other = ("--gallery", "g", "--where", "camera!=query")
    assert "refers to the camera of" in refused("search", "new.png", *other)
    assert {camera for _, camera, _ in found("new.png", *other[2:], "--query", "camera=yard")} == {
        "door",
        "hall",
    }
    shutil.copy("mon/0002_chall.png", "copy.png")
    assert {camera for _, camera, _ in found("copy.png", "--where", "camera=query")} == {"hall"}
    result = ok("search", "new.png", "--gallery", "g", "--where", "camera=query", "--query", "camera=attic")
    assert "camera had to fit the query's own" in result.stderr
    draw(here / "mon/0002_cattic.png", hash(("mon", "hall")) % 2**32)  # a second copy, of another camera
    index(run, "mon")
    assert "refers to the camera" in refused(
        "search", "copy.png", "--gallery", "g", "--where", "camera=query"
    )


def test_the_query_itself_is_left_out_or_marked(run):
    index(run, "mon")
    result = ok("search", "mon/0001_cdoor.png", "--gallery", "g")
    assert "left out: 1 hit that is the query's own picture" in result.stderr
    assert "mon/0002_chall.png" in result.stdout
    table = ok("search", "mon/0001_cdoor.png", "--gallery", "g", "--include-self").stdout
    assert "mon/0001_cdoor.png (the query)" in table


def test_pictures_that_are_gone_are_drawn_grey_and_that_is_said(run, here):
    index(run, "mon")
    shutil.copy("mon/0001_cdoor.png", "query.png")
    assert "grey" not in ok("search", "query.png", "--gallery", "g", "--picture", "hits.png").stderr
    Path("mon").rename("moved")
    said = ok("search", "query.png", "--gallery", "g", "--include-self", "--picture", "hits.png").stderr
    assert "drawn grey: 2 of the pictures found" in said
    assert "`reid index` with their new place" in said


def test_a_threshold_without_a_calibration_has_a_way_out_that_exists(run, monkeypatch):
    index(run, "mon")
    search = ("search", "mon/0001_cdoor.png", "--gallery", "g", "--threshold", "0.1")
    assert "--store-calibration" in refused(*search)
    monkeypatch.setattr("reidkit.encoders.network_file.is_network_file", lambda path: True)
    said = refused(*search)
    assert "cannot keep one" in said
    assert "--store-calibration" not in said


def test_images_off_the_pattern_are_counted_and_named(run, here):
    draw(here / "mon" / "other.png", 7)
    (here / "mon" / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  " + bytes(50))
    result = index(run, "mon")
    assert "left out: 1 image whose name does not fit the pattern, mon/other.png first" in result.stderr
    assert "left out: 1 .mov (a video: cut pictures out of it)" in result.stderr
    assert "2 embedded" in result.stderr


def test_to_a_gallery_nobody_is_junk_and_no_folder_is_a_part(run, here):
    draw(here / "people" / "Test" / "-1_c1.png", 8)
    draw(here / "people" / "anna" / "2_c-1.png", 9)
    ok("index", run, "people", "--gallery", "g", "--pattern", "*/{identity}_c{camera}.png")
    (here / "t.csv").write_text("path,identity,camera\npeople/Test/-1_c1.png,-1,1\n")
    ok("index", run, "t.csv", "--gallery", "h")
    for location, expected in (("g", {("-1", 1), ("2", None)}), ("h", {("-1", 1)})):
        with open_gallery(location) as gallery:
            assert {(item.identity, item.camera) for item in gallery.items()} == expected


def test_cameras_are_not_invented(run):
    ok("index", run, "mon", "--gallery", "g", "--pattern", "{identity}_*.png")
    ok("index", run, "tue", "--gallery", "h")
    ok("index", run, "tue", "--gallery", "i", "--camera=-1")
    assert "2 there already" in ok("index", run, "tue", "--gallery", "i", "--camera=-1").stderr
    for location in ("g", "h", "i"):
        with open_gallery(location) as gallery:
            assert [item.camera for item in gallery.items(where={"camera": -1})] == [None, None]
    assert "2 with other labels now" in ok("index", run, "tue", "--gallery", "h", "--camera", "yard").stderr


def test_a_table_by_any_of_its_endings(run, here):
    for name, separator in [("t.tsv", "\t"), ("T.CSV", ","), ("t.TSV", "\t")]:
        lines = [["path", "identity"], ["mon/0001_cdoor.png", "0001"]]
        (here / name).write_text("\n".join(map(separator.join, lines)) + "\n")
        shutil.rmtree("g", ignore_errors=True)
        ok("index", run, name, "--gallery", "g")
        with open_gallery("g") as gallery:
            assert [item.identity for item in gallery.items()] == ["0001"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode there")
def test_file_names_that_are_not_unicode(run, here):
    name = os.fsdecode(b"mon/caf\xe9.png")
    draw(here / "mon" / "x.png", 5).rename(here / name)
    assert "3 embedded" in ok("index", run, "mon", "--gallery", "g").stderr
    assert "3 there already" in ok("index", run, "mon", "--gallery", "g").stderr
    assert ("left out: 1 hit ") in ok("search", here / name, "--gallery", "g").stderr


def test_unreadable_images_are_listed_and_a_gallery_is_not_half_made(run, here):
    (here / "mon" / "cut.png").write_bytes((here / "mon" / "0001_cdoor.png").read_bytes()[:60])
    (here / "bad").mkdir()
    shutil.copy(here / "mon" / "cut.png", here / "bad" / "cut.png")
    assert "none of 1 images can be read" in refused("index", run, "bad", "--gallery", "g")
    assert not (here / "g").exists()
    result = ok("index", run, "mon", "--gallery", "g")
    assert "2 embedded, 1 left out, since they cannot be read" in result.stderr
    assert "cut.png" in result.stderr


@pytest.mark.parametrize("words", [[], ["--group", "identity"]])
def test_unreadable_images_among_those_searched_for_are_told_and_left_out(run, here, words):
    index(run, "mon", "tue")
    (here / "asked").mkdir()
    shutil.copy("mon/0001_cdoor.png", "asked/1.png")
    Path("asked/0.png").write_bytes(b"no picture")
    search = ["search", "asked", "--gallery", "g", "--picture", "hits.png", *words]
    done = ok(*search)
    assert "left out: asked/0.png" in done.stderr
    assert "asked/1.png" in done.stdout
    assert "asked/0.png" not in done.stdout
    [answer] = json.loads(ok(*search, "--json").stdout)
    assert answer["query"] == "asked/1.png"
    assert "asked/0.png" in refused(*["asked/0.png" if word == "asked" else word for word in search])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_of_many_unreadable_images_the_first_are_told_and_how_many_more(run, here):
    index(run, "mon")
    (here / "asked").mkdir()
    shutil.copy("mon/0001_cdoor.png", "asked/whole.png")
    os.mkfifo("asked/000.png")
    Path("asked/001.png").symlink_to("nowhere")
    for number in range(2, 30):
        Path(f"asked/{number:03d}.png").write_bytes(b"no picture")
    done = ok("search", "asked", "--gallery", "g")
    assert "left out: asked/000.png is a named pipe" in done.stderr
    assert "asked/019.png" in done.stderr
    assert "asked/020.png" not in done.stderr
    assert "left out: 10 more" in done.stderr
    assert "asked/whole.png" in done.stdout


def test_what_is_next_can_be_typed_where_names_begin_like_options(run, here):
    shutil.copytree("mon", "-mon")
    for path in list(Path("-mon").iterdir()):
        path.rename(path.with_name(f"-{path.name}"))
    done = ok("index", run, "./-mon", "--gallery", "-g")
    assert "next: reid search ./-mon/-0001_cdoor.png --gallery ./-g" in done.stderr
    [line] = [line for line in ok("gallery", "info", "./-g").stderr.splitlines() if "next: " in line]
    ok(*shlex.split(line.partition("next: reid ")[2]))


def test_info_goes_on_with_a_picture_that_is_there(run, here):
    index(run, "mon", "tue")
    assert "next: reid search mon/0001_cdoor.png --gallery" in ok("gallery", "info", "g").stderr
    Path("mon/0001_cdoor.png").unlink()
    assert "next: reid search mon/0002_chall.png --gallery" in ok("gallery", "info", "g").stderr
    for picture in here.rglob("*.png"):
        picture.unlink()
    assert "next: reid search IMAGE --gallery" in ok("gallery", "info", "g").stderr


def test_an_encoder_that_moved(run, here):
    shutil.copy(run, "old.safetensors")
    index("old.safetensors", "mon")
    (here / "old.safetensors").rename("new.safetensors")
    query = "mon/0001_cdoor.png"
    message = refused("search", query, "--gallery", "g")
    assert "g was filled with the encoder" in message
    assert "old.safetensors, which is gone; if it moved, give its place: --encoder RUN" in message
    assert found(query, "--encoder", "new.safetensors")
    assert found(query)


def test_a_damaged_gallery_is_verified_and_repaired(run, here):
    index(run, "mon")
    assert "all 2 items are as they were written" in ok("gallery", "verify", "g").stdout
    [file] = (here / "g").glob("vectors*")
    with file.open("r+b") as stream:
        stream.write(b"\xff\xff\xff")
    assert "embeddings of 1 of 2 items" in refused("search", "mon/0001_cdoor.png", "--gallery", "g")
    assert "g is damaged: 1 of 2 items" in refused("gallery", "verify", "g")
    assert "drop=True" in refused("gallery", "repair", "g")
    assert "dropped 1 damaged item, 1 item left" in ok("gallery", "repair", "g", "--drop").stdout
    assert "1 embedded, 1 there already" in index(run, "mon").stderr
    assert json.loads(ok("gallery", "info", "g", "--json").stdout)["num_items"] == 2
    assert "fingerprint" in ok("gallery", "info", "g").stdout


def test_who_forgets_a_person_is_told_that_the_photos_bring_them_back(run):
    index(run, "mon")
    dry = ok("gallery", "forget", "g", "0001", "--dry-run")
    assert "photos" not in dry.stderr
    for words in (("forget", "g", "0001"), ("remove", "g", "--where", "camera=hall")):
        assert "the photos themselves stay where they are: delete them, too" in ok("gallery", *words).stderr
    assert "photos" not in ok("gallery", "remove", "g", "--where", "camera=hall").stderr, (
        "nothing was removed"
    )
    index(run, "mon")
    with open_gallery("g") as gallery:
        assert {item.identity for item in gallery.items()} == {"0001", "0002"}
