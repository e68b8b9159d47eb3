"""An imported checkpoint as a workdir, whole or not at all."""

import os
import shutil
from pathlib import Path

from score_sde.convert.load import Imported
from score_sde.experiment import files as configs
from score_sde.experiment.sections import as_tree
from score_sde.train import Checkpoints

_CHECKPOINTS = "checkpoints"


def check_free(workdir: Path) -> None:
    """Refuse a workdir that holds a run.

    Raises:
      FileExistsError: it holds checkpoints or a config.
    """
    for name in (_CHECKPOINTS, configs.SAVED):
        if (workdir / name).exists():
            raise FileExistsError(f"--workdir={workdir}: holds {name} already; name another directory")


def write(imported: Imported, workdir: Path) -> None:
    """Config, spec and one checkpoint, which every mode can use.

    Raises:
      FileExistsError: the workdir holds a run.
      OSError: it could not be written; what was written is removed.
    """
    check_free(workdir)
    workdir.parent.mkdir(parents=True, exist_ok=True)
    fresh = workdir.with_name(workdir.name + ".importing")
    shutil.rmtree(fresh, ignore_errors=True)  # left by a kill
    try:
        with Checkpoints(fresh / _CHECKPOINTS) as checkpoints:
            checkpoints.save(int(imported.state.step), imported.state)
            checkpoints.wait()
        configs.save(fresh, as_tree(imported.config), spec=imported.architecture.spec.to_json())
        if workdir.exists() and any(workdir.iterdir()):
            for name in (_CHECKPOINTS, configs.SAVED):
                os.rename(fresh / name, workdir / name)
        else:
            os.rename(fresh, workdir)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
