"""What the command line refuses before anything is done, and how soon."""

import subprocess
import sys

import pytest

from score_sde.flags import FLAGS, MODES, parse
from tests.conftest import ROOT

DIGITS = f"--config={ROOT / 'configs' / 'vp_digits.py'}"


def message(capsys, *words):
    """What a refused command line prints."""
    with pytest.raises(SystemExit) as stop:
        parse(["run.py", *words], "usage")
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mode=likelihood", "--num_samples=3"), "--num_samples=3: --mode=likelihood does not read it"),
        (("--mode=likelihood", "--num_samples=3"), "it is for sample, evaluate"),
        (("--mode=train", "--best"), "--best=True: --mode=train does not read it"),
        (("--mode=search", "--condition=label=3"), "it is for sample, encode, decode, interpolate"),
        (
            ("--mode=sample", "--label=3"),
            "no such flag, and the model takes no condition",
        ),
        (
            ("--mode=sample", "--config.likelihood.nodes=8"),
            "does not read config.likelihood; it is for train, likelihood, dequantiser, outliers",
        ),
        (("--mode=sample", "--config.training.steps=8"), "it is for train, dequantiser, report, import"),
        (
            ("--mode=train", "--config.sampling.solver=heun", "--config.sampling.solver.eta=1"),
            "'heun' has no",
        ),
        (("--mode=train", "--config.sampling.solver.eta=1"), "'ddim', 'sde_dpmpp_2m'"),
        (("--mode=train", "--config.sampling.round_to_levels=9"), "config.sampling.process is 'trained'"),
        (
            (
                "--mode=train",
                "--config.training.best_metric=sample_pixels_kid",
                "--config.training.sample_every_steps=0",
            ),
            "best_metric = 'sample_pixels_kid': is never measured with training.sample_every_steps = 0",
        ),
        (
            (
                "--mode=train",
                "--config.training.best_metric=held_out_loss_raw",
                "--config.training.eval_every_steps=0",
            ),
            "best_metric = 'held_out_loss_raw': is never measured with training.eval_every_steps = 0",
        ),
        (("--mode=train", "--config.likelihood.vlb.steps=9"), "nothing reads it: it is for 'vlb'"),
        (("--mode=evaluate", "--config.evaluate.inception_score.splits=9"), "it is for 'inception_score'"),
        (("--mode=search", "--config.search.file=x.npy"), "it is for 'file'"),
        (("--mode=train", "--config.model.ch_mult=a"), "config.model.ch_mult = a: must be whole numbers"),
        (("--mode=train", "--config.model.attn_resolutions=4;8"), "attn_resolutions = 4;8: must be"),
        (("--mode=train", "--config.data.path=x"), "did you mean config.data.source.path?"),
        (("--mode=train", "--config.data.source.path=x"), "'digits' has no option 'path'; 'folder', 'array'"),
        (("--mode=train", "--config.model.num_classes=3"), "'ncsnpp' has no option 'num_classes'"),
        (("--mode=train", "--config.conditions.dropout=0.1"), "needs conditions.names"),
        (
            ("--mode=train", "--config.sampling.solver.snr=0.2"),
            "it is for 'langevin' or 'ald', and config.sampling.solver.corrector is 'none'",
        ),
        (
            ("--mode=train", "--config.sampling.solver=heun", "--config.sampling.solver.s_min=1"),
            "config.sampling.solver.s_churn has to be on, and it is 0.0",
        ),
        (
            ("--mode=train", "--config.training.eval_every_steps=0", "--config.training.eval_examples=9"),
            "config.training.eval_every_steps has to be on, and it is 0",
        ),
        (
            ("--mode=train", "--config.model.fir_kernel=1,2,1"),
            "config.model.fir has to be on, and it is False",
        ),
        (
            (
                *("--mode=train", "--config.data.source=array", "--config.data.source.path=a.npz"),
                *("--config.data.source.test_path=b.npz", "--config.data.source.held_out=0.2"),
            ),
            "it is for None, and config.data.source.test_path is 'b.npz'",
        ),
        (("--mode=train", "--config.optimizer.learning_rate=nan"), "learning_rate = nan: must be a number"),
    ],
)
def test_what_nothing_reads_is_refused_with_what_would(words, said, capsys):
    assert said in message(capsys, DIGITS, *words)


def test_a_condition_of_the_model_is_a_flag_for_the_modes_that_read_it(capsys):
    conditional = f"--config={ROOT / 'configs' / 'flow_cifar.py'}:cond"
    assert parse(["run.py", conditional, "--mode=sample", "--label=3"], "").condition == ("label=3",)
    changed = [DIGITS, "--mode=sample", "--config.conditions.names=label", "--label=3"]
    assert parse(["run.py", *changed], "").condition == ("label=3",)
    assert "it is for sample, encode, decode" in message(capsys, conditional, "--mode=search", "--label=3")
    said = message(capsys, conditional, "--mode=sample", "--lable=3")
    assert "the model takes label; did you mean 'label'?" in said


@pytest.mark.parametrize("names", ["('label',)", "[label]", " label", "label,"])
def test_names_of_conditions_are_read_as_the_field_reads_them(names):
    words = [DIGITS, "--mode=sample", f"--config.conditions.names={names}", "--label=3"]
    assert parse(["run.py", *words], "").condition == ("label=3",)


def test_what_a_file_sets_must_be_read_too(tmp_path, capsys):
    file = tmp_path / "own.py"
    solver = {"name": "pc", "corrector": "none", "snr": 0.9}
    file.write_text(f"def get_config():\n    return {{'sampling': {{'solver': {solver}}}}}\n")
    said = message(capsys, f"--config={file}", "--mode=train")
    assert "config.sampling.solver.snr is set, and nothing reads it: it is for 'langevin'" in said
    file.write_text(f"def get_config():\n    return {{'sampling': {{'solver': {solver | {'snr': 0.16}}}}}}\n")
    words = [f"--config={file}", "--mode=train"]  # the default
    assert parse(["run.py", *words], "").config.sampling.solver.options["snr"] == 0.16
    assert "its get_config() takes no variant" in message(capsys, f"--config={file}:small", "--mode=train")


def test_the_command_line_may_switch_off_what_a_file_needs(tmp_path):
    file = tmp_path / "own.py"
    solver = {"name": "pc", "corrector": "langevin", "snr": 0.9}
    file.write_text(f"def get_config():\n    return {{'sampling': {{'solver': {solver}}}}}\n")
    words = [f"--config={file}", "--mode=train", "--config.sampling.solver.corrector=none"]
    assert parse(["run.py", *words], "").config.sampling.solver.options["corrector"] == "none"


def test_the_short_form_resets_what_the_file_says():
    file = parse(["run.py", DIGITS, "--mode=train"], "").config.sampling.solver
    assert file.options["predictor"] == "ancestral"
    words = [
        DIGITS,
        "--mode=train",
        "--config.sampling.solver=pc",
        "--config.sampling.solver.noise_scale=0.2",
    ]
    found = parse(["run.py", *words], "").config.sampling.solver
    assert (found.options["predictor"], found.options["noise_scale"]) == ("euler_maruyama", 0.2)


def test_every_mode_and_flag_has_its_readers():
    for flag in FLAGS.values():
        assert set(flag.modes) <= set(MODES)
    assert all(any(mode in flag.modes for flag in FLAGS.values()) for mode in MODES)


@pytest.mark.parametrize("words", [["--nosuch=3"], ["--mode=trian"], ["--mode=train", "--label=3"]])
def test_a_wrong_flag_is_refused_before_jax_is_imported(words):
    code = (
        "import sys; from score_sde.flags import parse\n"
        "try:\n    parse(['run.py', *sys.argv[1:]], '')\n"
        "except SystemExit as stop:\n    assert stop.code == 2 and 'jax' not in sys.modules\n"
        "else:\n    assert False\n"
    )
    subprocess.run([sys.executable, "-c", code, DIGITS, *words], cwd=ROOT, check=True, capture_output=True)
