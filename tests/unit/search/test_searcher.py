"""A gallery and its encoder at work together: filling, going on, searching, what moved."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3

import numpy as np
import pytest
from PIL import Image

import reidkit as rk
from reidkit.analysis.calibration import Calibration
from reidkit.errors import ConfigError, DataError
from reidkit.galleries import DamagedGallery, NoGallery, merge, open_gallery, reject, undo
from reidkit.images.reading import load_image
from reidkit.search import probabilities
from reidkit.search.people import PeopleSearch
from reidkit.search.pictures import content_hash
from reidkit.search.probabilities import Plausibility
from reidkit.search.searcher import Searcher
from reidkit.types import Sample


def draw(path, seed):
    """A coarse pattern: no two are alike to any network."""
    rng = np.random.default_rng(seed)
    pixels = np.kron(rng.integers(0, 255, (4, 2, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    return rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24).save(path)


@pytest.fixture
def photos(tmp_path):
    return [draw(tmp_path / "photos" / f"{number}.png", number) for number in range(5)]


@pytest.fixture
def searcher(weights, tmp_path):
    with Searcher(tmp_path / "g", encoder=weights) as searcher:
        yield searcher


def sources(searcher):
    return [item.source for item in searcher.gallery.items()]


def test_pictures_are_put_in_and_found(searcher, photos):
    assert str(searcher.add(photos)) == "5 embedded"
    assert sources(searcher) == [str(path) for path in photos]
    [found] = searcher.search(photos[:1], top=3)
    assert len(found.hits) == 3
    assert [hit.source for hit in found.own] == [str(photos[0])]
    assert str(photos[0]) not in [hit.source for hit in found.hits]
    [found] = searcher.search(photos[:1], top=3, include_self=True)
    assert found.hits[0].source == str(photos[0])
    assert found.own == found.hits[:1]


def test_a_path_alone_is_one_picture(searcher, photos):
    assert searcher.add(str(photos[0])).embedded == searcher.add(photos[1]).embedded == 1
    assert len(searcher.search(str(photos[0]))) == len(searcher.search(photos[0])) == 1
    assert len(searcher.search_people(photos[0])) == 1


def unreadable(folder):
    """A path of each kind that cannot be read, whatever hinders it."""
    folder.mkdir()
    for name, content in (("empty.png", b""), ("text.png", b"no picture"), ("zeros.png", bytes(99))):
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    return [*sorted(folder.iterdir()), folder / "gone.png", "nul\0.png", "a" * 5000]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_whatever_cannot_be_read_is_skipped_and_the_rest_stays_in_line(searcher, photos, tmp_path):
    searcher.add(photos, camera=3)
    bad = unreadable(tmp_path / "bad")
    images = [*bad[:4], photos[0], *bad[4:], photos[1]]
    told = []
    asked = {"queries": [{"camera": 3}] * (len(images) - 1) + [{"camera": 4}]}
    where = {"camera": {"query": "other"}}  # of the last alone it lets something through
    found = searcher.search(images, where=where, skip=lambda *one: told.append(one), **asked)
    assert [len(one.hits) for one in found] == [0, 4]
    assert [place for place, _ in told] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert all(isinstance(error, DataError) for _, error in told)
    people = searcher.search_people(images, PeopleSearch(where=where), skip=lambda *one: None, **asked)
    assert [len(one.people) for one in people] == [0, 4]
    assert searcher.search(bad, skip=lambda *one: None) == []
    for path in bad:
        with pytest.raises(DataError):
            searcher.search([photos[0], path])


@pytest.mark.parametrize("value", ["x", True, float("nan"), [1]])
def test_numbers_that_are_none_are_refused_in_a_line(searcher, photos, value):
    searcher.add(photos)
    searcher.encoder.calibrate(CALIBRATION)
    with pytest.raises(ConfigError, match="prior is "):
        searcher.search(photos[:1], prior=value)
    with pytest.raises(ConfigError, match="lowest is "):
        searcher.search(photos[:1], lowest=value)
    with pytest.raises(ConfigError, match="the false-match rate is "):
        searcher.lowest_score(value)
    with pytest.raises(ConfigError, match="queries "):
        searcher.search(photos[:1], queries=value)


def test_copies_of_the_query_are_not_its_matches_however_many(searcher, photos, tmp_path):
    copies = []
    for number in range(12):
        copies.append(tmp_path / "copies" / f"{number}.png")
        copies[-1].parent.mkdir(exist_ok=True)
        shutil.copy(photos[0], copies[-1])
    searcher.add([*photos, *copies])
    [found] = searcher.search(photos[:1], top=4)
    assert {hit.source for hit in found.hits} == {str(path) for path in photos[1:]}


def test_a_picture_in_memory_is_known_by_its_file(searcher, photos):
    searcher.add(photos)
    data = photos[0].read_bytes()
    with photos[0].open("rb") as file, Image.open(photos[0]) as opened:
        for image in (data, bytearray(data), file, opened):
            [found] = searcher.search([image], top=9)
            assert [hit.source for hit in found.own] == [str(photos[0])]
            assert len(found.hits) == 4
        for image in (np.asarray(opened), Image.open(io.BytesIO(data))):
            assert len(searcher.search([image], top=9)[0].hits) == 5, "nobody knows that it is the same"


def test_copies_of_one_query_do_not_take_the_places_of_another(searcher, photos, tmp_path):
    copies = [tmp_path / f"{number}.png" for number in range(30)]
    for copy in copies:
        shutil.copy(photos[0], copy)
    searcher.add([*photos, *copies])
    found = searcher.search([photos[0], copies[3], photos[1]], top=4)
    assert [{hit.source for hit in one.hits} for one in found[:2]] == [{str(path) for path in photos[1:]}] * 2
    assert len(found[2].hits) == 4


def test_what_is_there_is_not_embedded_again(searcher, photos, monkeypatch):
    searcher.add(photos[:3])
    embedded = []
    features = searcher.encoder.features
    monkeypatch.setattr(searcher.encoder, "features", lambda split: embedded.extend(split) or features(split))
    assert str(searcher.add(photos)) == "2 embedded, 3 there already"
    assert [sample.path for sample in embedded] == photos[3:]
    draw(photos[1], 99)
    ids = [item.id for item in searcher.gallery.items(where={"source": str(photos[1])})]
    assert str(searcher.add(photos)) == "1 embedded, 4 there already"
    assert [item.id for item in searcher.gallery.items(where={"source": str(photos[1])})] == ids


def test_a_renamed_folder_is_followed(searcher, photos, tmp_path):
    searcher.add(photos)
    ids = [item.id for item in searcher.gallery.items()]
    (tmp_path / "photos").rename(tmp_path / "pictures")
    moved = [tmp_path / "pictures" / path.name for path in photos]
    assert str(searcher.add(moved)) == "5 found again in a new place"
    assert sources(searcher) == [str(path) for path in moved]
    assert [item.id for item in searcher.gallery.items()] == ids
    shutil.copytree(tmp_path / "pictures", tmp_path / "copy")
    assert str(searcher.add([tmp_path / "copy" / path.name for path in photos])) == "5 embedded"


def test_copies_in_a_renamed_folder_are_followed_by_their_names(searcher, photos, tmp_path):
    for number in range(2):
        shutil.copy(photos[number], tmp_path / "photos" / f"copy of {number}.png")
    paths = sorted((tmp_path / "photos").iterdir())
    searcher.add([Sample(path, 1, 1, 0, identity_name=path.name) for path in paths])
    (tmp_path / "photos").rename(tmp_path / "pictures")
    moved = sorted((tmp_path / "pictures").iterdir(), reverse=True)
    assert str(searcher.add(moved)) == "7 found again in a new place"
    assert {(item.source, item.identity) for item in searcher.gallery.items()} == {
        (str(path), path.name) for path in moved
    }
    (tmp_path / "pictures" / "copy of 1.png").rename(tmp_path / "pictures" / "z.png")
    assert str(searcher.add(sorted((tmp_path / "pictures").iterdir()))) == (
        "6 there already, 1 found again in a new place"
    )


def test_another_picture_in_the_place_of_one_does_not_get_its_labels(searcher, photos):
    searcher.add([Sample(path, 1, 1, 0, identity_name=path.name) for path in photos])
    draw(photos[0], 99)
    searcher.add(photos)
    assert [item.identity for item in searcher.gallery.items(where={"source": str(photos[0])})] == [None]


def test_labels_are_kept_as_written_and_brought_up_to_date(searcher, photos):
    one, two, three = photos[:3]
    samples = [
        Sample(one, 1, 1, 0, identity_name="0001", camera_name="door"),
        Sample(two, 2, 3, 1, time=5.0),
        Sample(three, 4, None, 2),
    ]
    searcher.add(samples)
    assert [(item.identity, item.camera, item.time) for item in searcher.gallery.items()] == [
        ("0001", "door", None),
        ("2", 3, 5.0),
        ("4", None, None),
    ]
    assert str(searcher.add([one, two])) == "2 there already", "nothing is said, nothing is taken away"
    assert str(searcher.add(samples, camera="hall")) == "3 with other labels now"
    assert [item.camera for item in searcher.gallery.items()] == ["hall"] * 3
    assert searcher.gallery.items()[0].identity == "0001"


def test_one_camera_for_all_is_in_place_of_their_own(searcher, photos):
    samples = [Sample(path, 5, 3, number) for number, path in enumerate(photos[:2])]
    searcher.add(samples[:1], camera="door")
    searcher.add(samples[1:], camera=-1)
    assert [item.camera for item in searcher.gallery.items()] == ["door", None]


def test_pictures_that_cannot_be_read_are_left_out_and_named(searcher, photos, tmp_path):
    damaged = tmp_path / "photos" / "damaged.png"
    damaged.write_bytes(photos[0].read_bytes()[:60])
    added = searcher.add([photos[0], damaged, tmp_path / "missing.png", tmp_path, photos[1]])
    assert added.embedded == 2
    assert [path.name for path, _ in added.unreadable] == ["missing.png", tmp_path.name, "damaged.png"]
    assert all(str(path) in reason for path, reason in added.unreadable)
    assert str(added) == "2 embedded, 3 left out, since they cannot be read"


def test_a_gallery_is_not_made_before_something_is_embedded(weights, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    with Searcher(tmp_path / "g", encoder=weights) as searcher:
        with pytest.raises(DataError, match="none of 1 images can be read"):
            searcher.add([text])
        with pytest.raises(NoGallery):
            searcher.search([text])
    assert not (tmp_path / "g").exists()


def test_an_encoder_that_sees_nothing_makes_no_gallery(photos, tmp_path):
    encoder = rk.Encoder(rk.build_model("timm:test_resnet", neck="plain"), height=48, width=24)
    for parameter in encoder.model.parameters():
        parameter.data.zero_()
    zeros = pytest.raises(DataError, match=r"the encoder embeds 5 of 5 pictures as zeros.*unusable")
    with Searcher(tmp_path / "g", encoder=encoder) as searcher, zeros:
        searcher.add(photos)
    assert not (tmp_path / "g").exists()


def test_one_picture_given_twice(searcher, photos):
    assert str(searcher.add([photos[0], str(photos[0])])) == "1 embedded"
    with pytest.raises(DataError, match=r"is given twice, once with identity 1, .* once with 2"):
        searcher.add([Sample(photos[0], 1, 1, 0), Sample(photos[0], 2, 1, 1)])


def test_crops_of_one_image_are_several_items(searcher, photos):
    boxes = [(0, 0, 24, 24), (0, 24, 24, 48)]
    samples = [Sample(photos[0], 1, 1, index, box=box) for index, box in enumerate(boxes)]
    assert str(searcher.add(samples)) == "2 embedded"
    assert sources(searcher) == [f"{photos[0]}#0,0,24,24", f"{photos[0]}#0,24,24,48"]
    assert str(searcher.add(samples)) == "2 there already"
    assert content_hash(photos[0]) != content_hash(photos[0], box=boxes[0])


def test_sources_are_found_as_they_are_shown(searcher, photos, tmp_path, monkeypatch):
    searcher.add(photos)
    monkeypatch.chdir(tmp_path)
    as_array = np.array(["photos/1.png"])
    for wanted in (
        "photos/1.png",
        ["photos/1.png"],
        photos[1],
        str(photos[1]),
        as_array,
        {"photos/1.png": 1}.keys(),
    ):
        [found] = searcher.search(photos[:1], where={"source": wanted})
        assert [hit.source for hit in found.hits] == [str(photos[1])]
    [found] = searcher.search(photos[:1], where={"source": {"not": "photos/1.png"}})
    assert str(photos[1]) not in {hit.source for hit in found.hits}
    assert len(found.hits) == 3


def test_a_search_that_finds_nothing_says_why(searcher, photos, tmp_path_factory):
    searcher.add([Sample(path, 1, index % 2, index) for index, path in enumerate(photos)])
    assert searcher.search(photos[:1], where={"camera": 7}) == [
        searcher.search(photos[:1], where={"camera": 7})[0]
    ]
    assert searcher.why_nothing({"camera": 7, "identity": 1}) == (
        "no item meets the conditions: the condition on camera alone leaves 0 of 5 (there are 0, 1); "
        "the condition on identity alone leaves 5 of 5"
    )
    assert "no item has a time" in searcher.why_nothing({"time": {"from": 0}})
    searcher.add([Sample(photos[0], 1, None, 0, camera_name="hall, north", time=1714557600.0)])
    assert 'there are 0, 1, "hall, north")' in searcher.why_nothing({"camera": "hall"})
    short = tmp_path_factory.mktemp("a")  # long ones are cut
    shutil.copy(photos[1], short / "0,0.png")
    searcher.add([short / "0,0.png"])
    assert f"(there are {short}/0,0.png, " in searcher.why_nothing({"source": "nowhere"})
    assert "there are 2024-05-01 10:00:00 UTC" in searcher.why_nothing({"time": {"to": 0}})


# --- what moved, what was damaged -------------------------------------------------------------------------


def test_an_encoder_that_moved(weights, photos, tmp_path):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    shutil.copy(weights, old)
    with Searcher(tmp_path / "g", encoder=old) as searcher:
        searcher.add(photos)
    with Searcher(tmp_path / "g") as searcher:
        assert searcher.place == old
    old.rename(new)
    with pytest.raises(ConfigError, match=r"was filled with the encoder .*old.safetensors, which is gone"):
        Searcher(tmp_path / "g")
    with Searcher(tmp_path / "g", encoder=new) as searcher:
        assert searcher.search(photos[:1])
    with Searcher(tmp_path / "g") as searcher:
        assert searcher.place == new, "the new place is kept"


@pytest.mark.parametrize(
    "place",
    ["encoder.safetensors", "inside", "../x", None, 3, "a\0b", "/\ud800", "/" + "a" * 5000, "/" + "a" * 999],
)
def test_a_gallery_does_not_bring_an_encoder_of_its_own(weights, photos, tmp_path, monkeypatch, place):
    path = tmp_path / "g"
    with Searcher(path, encoder=weights) as searcher:
        searcher.add(photos[:1])
        description = searcher.gallery.encoder
    shutil.copy(weights, path / "encoder.safetensors")
    inside = str(path / "encoder.safetensors")
    with open_gallery(path, encoder={**description, "path": inside if place == "inside" else place}):
        pass
    monkeypatch.chdir(path)
    with pytest.raises(ConfigError, match=r"no path outside of it|does not say where the encoder is|gone"):
        Searcher(path)
    with Searcher(path, encoder=weights) as searcher:
        assert len(searcher) == 1


def test_another_encoder_is_refused(weights, photos, tmp_path):
    with Searcher(tmp_path / "g", encoder=weights) as searcher:
        searcher.add(photos[:1])
    with pytest.raises(DataError, match="another encoder"):
        Searcher(tmp_path / "g", encoder=rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24))


def test_what_is_damaged_is_embedded_again(searcher, photos, tmp_path):
    searcher.add(photos, camera="door")
    [file] = (tmp_path / "g").glob("vectors*")
    with file.open("r+b") as stream:
        stream.write(b"\xff\xff")
    searcher.close()
    with Searcher(tmp_path / "g", encoder=searcher.encoder) as again:
        with pytest.raises(DamagedGallery, match=r"embeddings of 1 of 5 items \(#1 .*0.png\); drop them"):
            again.search(photos[:1])
        assert str(again.add(photos)) == "1 embedded, 4 there already"
        assert again.gallery.items(ids=[1])[0].camera == "door", "its labels stay"
        assert len(again.search(photos[:1], top=9)[0].hits) == 4


def test_what_is_damaged_and_moved_is_one_item(searcher, photos, tmp_path):
    searcher.add([Sample(path, 1, 1, 0, identity_name=path.name) for path in photos])
    [file] = (tmp_path / "g").glob("vectors*")
    with file.open("r+b") as stream:
        stream.write(b"\xff\xff")
    (tmp_path / "photos").rename(tmp_path / "pictures")
    searcher.close()
    with Searcher(tmp_path / "g", encoder=searcher.encoder) as again:
        again.add([tmp_path / "pictures" / path.name for path in photos])
        assert {(item.source, item.identity) for item in again.gallery.items()} == {
            (str(tmp_path / "pictures" / path.name), path.name) for path in photos
        }
        assert again.gallery.verify().damaged == ()


def test_a_gallery_of_before_gets_contents_as_it_is_indexed_again(searcher, photos, tmp_path):
    searcher.add(photos)
    with sqlite3.connect(tmp_path / "g" / "items.sqlite") as connection:
        assert connection.execute("SELECT COUNT(DISTINCT content) FROM items").fetchone() == (5,)
    gallery = searcher.gallery
    gallery.add(
        gallery.embeddings()[:2], sources=sources(searcher)[:2], identities=["anna", "ben"]
    )  # without contents
    assert str(searcher.add(photos)) == "2 embedded, 3 there already"
    items = gallery.items(where={"source": [str(path) for path in photos[:2]]})
    assert [item.identity for item in items] == ["anna", "ben"], "nothing is said, nothing is taken away"


def test_labels_near_to_what_is_asked_for_are_named(searcher, photos):
    names = ["0012", "0001", "Anna", "yard", "x"]
    searcher.add(
        [Sample(path, 1, 1, 0, identity_name=name) for path, name in zip(photos, names, strict=True)]
    )
    for asked, near in (("1", "0001"), ("anna", "Anna"), ("yrad", "yard"), (["ben", "12"], "0012")):
        assert searcher.why_nothing({"identity": asked}).endswith(f"; did you mean identity={near}?")
    assert "did you mean" not in searcher.why_nothing({"identity": "13"}), "another number is another person"


CALIBRATION = Calibration(
    scores=(-1.0, 1.0),
    log_likelihood_ratios=(-3.0, 3.0),
    false_match_rates=(0.01, 0.1),
    thresholds=(0.9, 0.5),
    true_match_rates=(0.5, 0.9),
    threshold_intervals=((0.8, 1.0), (0.4, 0.6)),
    equal_error_rate=0.1,
    num_positive=100,
    num_negative=1000,
    num_identities=10,
)


def test_a_rate_that_cannot_be_believed_is_given_with_a_warning(searcher, photos, monkeypatch, caplog):
    searcher.add(photos)
    searcher.encoder.calibrate(CALIBRATION)
    monkeypatch.setattr(probabilities, "MIN_ITEMS", len(photos) + 1)
    assert searcher.lowest_score(0.1) == 0.5
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.startswith("a false-match rate of 0.1 may not hold here: ")
    assert "items, too few to check the calibration on" in told


def test_what_scores_mean_is_told_with_the_hits(searcher, photos, monkeypatch):
    searcher.add(photos)
    [plain] = searcher.search(photos[:1])
    assert plain.probabilities == ()
    assert "probability" not in plain.as_list()[0]
    with pytest.raises(ConfigError, match=r"no calibration.*--store-calibration"):
        searcher.lowest_score(0.1)
    searcher.encoder.calibrate(CALIBRATION)
    assert searcher.lowest_score(0.1) == 0.5
    monkeypatch.setattr(Plausibility, "doubt_of", lambda self, embedding: "")
    for given, prior in ((0.1, 0.1), (None, 0.5)):  # 5 images of one identity are all there are
        [found] = searcher.search(photos[:1], prior=given)
        for hit, probability, values in zip(found.hits, found.probabilities, found.as_list(), strict=True):
            assert probability == values["probability"] == CALIBRATION.probability(hit.score, prior=prior)
            assert values["is_query"] is False


def test_where_the_calibration_cannot_be_checked_no_probability_is_shown(searcher, photos):
    searcher.add(photos)
    searcher.encoder.calibrate(CALIBRATION)
    [found] = searcher.search(photos[:1])
    assert found.hits
    assert found.probabilities == ()
    assert found.no_probability == "the gallery holds 5 items, too few to check the calibration on"


def test_hits_below_a_score_are_left_out_and_counted(searcher, photos):
    searcher.add(photos)
    [found] = searcher.search(photos[:1])
    lowest = found.hits[1].score
    [high] = searcher.search(photos[:1], lowest=lowest)
    assert high.hits == found.hits[:2]
    assert high.num_low == len(found.hits) - 2
    [none] = searcher.search(photos[:1], lowest=2.0)
    assert (none.hits, none.num_low, bool(none)) == ((), 4, True)
    [nothing] = searcher.search(photos[:1], where={"camera": 7})
    assert not nothing


def test_labels_of_ones_own_are_listed_too(searcher, photos):
    searcher.add([Sample(photos[0], 1, 0, 0)])
    [item] = searcher.gallery.items()
    searcher.gallery.relabel([item.id], labels={"zone": ["hall"]})
    assert "condition on zone alone leaves 0 of 1 (there are hall)" in searcher.why_nothing({"zone": "yard"})


def test_people_are_found_without_the_picture_itself_and_those_who_were_rejected(searcher, photos):
    samples = [Sample(path, index // 2, 1, index) for index, path in enumerate(photos)]
    searcher.add(samples)
    [found] = searcher.search_people(photos[:1])
    assert {(person.label, person.num_items) for person in found.people} == {("0", 1), ("1", 2), ("2", 1)}
    assert (found.num_own, found.num_rejected) == (1, 0)
    [whole] = searcher.search_people(photos[:1], PeopleSearch(pool="mean"), include_self=True)
    assert next(person for person in whole.people if person.label == "0").num_items == 2
    reject(searcher.gallery, 1, [3], who="zoe")
    [found] = searcher.search_people(photos[:1])
    assert {person.label for person in found.people} == {"0", "2"}
    assert (found.num_own, found.num_rejected) == (1, 2)
    [hits] = searcher.search(photos[1:2], top=2)
    assert {hit.identity for hit in hits.hits} == {"0", "2"}
    assert hits.num_rejected == 2
    [hits] = searcher.search(photos[4:], top=9)
    assert len(hits.hits) == 4


def test_tracklets_are_kept_and_an_unknown_identity_stays_unknown(searcher, photos):
    samples = [Sample(p, -1, 1, i, tracklet=i // 2, identity_name="") for i, p in enumerate(photos)]
    searcher.add(samples)
    assert [(item.identity, item.tracklet) for item in searcher.gallery.items()][:3] == [
        (None, "0"),
        (None, "0"),
        (None, "1"),
    ]
    assert str(searcher.add(samples)) == "5 there already"


def test_what_people_decided_is_not_overruled_by_the_labels_of_files(searcher, photos):
    samples = [Sample(path, index, 1, index) for index, path in enumerate(photos)]
    searcher.add(samples)
    merge(searcher.gallery, "0", ["1"], who="zoe")
    assert str(searcher.add(samples)) == "5 there already"
    assert [item.identity for item in searcher.gallery.items()] == ["0", "0", "2", "3", "4"]
    undo(searcher.gallery, 1, who="zoe")
    draw(photos[1], 99)
    merge(searcher.gallery, "2", ["3"], who="zoe")
    searcher.add(samples)
    assert [item.identity for item in searcher.gallery.items(ids=range(1, 6))] == ["0", "1", "2", "2", "4"]


def test_thumbnails_are_kept_where_that_is_asked_for(searcher, photos):
    searcher.add(photos[:2])
    assert searcher.gallery.info()["num_thumbnails"] == 0
    added = searcher.add(photos, thumbnails=True)
    assert (added.embedded, added.newly_shown) == (len(photos) - 2, 2)
    ids = [item.id for item in searcher.gallery.items()]
    for number, data in searcher.gallery.thumbnails(ids=ids).items():
        [item] = searcher.gallery.items(ids=[number])
        small, whole = (np.asarray(load_image(source), float) for source in (data, item.source))
        assert small.shape == whole.shape  # these photos are small themselves
        assert abs(small - whole).mean() < 12
    assert str(searcher.add(photos, thumbnails=True)) == f"{len(photos)} there already"
    searcher.add(photos)  # and nothing is lost without it
    assert len(searcher.gallery.thumbnails(ids=ids)) == len(photos)
