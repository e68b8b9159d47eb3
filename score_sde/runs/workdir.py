"""A run on disk: its config, its data's spec, its checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from score_sde.architecture import Architecture
from score_sde.arrays import Params, Parts
from score_sde.conditions import check_meaning
from score_sde.data import Source, Spec
from score_sde.data.columns import check_same
from score_sde.experiment import files
from score_sde.experiment.assemble import architecture_of, data_name, open_source
from score_sde.experiment.schema import Config, changed, typed
from score_sde.experiment.sections import as_tree
from score_sde.names import ConfigError
from score_sde.runtime.mesh import make_mesh
from score_sde.runtime.processes import say
from score_sde.tasks import TASKS
from score_sde.train import BEST, CHECKPOINTS, Checkpoints, combine, read_best


@dataclass(frozen=True)
class Choice:
    """Which averaged parameters of a run.

    Attributes:
      step: of the checkpoint; None: the newest.
      best: the checkpoint that training has kept as the best.
      sigma_rel: length of the average, made of the kept checkpoints of a run with ``ema.name = power``; None:
        the average that was kept.
    """

    step: int | None = None
    best: bool = False
    sigma_rel: float | None = None


NEWEST = Choice()


@dataclass(frozen=True)
class Workdir:
    """A run on disk.

    Attributes:
      path: of the directory.
      config: as it is remembered, or as the command line changes it.
      spec: of the data that it was trained on; None before training.
    """

    path: Path
    config: Config
    spec: Spec | None

    @classmethod
    def open(cls, path: str | Path, changes: Mapping[str, object] | None = None) -> "Workdir":
        """A directory that training, or an import, has written.

        Args:
          changes: to fields of the config, ``{"sampling.solver": "heun", "sampling.steps": 18}``.

        Raises:
          FileNotFoundError: it holds no config.
          ConfigError: a field that there is not, or a value that it cannot have.
        """
        raw, saved = files.load_saved(Path(path))
        config = changed(typed(raw), changes) if changes else typed(raw)
        return cls(Path(path), config, Spec.from_json(saved["spec"]) if "spec" in saved else None)

    def save(self) -> None:
        """Write config and spec: the directory then remembers them."""
        extra = {} if self.spec is None else {"spec": self.spec.to_json()}
        files.save(self.path, as_tree(self.config), **extra)

    @property
    def architecture(self) -> Architecture:
        """What the config makes of the data's spec; a learned process is still trainable.

        Raises:
          FileNotFoundError: nothing has been trained.
        """
        return architecture_of(self.config, self.trained_spec)

    @property
    def denoises(self) -> bool:
        """Whether the task of the run fits a score model."""
        return TASKS[self.config.task.name].denoises

    @property
    def trained_spec(self) -> Spec:
        """``spec``; an error where nothing has been trained."""
        if self.spec is None:
            raise FileNotFoundError(f"--workdir={self.path}: holds no trained model; run --mode=train first")
        return self.spec

    @property
    def steps(self) -> list[int]:
        """Steps of its checkpoints, ascending."""
        if not (self.path / CHECKPOINTS).is_dir():
            return []
        with Checkpoints(self.path / CHECKPOINTS) as checkpoints:
            return checkpoints.steps

    def source(self, split: str) -> Source:
        """The ``train`` or ``test`` split of its data.

        Raises:
          ValueError: its conditions or columns have another meaning than those that the model was trained
            with.
        """
        source = open_source(self.config, split)
        if self.spec is not None:
            taken = self.config.conditions.names
            check_meaning(self.spec.conditions, source.spec.conditions, taken, self.source_name(split))
            check_same(self.spec.columns, source.spec.columns, self.source_name(split))
        return source

    def source_name(self, split: str) -> str:
        """What messages and reports call that split."""
        return f"{data_name(self.config)} ({split})"

    def changed(self, changes: Mapping[str, object]) -> "Workdir":
        """With other fields of the config; the directory does not remember them.

        Raises:
          ConfigError: a field that there is not, or a value that it cannot have.
        """
        return replace(self, config=changed(self.config, changes))

    def restore(self, which: Choice = NEWEST) -> tuple[int, Mesh, dict[str, Params]]:
        """Step, devices and averaged parts of a checkpoint, on all of the devices.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          ValueError: it is of another architecture.
        """
        directory = self.path / CHECKPOINTS
        if not directory.is_dir():
            raise FileNotFoundError(f"--workdir={self.path}: holds no checkpoints yet")
        mesh, step = make_mesh(), self.best_step() if which.best else which.step
        with Checkpoints(directory) as checkpoints:
            shapes = (
                jax.eval_shape(self.architecture.init, jax.random.key(0))
                if self.denoises
                else checkpoints.ema_shapes(step)  # parts of which only the task knows
            )
            if which.sigma_rel is not None:
                step, parts = self._recombined(which.sigma_rel, step, checkpoints, shapes, mesh)
            else:
                step, parts = checkpoints.restore_ema(shapes, mesh, step)
        return step, mesh, parts

    def best_step(self) -> int:
        """The step of the checkpoint that training has kept as the best.

        Raises:
          FileNotFoundError: it has kept none.
        """
        record = read_best(self.path / BEST)
        if record is None:
            raise FileNotFoundError(
                f"--best: no best checkpoint in {self.path}; training keeps one where "
                "config.training.best_metric is set, from its first measurement on"
            )
        return record.step

    def _recombined(
        self,
        sigma_rel: float,
        step: int | None,
        checkpoints: Checkpoints,
        shapes: Parts,
        mesh: Mesh,
    ) -> tuple[int, dict[str, Params]]:
        """An average of another length, from those of the kept checkpoints."""
        ema = self.config.ema
        if ema.name != "power":
            raise ConfigError(
                f"--sigma_rel={sigma_rel}: needs a run with config.ema.name = 'power', this one has "
                f"{ema.name!r}"
            )
        last = checkpoints.steps[-1] if step is None else step
        if last not in checkpoints.steps:
            raise FileNotFoundError(f"no checkpoint of step {last}; there are {checkpoints.steps}")
        steps = [step for step in checkpoints.steps if 0 < step <= last]
        plan = combine(steps, ema.options["sigma_rel"], last, sigma_rel)
        say(
            f"average of sigma_rel = {sigma_rel:g} from {len(steps)} checkpoints; its weights are off by "
            f"{plan.error:.2g} of their size"
        )
        total: dict[str, Params] = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), dict(shapes))
        for step, weight in zip(steps, plan.weights, strict=True):
            part = checkpoints.restore_ema(shapes, mesh, step)[1]
            total = jax.tree.map(lambda sum, leaf, w=float(weight): sum + w * leaf, total, part)
        return last, total
