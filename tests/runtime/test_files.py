"""Places that cannot be written are found before any work, by root too, who may write anywhere."""

import os

import pytest

from score_sde.runtime.files import check_writable, writable
from tests.cli.test_cli import DIGITS, message


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder for which the system says that it cannot be written."""
    folder = tmp_path / "locked"
    folder.mkdir()

    def access(path, mode, real=os.access):
        return not (str(path).startswith(str(folder)) and mode & os.W_OK) and real(path, mode)

    monkeypatch.setattr(os, "access", access)
    return folder


def test_a_locked_folder_is_named_and_what_is_above_a_missing_one_counts(locked, tmp_path):
    for path in (locked / "a.npz", locked, locked / "deep" / "er" / "a.npz"):
        assert not writable(path)
        with pytest.raises(ValueError, match=f"^--output={path}: {locked} cannot be written; name another"):
            check_writable(path)
    for path in (tmp_path / "a.npz", tmp_path, tmp_path / "deep" / "er" / "a.npz"):
        assert writable(path)
        check_writable(path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "file")  # may be written anew
    with pytest.raises(ValueError, match=f"--workdir=.*{tmp_path}/file is no folder"):
        check_writable(tmp_path / "file" / "a.npz", "--workdir")
    assert not writable(tmp_path / "file" / "a.npz")


@pytest.mark.parametrize(
    "words",
    [
        ("--mode=train",),
        ("--mode=stats",),
        ("--mode=stats", "--output={}/a.npz"),
        ("--mode=sample",),
        ("--mode=sample", "--output={}/pictures"),
        ("--mode=likelihood", "--output={}/a.json"),
        ("--mode=evaluate",),
        ("--mode=evaluate", "--num_samples=4"),
        ("--mode=encode",),
        ("--mode=report",),
        ("--mode=classifier",),
        ("--mode=dequantiser",),
        ("--mode=export", "--output={}/a.safetensors"),
    ],
)
def test_no_mode_works_for_a_place_that_it_cannot_write(locked, capsys, words):
    workdir = f"--workdir={locked}"
    said = message(capsys, DIGITS, workdir, *(word.format(locked) for word in words))
    trained = words[0] in ("--mode=sample",)  # the model comes first, as the kind of the result depends on it
    assert "cannot be written" in said or (trained and "holds no trained model" in said)


def test_results_that_exist_as_folders_and_other_suffixes_are_refused(tmp_path, capsys):
    (tmp_path / "a.json").mkdir()
    words = (DIGITS, f"--workdir={tmp_path}", "--mode=likelihood")
    assert "is a folder; name a file" in message(capsys, *words, f"--output={tmp_path}/a.json")
    assert "the result is a .json" in message(capsys, *words, f"--output={tmp_path}/a.txt")
