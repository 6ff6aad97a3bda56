from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import CommandLine
from tests.tiny import write_tiny
from vqabench.data.features import extraction, writer
from vqabench.data.features.extraction import Extraction, cells_of, extract, parse_regions, pool
from vqabench.data.features.images import decode, list_images
from vqabench.data.features.store import open_features
from vqabench.data.features.vision import load_model
from vqabench.errors import InputError

transformers: Any = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
PATCHES = {**SIZES, "image_size": 48, "patch_size": 8}
PROCESSOR = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "resample": 2}
CPU = torch.device("cpu")


def clip() -> Any:
    text = transformers.CLIPTextConfig(**SIZES, vocab_size=20).to_dict()
    vision = transformers.CLIPVisionConfig(**PATCHES).to_dict()
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))


MODELS: dict[str, Any] = {
    "clip": clip,
    "siglip": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**PATCHES)),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**PATCHES, mlp_ratio=2)),
    "registers": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**PATCHES, num_register_tokens=3)
    ),
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**PATCHES), add_pooling_layer=False),
    "resnet": lambda: transformers.ResNetModel(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ),
}


def save_model(folder: Path, name: str = "clip") -> Path:
    torch.manual_seed(0)
    MODELS[name]().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "size": {"height": 48, "width": 48}}))
    return folder


def draw(path: Path, seed: int, mode: str = "RGB", **options: Any) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 64, 4), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "val").mkdir(parents=True)
    for number in range(1, 6):
        draw(folder / f"COCO_train2014_{number:012d}.jpg", number)
    draw(folder / "val" / "7.png", 7, "RGBA")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


def quietly(source: Path, destination: Path, **asked: Any) -> int:
    return extract(source, destination, Extraction(**asked), CPU, lambda _: None)


@pytest.mark.parametrize("name", MODELS)
def test_regions_are_means_of_the_patches_in_their_cells(images: Path, tmp_path: Path, name: str) -> None:
    folder = save_model(tmp_path / "own", name)
    assert quietly(images, tmp_path / "f.h5", model=str(folder), regions="4", batch_size=4) == 6
    assert quietly(images, tmp_path / "p.h5", model=str(folder), regions="patches") == 6
    pooled, patches = open_features(tmp_path / "f.h5"), open_features(tmp_path / "p.h5")
    assert pooled.image_ids.tolist() == [1, 2, 3, 4, 5, 7]
    side = int(patches.regions.shape[1] ** 0.5)
    assert side == 6
    grid = patches.regions.astype(np.float64).reshape(6, side, side, 16)
    halves = slice(0, 3), slice(3, 6)
    expected = np.stack([grid[:, rows, columns].mean((1, 2)) for rows in halves for columns in halves], 1)
    np.testing.assert_allclose(pooled.regions, expected, atol=3e-3)
    assert pooled.boxes[0].tolist() == [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    with h5py.File(tmp_path / "f.h5") as file:
        about = json.loads(file.attrs["about"])
    assert (about["side"], about["regions"]) == (48, "4")


def test_the_features_are_those_that_the_model_gives_of_the_whole_image(images: Path, model: Path) -> None:
    loaded = load_model(str(model), None, CPU)
    (first, *_) = list_images(images).values()
    network = transformers.CLIPVisionModel.from_pretrained(model)
    resized = decode(first).resize((48, 48), Image.Resampling.BILINEAR)
    mean, deviation = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    pixels = (torch.from_numpy(np.array(resized)) / 255 - mean) / deviation
    with torch.no_grad():
        hidden = network(pixel_values=pixels.permute(2, 0, 1)[None]).last_hidden_state[0, 1:]
    own = loaded.patches(loaded.prepare(decode(first))[None])[0].flatten(1).T
    torch.testing.assert_close(own, hidden, atol=1e-5, rtol=1e-4)


def test_cells_overlap_where_they_cut_through_a_patch_as_pooling_does() -> None:
    patches = torch.rand(1, 3, 7, 7)
    pooled = pool(patches, (2, 3))[0]
    for region, box in zip(pooled, cells_of((2, 3), 7), strict=True):
        left, top, right, bottom = (round(float(side) * 7) for side in box)
        torch.testing.assert_close(region, patches[0, :, top:bottom, left:right].mean((1, 2)))


@pytest.mark.parametrize(
    ("spelled", "grid"),
    [("36", (6, 6)), ("12", (3, 4)), ("7", (1, 7)), ("4x9", (4, 9)), ("patches", None), ("1", (1, 1))],
)
def test_numbers_of_regions_become_the_grid_nearest_to_a_square(spelled: str, grid: tuple[int, int] | None) -> None:
    assert parse_regions(spelled) == grid


@pytest.mark.parametrize("spelled", ["0", "-3", "x4", "4x", "many", "99999"])
def test_other_numbers_of_regions_are_refused(spelled: str) -> None:
    with pytest.raises(InputError, match="--regions"):
        parse_regions(spelled)


def test_images_of_any_mode_are_decoded_and_turned(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # held on its side
    draw(tmp_path / "1.jpg", 1, exif=turned)
    for number, mode in enumerate(("L", "RGBA", "P", "1"), 2):
        draw(tmp_path / f"{number}.png", number, mode)
    decoded = [decode(image) for image in list_images(tmp_path).values()]
    assert [image.size for image in decoded] == [(40, 64)] + [(64, 40)] * 4
    assert {image.mode for image in decoded} == {"RGB"}


def test_a_zip_gives_what_a_folder_gives(images: Path, model: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in images.rglob("*.*"):
            archive.write(path, path.relative_to(images))
    for source in (images, tmp_path / "images.zip"):
        quietly(source, tmp_path / f"{source.name}.h5", model=str(model))
    one, other = open_features(tmp_path / "images.h5"), open_features(tmp_path / "images.zip.h5")
    assert one.image_ids.tolist() == other.image_ids.tolist()
    assert np.array_equal(one.regions, other.regions)


def test_a_broken_image_is_refused_or_left_out(images: Path, model: Path, tmp_path: Path) -> None:
    path = images / "COCO_train2014_000000000003.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"000003\.jpg: not an image, or a damaged one"):
        quietly(images, tmp_path / "f.h5", model=str(model), batch_size=1)
    message: list[str] = []
    asked = Extraction(str(model), broken="skip")
    assert extract(images, tmp_path / "f.h5", asked, CPU, message.append) == 5
    assert "continuing after the 2 images that are done" in message
    assert re.fullmatch(r"1 image left out: .*000003\.jpg: not an image, or a damaged one: .*", message[-1])
    assert not list(tmp_path.glob(".f.h5*"))
    assert open_features(tmp_path / "f.h5").image_ids.tolist() == [1, 2, 4, 5, 7]


def test_two_images_of_one_id_are_both_named(images: Path) -> None:
    draw(images / "3.png", 3)
    with pytest.raises(InputError, match=r"3\.png and .*000003\.jpg are both image 3|000003\.jpg and .*3\.png"):
        list_images(images)


ONE_BY_ONE = """
import sys
from pathlib import Path
import torch
from vqabench.data.features import extraction, writer
writer.SHARD_IMAGES = 1
asked = extraction.Extraction(sys.argv[3], batch_size=1)
extraction.extract(Path(sys.argv[1]), Path(sys.argv[2]), asked, torch.device("cpu"), lambda line: None)
"""


def test_a_killed_extraction_continues_after_its_shards(images: Path, model: Path, tmp_path: Path) -> None:
    for number in range(100, 130):
        draw(images / f"{number}.png", number)
    destination = tmp_path / "f.h5"
    command = [sys.executable, "-c", ONE_BY_ONE, str(images), str(destination), str(model)]
    with subprocess.Popen(command) as child:
        while not list(tmp_path.glob(".f.h5.shards-*/000002.entries")):
            assert child.poll() is None
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
    assert not destination.exists()
    message: list[str] = []
    assert extract(images, destination, Extraction(str(model), batch_size=1), CPU, message.append) == 36
    done = [int(line.split()[3]) for line in message if line.startswith("continuing after the ")]
    assert 3 <= done[0] < 36
    quietly(images, tmp_path / "whole.h5", model=str(model), batch_size=1)
    assert destination.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not list(tmp_path.glob(".f.h5*"))


def test_extracted_features_train(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "six"
    folder.mkdir()
    for image in range(6):
        draw(folder / f"{image}.png", image)
    catalog = write_tiny(tmp_path / "own")
    catalog.write_text(catalog.read_text().replace("features.tsv", "features.h5"))
    out = catalog.parent / "features.h5"
    done = cli("data", "extract", folder, "--model", model, "--out", out, "--regions", "2x3")
    assert (done.returncode, "features of 6 images" in done.stdout) == (0, True), done.stderr
    sizes = ("--epochs", "1", "--set", "hidden=4", "--set", "embedding=4")
    assert cli("train", "updn", "--dataset", "tiny", "--catalog", catalog, *sizes).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "nowhere"}, "nowhere: there is no such folder of images"),
        ({"images": "empty"}, "empty: holds no images (.jpg, .jpeg, .png,"),
        ({"images": "model/config.json"}, "neither a folder nor a zip of images"),
        ({"out": "no/f.h5"}, "no/f.h5: there is no folder"),
        ({"out": "model/config.json"}, "config.json: exists"),
        ({"regions": "0"}, "--regions '0': write a number"),
        ({"regions": "2x7"}, "--regions: 2 x 7 are more than"),
    ],
)
def test_mistakes_are_one_line(
    cli: CommandLine, images: Path, model: Path, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    asked = {"images": str(images), "model": str(model), "out": "f.h5", "regions": "36"} | change
    folder = asked.pop("images")
    options = [part for name, value in asked.items() for part in (f"--{name}", value)]
    done = cli("data", "extract", folder, *options)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert done.stderr.count("error: ") == 1


def test_a_model_that_cannot_be_had_is_one_line(vqabench: CommandLine, images: Path) -> None:
    done = vqabench("data", "extract", images, "--model", "no/such-model", "--out", "f.h5", HF_HUB_OFFLINE="1")
    assert done.returncode == 2, done.stderr
    loading, error = done.stderr.splitlines()
    assert loading == "loading no/such-model from the Hugging Face hub"
    assert error.startswith("error: --model no/such-model: cannot be loaded")


def test_a_model_of_words_is_refused(images: Path, tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=20)).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "preprocessor_config.json").write_text("{}")
    with pytest.raises(InputError, match="takes input_ids, no images"):
        quietly(images, tmp_path / "f.h5", model=str(tmp_path / "bert"))


def test_other_weights_under_the_same_name_begin_anew(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "pool", fail_at_the_third())
        with pytest.raises(KeyboardInterrupt):
            quietly(images, tmp_path / "f.h5", model=str(model), batch_size=1)
    network = MODELS["clip"]()
    network.save_pretrained(model)
    message: list[str] = []
    extract(images, tmp_path / "f.h5", Extraction(str(model)), CPU, message.append)
    assert not any("continuing" in line for line in message)


def fail_at_the_third() -> Any:
    calls: list[int] = []

    def pool_or_fail(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return pool(*arguments)

    return pool_or_fail


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_flip_channel_order": True}, "colours in reverse order"),
        ({"image_mean": None}, "has no image_mean"),
        ({"image_mean": ["a", 0, 0]}, r"Expected `float`, got `str` - at `\$\.image_mean\[0\]`"),
        ({"image_std": [1, 0, 1]}, "image_std of 0"),
        ({"resample": "bicubic"}, r"Expected `int`, got `str` - at `\$\.resample`"),
        ({"resample": 99}, r"Expected `int` <= 5 - at `\$\.resample`"),
        ({"rescale_factor": None}, r"Expected `float`, got `null` - at `\$\.rescale_factor`"),
        ({"size": 60_000, "crop_size": 60_000}, "wants images of 60,000 pixels a side"),
    ],
)
def test_models_that_want_other_pixels_are_refused(model: Path, settings: dict[str, Any], message: str) -> None:
    path = model / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(InputError, match=message):
        load_model(str(model), None, CPU)


def test_a_model_that_wants_no_normalisation_gets_none(model: Path) -> None:
    path = model / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_normalize": False}))
    loaded = load_model(str(model), None, CPU)
    assert (loaded.mean.tolist(), loaded.deviation.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_pixels_are_scaled_as_the_model_was_trained(model: Path) -> None:
    path = model / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rescale_factor": 1 / 127.5, "do_normalize": False}))
    white = Image.new("RGB", (8, 8), "white")
    np.testing.assert_allclose(load_model(str(model), None, CPU).prepare(white), 2.0)


def remove_weights(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config))


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def widen(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_weights, "the checkpoint lacks weights of the model: .*layers"),
        (widen, "the checkpoint lacks weights of the model: .*mlp"),
        (cut_weights, "cannot be loaded: Error while deserializing header"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "holds no preprocessor_config.json"),
        (
            lambda folder: (folder / "preprocessor_config.json").write_text("[]"),
            "preprocessor_config.json: Expected `object`, got `array`",
        ),
    ],
)
def test_a_folder_that_is_not_a_whole_model_is_refused(model: Path, damage: Any, message: str) -> None:
    damage(model)
    with pytest.raises(InputError, match=message):
        load_model(str(model), None, CPU)


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("{model}/config.json", None, "is a file; name the folder"),
        ("{model}/none", None, "there is no such folder"),
        ("./none", None, "there is no such folder"),
        ("{model}", "main", "--revision main: a folder has no revisions"),
    ],
)
def test_a_model_named_wrongly_is_told_as_what_it_is(
    model: Path, name: str, revision: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_model(name.format(model=model), revision, CPU)


def test_an_input_that_the_model_cannot_take_is_told_with_its_size(
    images: Path, model: Path, tmp_path: Path
) -> None:
    path = model / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | {"size": {"height": 2, "width": 2}, "crop_size": None}
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"cannot take images of 2 x 2"):
        quietly(images, tmp_path / "f.h5", model=str(model))


def test_grey_of_16_bits_is_as_bright_as_that_of_8(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "1.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "2.png")
    eight, sixteen = (np.asarray(decode(image)) for image in list_images(tmp_path).values())
    np.testing.assert_array_equal(eight, sixteen)


def test_linked_folders_are_looked_into_once(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "other").mkdir()
    draw(tmp_path / "images" / "1.png", 1)
    draw(tmp_path / "other" / "2.png", 2)
    (tmp_path / "images" / "val2014").symlink_to(tmp_path / "other")
    (tmp_path / "images" / "again").symlink_to(tmp_path / "images")
    assert list(list_images(tmp_path / "images")) == [1, 2]


def test_a_name_that_is_no_text_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    draw(tmp_path / "1.png", 1)
    (tmp_path / "1.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(InputError, match="is not in UTF-8"):
        list_images(tmp_path)


def test_an_image_that_was_changed_since_is_computed_anew_with_those_behind_it(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_IMAGES", 1)
    whole = images / "COCO_train2014_000000000003.jpg"
    content = whole.read_bytes()
    whole.write_bytes(content[:200])
    with pytest.raises(InputError):
        quietly(images, tmp_path / "f.h5", model=str(model), batch_size=1)
    draw(images / "COCO_train2014_000000000002.jpg", 77)
    whole.write_bytes(content)
    message: list[str] = []
    extract(images, tmp_path / "f.h5", Extraction(str(model)), CPU, message.append)
    assert "continuing after the 1 images that are done" in message
    quietly(images, tmp_path / "whole.h5", model=str(model))
    np.testing.assert_array_equal(
        open_features(tmp_path / "f.h5").regions, open_features(tmp_path / "whole.h5").regions
    )


def test_numbers_and_words_for_ids_do_not_mix(images: Path) -> None:
    draw(images / "dog.png", 3)
    with pytest.raises(InputError, match=r"dog\.png: its name is not a number"):
        list_images(images)
