"""How samples of a model are drawn: a process to follow backwards, a solver with its plan, and guidance."""

from dataclasses import dataclass

from jax.sharding import Mesh

from score_sde.conditions import Conditions
from score_sde.denoiser import Bind
from score_sde.guidance import Guidance
from score_sde.nets import digest
from score_sde.sampling.chunks import Draw, Progress, compile_trajectory
from score_sde.sampling.draw import compile_sample
from score_sde.sde import SDE
from score_sde.solvers import Hooks, Plan, Solver, StepSolver


@dataclass(frozen=True)
class Sampler:
    """Everything about drawing samples but the parameters.

    Attributes:
      bind: parts and conditions to what the solver is given: the guided model on ``process``.
      guidance: from the model's own ``bind`` to that one; says which inputs it needs besides the conditions.
      process: the process whose trajectories samples follow: that of the model, or another.
      solver, plan: the steps along it.
      shape: of one sample, as the model has it.
      conditions: that samples have: those of the model, and those of the guidance.
    """

    bind: Bind
    guidance: Guidance
    process: SDE
    solver: Solver
    plan: Plan
    shape: tuple[int, ...]
    conditions: Conditions = ()

    @property
    def steps(self) -> int:
        """Steps of the solver; 0 where it chooses them on the way."""
        return self.solver.steps(self.plan) if isinstance(self.solver, StepSolver) else 0

    def compile(self, mesh: Mesh, progress: Progress | None = None) -> Draw:
        """``(parts, plan, keys, cond) -> (B, *shape)``, the batch split over ``mesh``.

        Args:
          progress: called with the number of a step as the devices begin it.
        """
        draw = compile_sample(self.bind, self.process, self.solver, mesh, shape=self.shape, progress=progress)
        return self._with_frozen(draw)

    def compile_trajectory(self, mesh: Mesh, every_steps: int, progress: Progress | None = None) -> Draw:
        """``compile`` that keeps the states after every so many steps: ``(B, kept + 1, *shape)``, the samples
        last.

        Raises:
          ValueError: the solver chooses its steps on the way.
        """
        if not isinstance(self.solver, StepSolver):
            raise ValueError(f"{type(self.solver).__name__} chooses its steps on the way")
        hooks = Hooks(keep_every_steps=every_steps, keep=self.steps // every_steps)
        draw = compile_trajectory(
            self.bind, self.process, self.solver, mesh, hooks, shape=self.shape, progress=progress
        )
        return self._with_frozen(draw)

    @property
    def guidance_digest(self) -> dict[str, str]:
        """``{"guidance": SHA-256}`` of the parameters that the guidance brings, if it brings any."""
        frozen = self.guidance.frozen()
        return {"guidance": digest(frozen)} if frozen else {}

    def _with_frozen(self, draw: Draw) -> Draw:
        """``draw`` that is given the parts of the guidance beside those of the model."""
        frozen = self.guidance.frozen()
        if not frozen:
            return draw
        return lambda parts, plan, keys, cond: draw({**parts, **frozen}, plan, keys, cond)
