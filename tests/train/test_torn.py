"""Files of a run that a full disk or a bad copy has torn: each is named, with what is whole beside it."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from score_sde.experiment.files import load_saved, save
from score_sde.names import ConfigError
from score_sde.runtime.files import read_json, write_json
from score_sde.runtime.mesh import make_mesh
from score_sde.train import Checkpoints
from score_sde.train.best import read_best
from score_sde.train.step import init_state
from tests.cli.test_cli import message
from tests.train.test_training import Noise


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder of checkpoints of steps 1 and 2, and the state that both hold."""
    state = init_state(Noise(), optax.sgd(0.1), 3)({})
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state)
    return folder, state


def empty_metadata(state):
    (state / "_METADATA").write_text("")


def no_metadata(state):
    (state / "_METADATA").unlink()


def no_folder(state):
    shutil.rmtree(state)


def cut_arrays(state):
    for file in state.rglob("d/*"):  # where the storage keeps values
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("spoil", [empty_metadata, no_metadata, no_folder, cut_arrays])
def test_a_damaged_checkpoint_is_named_with_the_whole_one_beside_it(run, tmp_path, spoil):
    folder, state = run
    copy = shutil.copytree(folder, tmp_path / "checkpoints")
    spoil(copy / "2" / "state")
    shapes, mesh = jax.eval_shape(lambda: state), make_mesh(devices=jax.devices()[:1])
    said = r"checkpoints/2 cannot be read, and may be damaged; beside it is step 1: --step=1 uses that one"
    with Checkpoints(copy) as checkpoints:
        for read in (checkpoints.restore, lambda s, m: checkpoints.restore_ema(s.ema, m)):
            with pytest.raises(ValueError, match=said):
                read(shapes, mesh)
        whole = checkpoints.restore(shapes, mesh, 1)
    jax.tree.map(np.testing.assert_array_equal, whole.params, state.params)
    shutil.rmtree(copy / "1")
    with Checkpoints(copy) as checkpoints, pytest.raises(ValueError, match="damaged; there is no other"):
        checkpoints.restore(shapes, mesh)


def test_a_checkpoint_of_another_architecture_is_not_called_damaged(run):
    folder, state = run
    shapes = jax.eval_shape(lambda: state.ema | {"more": jnp.zeros(3)})
    with Checkpoints(folder) as checkpoints, pytest.raises(ValueError, match=r"does not fit the config"):
        checkpoints.restore_ema(shapes, make_mesh(devices=jax.devices()[:1]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"config": {"seed"', "is torn, or no JSON"),
        (b"\xff\xfe\x00", "is torn, or no JSON"),
        (b"[1, 2]", "holds list, expected a JSON object"),
    ],
)
def test_a_torn_json_file_is_named(tmp_path, capsys, content, said):
    save(tmp_path, {"seed": 0})
    assert load_saved(tmp_path)[0].seed == 0
    write_json(tmp_path / "best.json", {"step": 1, "metric": "m", "value": 2.0})
    assert read_json(tmp_path / "best.json")["step"] == 1
    for name in ("config.json", "best.json"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"config.json: {said}"):
        load_saved(tmp_path)
    with pytest.raises(ValueError, match=f"best.json: {said}"):
        read_json(tmp_path / "best.json")
    assert read_best(tmp_path / "best.json") is None  # it is made again
    assert f"config.json: {said}" in message(capsys, "--mode=sample", f"--workdir={tmp_path}")


def test_a_file_of_something_else_in_place_of_the_config_is_named(tmp_path, capsys):
    write_json(tmp_path / "config.json", {"steps": 3})
    assert "config.json: holds no config" in message(capsys, "--mode=sample", f"--workdir={tmp_path}")
