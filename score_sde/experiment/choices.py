"""Tables of what a config chooses from, where the parts below have no table of their own."""

from collections.abc import Callable, Mapping

from jax import Array

from score_sde.denoiser import Row
from score_sde.experiment.fields import Choice, choice, positive
from score_sde.inversion.latents import Adaptive, Stepped, Transport, stepped
from score_sde.sde import SDE, SDES
from score_sde.solvers import GRIDS, SOLVERS, Grid, Solver

MakePrediction = Callable[[SDE, Array], Row]
TimeInput = Callable[[SDE, Array], Array]


def _trained() -> None:
    """The process of the training."""


def step_by_solver(
    *,
    sde: SDE,
    solver: Choice[Solver] = choice(
        SOLVERS, "ddim", "a deterministic one, to walk both ways", given=("denoise",)
    ),
    grid: Choice[Grid] = choice(GRIDS, "log_snr", "its times, as in `sampling`", given=("sde",)),
    steps: int = positive(100, "steps each way"),
) -> Stepped:
    """Steps of a deterministic solver: cheap, and less exact."""
    return stepped(solver.build(denoise=False), grid.build(sde=sde), steps)


# The process whose trajectories samples follow: that of the training, or another at equal log-SNR.
PROCESSES: Mapping[str, Callable[..., SDE | None]] = {"trained": _trained, **SDES}
TRANSPORTS: Mapping[str, Callable[..., Transport]] = {"ode": Adaptive, "stepped": step_by_solver}
