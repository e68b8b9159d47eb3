"""Checkpoints: written in the background, complete or absent, restored only into the state they came from."""

import contextlib
import errno
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from score_sde.arrays import Parts, Tree
from score_sde.runtime.mesh import replicated, state_shardings
from score_sde.train.state import TrainState

T = TypeVar("T")
_policies = ocp.checkpoint_managers


class Checkpoints:
    """The checkpoints of one run, ``<directory>/<step>/``; a context manager.

    A kill at any moment leaves the finished checkpoints readable: one is written under a temporary name and
    then renamed.

    Args:
      directory: made when missing.
      keep_last: how many of the newest to keep.
      keep_every_steps: also keep those at multiples of this; 0 keeps none.

    Attributes:
      keep: steps that are kept whatever these rules say.
    """

    def __init__(self, directory: Path, *, keep_last: int = 2, keep_every_steps: int = 0):
        self.directory = Path(directory).absolute()
        self.keep: set[int] = set()
        policies: list[_policies.PreservationPolicy] = [_policies.LatestN(keep_last), _Kept(self)]
        if keep_every_steps:
            policies.append(_policies.EveryNSteps(keep_every_steps))
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_policies.AnyPreservationPolicy(policies),
                enable_async_checkpointing=True,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState) -> None:
        """Start writing; returns once the state has been copied off the devices.

        Raises:
          OSError: the disk has no room for it, or an earlier write failed; what was finished stays.
        """
        if step in self.steps:
            return
        need = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self.directory).free
        if free < need:
            raise OSError(
                errno.ENOSPC,
                f"no room for the checkpoint of step {step}: {need / 1e6:.1f} MB needed, "
                f"{free / 1e6:.1f} MB free; the checkpoints before it are kept",
                str(self.directory),
            )
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))

    def wait(self) -> None:
        """Return when everything is on disk."""
        self._manager.wait_until_finished()

    def restore(self, shapes: TrainState, mesh: Mesh, step: int | None = None) -> TrainState:
        """The state of ``step`` (default: the newest), laid out on ``mesh`` whatever it was saved from.

        Raises:
          FileNotFoundError: no such checkpoint.
          ValueError: its arrays are not those of ``shapes``; shows the differing paths.
        """
        step = self._chosen(step)
        self._check(step, shapes)
        target = _placed(shapes, state_shardings(mesh, shapes))
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        with self._reading(step):
            return self._manager.restore(step, args=args)["state"]

    def save_frozen(self, parts: Parts) -> None:
        """Write the frozen parts, once for the whole run, in ``frozen`` beside the checkpoints."""
        if parts and not self.has_frozen:
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
                writer.save(self._frozen, args=ocp.args.StandardSave(dict(parts)))

    @property
    def has_frozen(self) -> bool:
        """Whether frozen parts have been written."""
        return self._frozen.is_dir()

    def restore_frozen(self, shapes: Parts, mesh: Mesh) -> Parts:
        """The frozen parts, laid out on ``mesh``; nothing, where there are none."""
        if not shapes:
            return {}
        target = _placed(dict(shapes), state_shardings(mesh, dict(shapes)))
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            return reader.restore(self._frozen, args=ocp.args.StandardRestore(target))

    @property
    def _frozen(self) -> Path:
        return self.directory.parent / "frozen"

    def restore_ema(self, shapes: Tree, mesh: Mesh, step: int | None = None) -> tuple[int, Tree]:
        """The averaged parameters alone, and the step they are of; raises as ``restore`` does."""
        step = self._chosen(step)
        saved = self._saved(step)["ema"]
        _check_same(saved, shapes, f"checkpoint {self.directory / str(step)} (ema)")
        everywhere = replicated(mesh)
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), shapes
        )
        item = {"ema": target}
        with self._reading(step), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            restored = reader.restore(
                self.directory / str(step) / "state",
                args=ocp.args.PyTreeRestore(
                    item,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(item),
                    partial_restore=True,
                ),
            )
        return step, restored["ema"]

    def ema_shapes(self, step: int | None = None) -> Parts:
        """Shapes of the averaged parameters of a checkpoint, as saved; raises as ``restore`` does."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
            dict(self._saved(self._chosen(step))["ema"]),
        )

    def _chosen(self, step: int | None) -> int:
        available = self.steps
        if not available:
            raise FileNotFoundError(f"no checkpoint in {self.directory}")
        if step is None:
            return available[-1]
        if step not in available:
            raise FileNotFoundError(
                f"no checkpoint of step {step} in {self.directory}; there are {available}"
            )
        return step

    def _saved(self, step: int) -> Tree:
        with self._reading(step):
            metadata = self._manager.item_metadata(step)["state"]
            tree = getattr(metadata, "tree", metadata)
            if not tree or "ema" not in tree:
                raise ValueError("its list of arrays is missing")
        return tree

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Names the checkpoint that cannot be read, and those beside it."""
        try:
            yield
        except Exception as error:  # orbax and its storage raise nearly anything on damaged files
            others = [other for other in self.steps if other != step]
            beside = (
                f"beside it is step {others[-1]}: --step={others[-1]} uses that one, and training resumes "
                "from it when the damaged folder is removed"
                if others
                else "there is no other"
            )
            reason = str(error).partition("\n")[0]
            damaged = f"checkpoint {self.directory / str(step)} cannot be read, and may be damaged"
            raise ValueError(f"{damaged}; {beside} ({reason})") from error

    def _check(self, step: int, shapes: TrainState) -> None:
        saved = self._saved(step)
        where = f"checkpoint {self.directory / str(step)}"
        _check_same(saved["params"], shapes.params, f"{where} (params)")
        _check_same(saved["ema"], shapes.ema, f"{where} (ema)")
        _check_same(saved["opt_state"], shapes.opt_state, f"{where} (opt_state)")


class _Kept:
    """Orbax's rule for the steps that ``Checkpoints.keep`` names at the moment."""

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints

    def should_preserve(
        self, checkpoints: Sequence[_policies.PolicyCheckpointInfo], *, context: object
    ) -> list[bool]:
        """One answer a checkpoint, oldest first."""
        del context
        return [info.step in self._checkpoints.keep for info in checkpoints]


def _placed(shapes: T, shardings: T) -> T:
    """Shapes with the devices on which the arrays are placed."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, shardings
    )


def _check_same(saved: Tree, wanted: Tree, where: str) -> None:
    """Compare two trees by path, shape and dtype, both ways."""
    have, want = _leaves(saved), _leaves(wanted)
    differing = [
        f"  {path}: saved {have.get(path, 'nothing')}, config {want.get(path, 'nothing')}"
        for path in sorted(have.keys() | want.keys())
        if have.get(path) != want.get(path)
    ]
    if differing:
        more = [f"  ... and {len(differing) - 10} more"] if len(differing) > 10 else []
        lines = "\n".join([*differing[:10], *more])
        raise ValueError(
            f"{where} does not fit the config: {len(differing)} of {len(want)} arrays differ\n{lines}"
        )


def _leaves(tree: Tree) -> dict[str, str]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in flat
        if getattr(leaf, "shape", None) is not None
    }
