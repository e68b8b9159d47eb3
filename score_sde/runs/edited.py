"""Edited pictures as files, group by group, with progress, and resumed."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from score_sde.conditions import Chosen, Json, Value
from score_sde.evaluate.cache import fingerprint
from score_sde.experiment.sections import as_tree
from score_sde.images import pictures
from score_sde.runs.edit import Editor, group_size, in_groups
from score_sde.runs.edit_inputs import Named
from score_sde.runs.stored import Stored, identity
from score_sde.runtime.processes import is_chief, say
from score_sde.runtime.progress import Progress

ROWS = 64  # of a panel, at most


def write_edited(
    editor: Editor, found: Sequence[Named], output: Path, conditions: Mapping[str, Value]
) -> None:
    """Draw the answers, and write as the suffix of the path asks.

    ``.png``: a panel with a row for each of the first pictures: it, what is kept of it, the answers, their
    mean, and twice their standard deviation.  ``.npz``: ``samples`` ``(N, n, *shape)``, ``input``,
    ``measured`` (in the model's range, with what the operator was given), ``mean`` and ``seed``.  None: a
    folder of the answers, ``000000.png`` and so on, those of a picture one after another, and ``panel.png``.

    What is finished is kept beside the path, and the same command continues with it.

    Raises:
      ConfigError: a folder that holds other answers, or a picture that cannot be read.
      FloatingPointError: samples that are not finite.
    """
    model, section, count = editor.model, editor.section, len(found)
    place = output.with_name(output.name + ".parts")
    size = group_size(editor, count)
    stored = Stored(place, count, as_pictures=False, what=_identity(editor, found, size, conditions))
    firsts = stored.missing(size)
    there = count - sum(min(size, count - first) for first in firsts)
    if there:
        say(f"resuming: {there} of {count} pictures are there")
    title = f"edit ({section.task.name}, checkpoint {model.step})"
    with Progress(count, title, "picture", start=there, quiet=not is_chief()) as progress:
        for first, answers in in_groups(
            editor,
            [named.read for named in found],
            conditions=conditions,
            firsts=firsts,
            progress=lambda step: progress.update(progress.done, f"step {step + 1}"),
        ):
            if is_chief():
                stored.write(first, answers)
            progress.update(progress.done + len(answers))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("answers are written")
    if is_chief():
        _finish(editor, found, stored.read(), output)
        shutil.rmtree(place)


def _identity(
    editor: Editor, found: Sequence[Named], size: int, conditions: Mapping[str, Value]
) -> dict[str, Json]:
    """Everything that decides what the answers are."""
    model = editor.model
    chosen = Chosen.fixed(model.sampler.conditions, conditions)
    return {
        **identity(model, chosen, editor.seed, size),
        "edit": fingerprint(section=as_tree(model.config)["edit"]),
        "mask": fingerprint(**editor.task.given(editor.shape, 1, seed=editor.seed)),  # which may be a file
        "input": fingerprint(pictures=[named.about for named in found]),
    }


def _finish(editor: Editor, found: Sequence[Named], samples: np.ndarray, output: Path) -> None:
    """Write what was asked for."""
    shown = found if output.suffix == ".npz" else found[:ROWS]
    measured = editor.measure([named.read() for named in shown])
    mean = np.rint(samples.mean(axis=1)).astype(np.uint8)
    if output.suffix == ".npz":
        fresh = output.with_name(f".{output.name}")
        arrays = {"input": measured.before, "measured": measured.values, **measured.given}
        with fresh.open("wb") as out:
            np.savez(
                out, allow_pickle=False, samples=samples, mean=mean, seed=np.int64(editor.seed), **arrays
            )
        os.replace(fresh, output)
        return
    count, whole = len(shown), measured.before.shape[1:] == editor.shape
    spread = np.rint(np.minimum(2.0 * samples[:count].std(axis=1), 255.0)).astype(np.uint8)
    columns = [measured.before if whole else measured.kept, measured.kept]
    columns += [*np.moveaxis(samples[:count], 1, 0), mean[:count], spread]
    panel = pictures.grid(np.stack(columns, axis=1).reshape(-1, *editor.shape), columns=len(columns))
    if output.suffix:
        panel.save(output)
        return
    pictures.write(output, samples.reshape(-1, *editor.shape), seed=editor.seed)
    panel.save(output / "panel.png")
