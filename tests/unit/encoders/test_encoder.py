import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import reidkit as rk
from reidkit.cli import cli
from reidkit.encoders.encoder_file import save_weights
from reidkit.errors import CheckpointError, ConfigError, DataError
from reidkit.types import Sample


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24, card={"epoch": 3})


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    made = [tmp_path / f"{i}.png" for i in range(5)]
    for path in made:
        Image.fromarray(rng.integers(0, 256, (60, 30, 3), dtype=np.uint8)).save(path)
    return made


def test_paths_images_and_arrays_give_the_same_unit_embeddings(encoder, paths):
    by_path = encoder.encode(paths)
    assert by_path.shape == (5, encoder.dim)
    assert by_path.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(by_path, axis=1), 1, atol=1e-6)
    images = [Image.open(path) for path in paths]
    np.testing.assert_allclose(encoder.encode(images), by_path, atol=1e-6)
    np.testing.assert_allclose(encoder.encode([np.asarray(image) for image in images]), by_path, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(str(paths[0])), by_path[:1], atol=1e-6)
    np.testing.assert_allclose(encoder.encode(paths, batch_size=2), by_path, atol=1e-6)
    contents = [path.read_bytes() for path in paths]
    np.testing.assert_allclose(encoder.encode(contents), by_path, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(contents[0]), by_path[:1], atol=1e-6)
    with paths[0].open("rb") as file:
        np.testing.assert_allclose(encoder.encode(file), by_path[:1], atol=1e-6)


@pytest.mark.parametrize("size", [(48, 24), (24, 48), (96, 48)])
def test_an_array_is_prepared_as_the_image_of_its_pixels(encoder, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for array in (pixels, pixels[:, ::-1], pixels[..., :1]):
        prepared = encoder.prepare(array)
        np.testing.assert_array_equal(prepared, encoder.prepare(Image.fromarray(array.squeeze())))
        assert not np.shares_memory(prepared, array)


def test_a_turned_picture_embeds_as_its_file(encoder, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (30, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        np.testing.assert_array_equal(encoder.encode(image), encoder.encode(tmp_path / "turned.png"))


def test_samples_embed_as_what_their_boxes_cut_out(encoder, paths):
    sample = Sample(paths[0], 1, 1, 0, box=(5, 5, 25, 55))
    with Image.open(paths[0]) as image:
        crop = image.crop((5, 5, 25, 55))
    np.testing.assert_array_equal(encoder.encode(sample), encoder.encode(crop))


def test_what_cannot_be_read_is_skipped_where_the_caller_counts_it(encoder, paths, tmp_path):
    (tmp_path / "broken.png").write_bytes(paths[0].read_bytes()[:500])
    outside = Sample(paths[0], 1, 1, 0, box=(500, 0, 600, 90))
    images = [tmp_path / "broken.png", *paths, outside]
    skipped = {}
    embeddings = encoder.encode(images, batch_size=3, skip=skipped.__setitem__)
    np.testing.assert_array_equal(embeddings, encoder.encode(paths, batch_size=3))
    assert sorted(skipped) == [0, 6]
    assert "broken.png is truncated or damaged" in str(skipped[0])
    assert "holds no pixel of the 30 x 60 image" in str(skipped[6])
    assert encoder.encode([outside] * 3, skip=skipped.__setitem__).shape == (0, encoder.dim)
    with pytest.raises(DataError, match="holds no pixel"):
        encoder.encode(images[1:])
    with pytest.raises(DataError, match="holds no pixel"):
        encoder.features((outside,))


def test_the_command_leaves_out_what_it_cannot_read_below_folders(encoder, paths, tmp_path):
    file, out = encoder.save(tmp_path / "e.safetensors"), tmp_path / "f.NPZ"
    (tmp_path / "photos").mkdir()
    for path in paths:
        path.rename(tmp_path / "photos" / path.name)
    broken = tmp_path / "photos" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 half")
    (tmp_path / "photos" / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    result = CliRunner().invoke(cli, ["encode", str(file), str(tmp_path / "photos"), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "left out: 1 .mov (a video: cut pictures out of it)" in result.stderr
    assert "left out: 1 of 6 images, which could not be read:" in result.stderr
    assert "broken.jpg is truncated or damaged" in result.stderr
    with np.load(out) as file_of_features:
        assert len(file_of_features["embeddings"]) == 5
        assert str(broken) not in file_of_features["paths"].tolist()
    result = CliRunner().invoke(cli, ["encode", str(file), str(broken), "--out", str(out)])
    assert isinstance(result.exception, DataError), "named by itself it is an error"


def test_nothing_gives_nothing(encoder):
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_progress_is_told(encoder, paths):
    told = []
    encoder.encode(paths, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_bad_images_are_named(encoder, paths, tmp_path):
    with pytest.raises(DataError, match=r"image array has the shape \(3, 60, 30\) and the type float64"):
        encoder.encode(np.zeros((3, 60, 30)))
    with pytest.raises(DataError, match="nobody"):
        encoder.encode([paths[0], tmp_path / "nobody.jpg"])


def test_save_and_load_keep_everything(encoder, paths, tmp_path):
    file = encoder.save(tmp_path / "e.safetensors")
    again = rk.load_encoder(file)
    assert (again.height, again.width, again.card) == (48, 24, {"epoch": 3})
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(again.encode(paths), encoder.encode(paths))
    assert encoder.save(tmp_path / "f.safetensors").read_bytes() == file.read_bytes()


def test_the_fingerprint_tells_networks_apart(encoder):
    torch.manual_seed(1)
    other = rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24)
    assert other.fingerprint != encoder.fingerprint
    assert rk.Encoder(encoder.model, height=48, width=32).fingerprint != encoder.fingerprint


def test_what_cannot_be_loaded_is_said(encoder, tmp_path):
    with pytest.raises(CheckpointError, match="no such run folder or weights file"):
        rk.load_encoder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no encoder"):
        rk.load_encoder(tmp_path)
    (tmp_path / "given.xml").touch()
    with pytest.raises(CheckpointError, match=r"give the network's file itself: .*given\.xml"):
        rk.load_encoder(tmp_path)
    description = {"model": {"name": "timm:test_vit"}, "transform": {"height": 8, "width": 4}, "card": {}}
    save_weights(tmp_path / "wrong.safetensors", encoder.model.state_dict(), description)
    with pytest.raises(
        CheckpointError,
        match=r"does not fit the network it names.*weights are missing \(\d+, .*left over \(\d+,",
    ):
        rk.load_encoder(tmp_path / "wrong.safetensors")


def test_weights_that_give_nan_are_refused(paths):
    model = rk.build_model("timm:test_resnet")
    model.neck.weight.data.fill_(float("nan"))
    with pytest.raises(DataError, match=r"not finite for 5 of 5 images \(first: 0\)"):
        rk.Encoder(model, height=48, width=24).encode(paths)


def test_a_feature_that_is_asked_for_does_not_change_the_model(paths):
    model = rk.build_model("timm:test_resnet")
    torch.nn.init.normal_(model.neck.running_mean)  # untrained, it would give what it is given
    before = rk.Encoder(model, height=48, width=24).encode(paths)
    pooled = rk.Encoder(model, height=48, width=24, feature="pooled")
    assert not np.allclose(pooled.encode(paths), before)
    assert model.embedding_feature == "neck"
    np.testing.assert_array_equal(rk.Encoder(model, height=48, width=24).encode(paths), before)
    assert pooled.model.neck is model.neck, "weights are shared"


def test_an_encoder_leaves_the_model_as_it_was(paths):
    model = rk.build_model("timm:test_resnet").train()
    model.neck.eval()  # frozen, as training may have it
    before = [module.training for module in model.modules()]
    assert set(before) == {True, False}
    encoder = rk.Encoder(model, height=48, width=24, device="cpu")
    np.testing.assert_allclose(
        np.concatenate([encoder.encode(p) for p in paths]), encoder.encode(paths), atol=1e-6
    )
    assert [module.training for module in model.modules()] == before
    assert model.neck.num_batches_tracked == 0
    elsewhere = rk.Encoder(model, height=48, width=24, device="meta")
    assert next(elsewhere.model.parameters()).is_meta
    assert not next(model.parameters()).is_meta
    assert rk.Encoder(model, height=48, width=24, device="cpu").model is model, "no copy where none is needed"


def test_loading_draws_no_random_numbers(encoder, paths, tmp_path):
    """Weights are the file's; drawing others first takes longer, and disturbs what the caller draws."""
    file = encoder.save(tmp_path / "e.safetensors")
    state = torch.get_rng_state()
    again = rk.load_encoder(file)
    assert torch.equal(torch.get_rng_state(), state)
    assert not again.model.training
    np.testing.assert_array_equal(again.encode(paths), encoder.encode(paths))


@pytest.mark.parametrize("path", [None, "", 3, ["a.safetensors"]])
def test_what_is_no_path_is_told(path):
    with pytest.raises(ConfigError, match="give a run folder or a network's file, or reidkit-small"):
        rk.load_encoder(path)
