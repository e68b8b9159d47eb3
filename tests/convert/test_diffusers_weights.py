"""Which weights a folder of diffusers has, and what is wrong with them; no network is needed for that."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from score_sde.convert import CheckpointError, diffusers, safetensors
from score_sde.convert.diffusers_weights import choose, is_weights, read
from tests.convert.test_diffusers import folder

A, B = {"a": np.float32([1.0, 2.0])}, {"b": np.float32([3.0])}


@pytest.fixture
def unet(tmp_path):
    """A folder of weights, ``unet/``, without any."""
    return folder(tmp_path / "x", None) / "unet"


def put(unet, name, tensors, kind=None):
    values = {key: value.astype(kind or value.dtype) for key, value in tensors.items()}
    safetensors.write(unet / name, values, {"format": "pt"})


def shards(unet, index="diffusion_pytorch_model.safetensors.index.json", **where):
    """Two files and their index."""
    names = {key: f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i, key in enumerate("ab", 1)}
    put(unet, names["a"], A)
    put(unet, names["b"], B)
    (unet / index).write_text(json.dumps({"metadata": {}, "weight_map": names | where}))
    return unet / index


@pytest.mark.parametrize("variant", ["", ".fp16", ".non_ema"])
def test_the_only_variant_is_read(unet, variant):
    put(unet, f"diffusion_pytorch_model{variant}.safetensors", A, np.float16)
    assert choose(unet).name == f"diffusion_pytorch_model{variant}.safetensors"
    found = read(choose(unet))
    assert found["a"].dtype == np.float32
    np.testing.assert_array_equal(found["a"], A["a"])
    assert is_weights(choose(unet)) and not is_weights(unet / "config.json")


def test_that_without_a_variant_comes_first_and_others_are_named(unet):
    for variant in (".fp16", ".non_ema"):
        put(unet, f"diffusion_pytorch_model{variant}.safetensors", A)
    said = r"unet/ has the variants fp16, non_ema; name one: --checkpoint=unet/diffusion_pytorch_model.fp16"
    with pytest.raises(CheckpointError, match=said):
        choose(unet)
    (unet / "diffusion_pytorch_model.bin").write_bytes(b"")
    assert choose(unet).name == "diffusion_pytorch_model.bin"
    put(unet, "diffusion_pytorch_model.safetensors", B)
    assert choose(unet).name == "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    "index",
    [
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.fp16.safetensors.index.json",
    ],
)
def test_several_files_are_read_by_their_index(unet, index):
    path = shards(unet, index)
    assert choose(unet) == path
    found = read(path)
    assert found.keys() == {"a", "b"}
    np.testing.assert_array_equal(found["b"], B["b"])


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (
            {"a": "diffusion_pytorch_model-00009-of-00002.safetensors"},
            "00009-of-00002.safetensors, which is",
        ),
        ({"a": "../a.safetensors"}, r"names '\.\./a.safetensors', which is no file of the folder"),
        ({"a": "/etc/passwd"}, "names '/etc/passwd', which is no file of the folder"),
        ({"c": "diffusion_pytorch_model-00001-of-00002.safetensors"}, "in none of the files: c"),
        ({"a": 3}, "is damaged|names 3, which is no file"),
    ],
)
def test_an_index_that_is_wrong_is_named(unet, where, said):
    with pytest.raises(CheckpointError, match=said):
        read(shards(unet, **where))


def test_a_tensor_in_two_files_or_outside_the_index_and_a_torn_file_are_named(unet):
    path = shards(unet)
    first = unet / "diffusion_pytorch_model-00001-of-00002.safetensors"
    put(unet, first.name, A | B)
    with pytest.raises(CheckpointError, match="in two files: b"):
        read(path)
    put(unet, first.name, A | {"z": A["a"]})
    with pytest.raises(CheckpointError, match="in a file and not in the index: z"):
        read(path)
    first.write_bytes(first.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=f"{first.name}: cut off"):
        read(path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"index.json is damaged: no weight_map"):
        read(path)


def test_values_that_half_precision_could_not_hold_are_named(unet):
    with np.errstate(over="ignore"):
        put(unet, "diffusion_pytorch_model.fp16.safetensors", {"a": np.float32([1e6])}, np.float16)
    with pytest.raises(CheckpointError, match=r"fp16.safetensors: a has values .* not finite, as float16"):
        read(choose(unet))


def test_what_is_there_is_listed_where_nothing_can_be_read(unet):
    (unet / "weights.h5").write_text("")
    with pytest.raises(CheckpointError, match=r"no weights in unet/: .* it holds config.json, weights.h5"):
        diffusers.read(unet.parent)
    (unet / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config.json in unet/: .* it holds weights.h5"):
        diffusers.read(unet.parent)


def test_a_pipeline_of_latents_is_refused(unet):
    put(unet, "diffusion_pytorch_model.safetensors", A)
    (unet.parent / "model_index.json").write_text(json.dumps({"unet": [], "scheduler": [], "vqvae": []}))
    for path in (unet.parent, unet, unet / "diffusion_pytorch_model.safetensors"):
        with pytest.raises(CheckpointError, match=r"x/ is a pipeline with vqvae/: its network makes codes"):
            diffusers.read(path)
    (unet.parent / "model_index.json").unlink()
    assert diffusers.read(unet.parent).average.keys() == {"a"}
    (unet.parent / "vae").mkdir()
    with pytest.raises(CheckpointError, match=r"with vae/"):
        diffusers.read(unet.parent)


def test_files_that_are_not_what_they_are_named_are_told(unet):
    def said(path):
        with pytest.raises(CheckpointError) as error:
            read(path)
        return str(error.value)

    file = unet / "diffusion_pytorch_model.safetensors"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    assert said(file) == f"{file.name} is a Git LFS pointer, not the file itself: run git lfs pull"
    file.write_bytes(b"")
    assert said(file) == f"{file.name} is an empty file: download it again"
    file.write_bytes(b"  <!DOCTYPE html><html>")
    assert "is a web page: the download has failed" in said(file)
    file.unlink()
    file.symlink_to("../blobs/abc")
    assert said(file) == f"{file.name} is a link to ../blobs/abc, which is missing: download it again"
    index = shards(unet)
    shard = unet / "diffusion_pytorch_model-00001-of-00002.safetensors"
    assert is_weights(shard)
    assert f"{shard.name} is one of several files of weights: name their index" in said(shard)
    shard.unlink()
    shard.symlink_to("../blobs/abc")
    assert "is a link to ../blobs/abc, which is missing" in said(index)
    (unet / "config.json").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"config.json is an empty file"):
        diffusers.read(unet)


def test_the_folder_that_is_worked_in_has_a_scheduler_beside_it(unet, monkeypatch):
    put(unet, "diffusion_pytorch_model.safetensors", A)
    scheduler = unet.parent / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"num_train_timesteps": 400}))
    monkeypatch.chdir(unet)
    assert diffusers.read(Path()).config["sde"]["steps"] == 400


def test_an_average_beside_the_network_is_pointed_at(unet):
    put(unet, "diffusion_pytorch_model.safetensors", A)
    other = unet.parent / "unet_ema"
    other.mkdir()
    (other / "config.json").write_text((unet / "config.json").read_text())
    put(other, "diffusion_pytorch_model.safetensors", B)
    with pytest.warns(UserWarning, match="unet_ema holds averaged weights, .* --checkpoint=.*unet_ema reads"):
        assert diffusers.read(unet.parent).average.keys() == {"a"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in (other, other / "diffusion_pytorch_model.safetensors"):
            release = diffusers.read(path)
            assert release.average.keys() == {"b"}
            assert release.config["sde"]["steps"] == 1000  # of the scheduler beside
