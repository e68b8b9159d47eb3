"""Multistep solvers by their published names, each a choice of arguments of one formula."""

import abc
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from score_sde.names import nearest
from score_sde.sde import SDE
from score_sde.solvers.base import Marginals
from score_sde.solvers.multistep import NOISE_RULES, Method, keep_ddim, write
from score_sde.solvers.table import Prediction, Rows, TableSolver

MOST = 4  # past predictions that a polynomial goes through


class Scheme(NamedTuple):
    """The arguments of the formula.

    Attributes:
      order: past predictions that the predictor uses.
      corrector: past predictions that the corrector uses beside the new one; 0 for none.
      eta, noise_rule: how much noise, and by which rule; see ``NOISE_RULES``.
    """

    method: Method
    order: int
    corrector: int = 0
    eta: float = 0.0
    noise_rule: str = "ddim"


@dataclass(frozen=True, kw_only=True)
class SchemeSolver(TableSolver):
    """A multistep solver.  It starts at order 1 and gains one with every step.

    Attributes:
      lower_final_below: grids of fewer steps than this lower the order again in the last steps, which is
        steadier with few: 10 in DPM-Solver, 15 in diffusers, always (a large number) in UniPC; 0: never.
    """

    lower_final_below: int = 10

    @property
    @abc.abstractmethod
    def scheme(self) -> Scheme:
        """What the solver is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        scheme = self.scheme
        most = MOST if scheme.method.form in ("exact", "adams") else 3
        if not 1 <= scheme.order <= most:
            raise ValueError(f"order = {scheme.order}: must be in 1 to {most}")
        if not 0 <= scheme.corrector < MOST:
            raise ValueError(f"corrector_order = {scheme.corrector}: must be in 0 to {MOST - 1}")
        if scheme.corrector and scheme.method.form in ("midpoint", "taylor", "adams"):
            raise ValueError(f"form = {scheme.method.form!r} has no corrector")
        if scheme.eta < 0 or (scheme.eta and scheme.method.prediction == "velocity"):
            raise ValueError(f"eta = {scheme.eta}: must be 0 or more, and 0 for prediction = 'velocity'")
        if scheme.noise_rule not in NOISE_RULES:
            raise ValueError(
                f"noise_rule = {scheme.noise_rule!r} is not one of: {', '.join(NOISE_RULES)}"
                f"{nearest(scheme.noise_rule, NOISE_RULES)}"
            )

    @property
    def accuracy(self) -> float:
        scheme = self.scheme
        form, order = scheme.method.form, scheme.order
        if scheme.eta:
            return min(order, 2)
        if form in ("midpoint", "taylor", "adams"):
            return min(order, 2)
        if form == "vary" and order > 1:
            return 1
        return min(order, scheme.corrector) + 1 if scheme.corrector else order

    @property
    def evaluations(self) -> int:
        return 1

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        s = self.scheme
        write(
            rows,
            sde,
            path,
            s.method,
            order=s.order,
            corrector=s.corrector,
            keep=partial(NOISE_RULES[s.noise_rule], s.eta),
            lower_final=len(path.t) - 1 < self.lower_final_below,
        )


def _x0(form: str = "exact") -> Method:
    return Method(prediction="x0", basis="lam", form=form)


@dataclass(frozen=True, kw_only=True)
class Multistep(SchemeSolver):
    """Any member of the family: exponential Adams-Bashforth in either prediction, with or without corrector.

    Attributes:
      order: past predictions used, 1 to 4: the order of convergence of the predictor.
      corrector_order: past predictions that the corrector uses beside the new one, 0 (none) to 3; one as
        large as ``order`` brings one order more, without an evaluation.
      eta: noise, 0 (none) to 1 (the reverse SDE).
      noise_rule: ``ddim``, or ``rate``: ``eta`` is the rate ``tau``.  They agree for 0 and 1.
      prediction: ``x0``, ``noise``, or ``velocity`` (Adams-Bashforth on dx/dt).
      basis: variable of the polynomial: ``lam``, ``rho`` = sigma / alpha, or ``t``.
      form: ``exact``, or published weights: ``midpoint``, ``taylor``, ``bh1``, ``bh2``, ``vary``, ``adams``.

    Raises:
      ValueError: an unknown name or an impossible number.
    """

    order: int = 2
    corrector_order: int = 0
    eta: float = 0.0
    noise_rule: str = "ddim"
    prediction: str = "x0"
    basis: str = "lam"
    form: str = "exact"

    @property
    def scheme(self) -> Scheme:
        method = Method(prediction=self.prediction, basis=self.basis, form=self.form)
        return Scheme(method, self.order, self.corrector_order, self.eta, self.noise_rule)


@dataclass(frozen=True, kw_only=True)
class DDIM(SchemeSolver):
    """DDIM (Song et al. 2021, arXiv:2010.02502, eq. 12), exact where the denoised sample does not change.

    Attributes:
      eta: noise; 1 is ``DDPM``, and ``Euler ancestral`` elsewhere.
    """

    eta: float = 0.0

    @property
    def scheme(self) -> Scheme:
        return Scheme(_x0(), 1, eta=self.eta)

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        # alpha_s x0 + kept sigma_s noise as published: what a threshold does with the noise is heeded.
        for i in range(len(path.t) - 1):
            at, to = path.pick(i), path.pick(i + 1)
            kept = keep_ddim(self.eta, float(to.lam - at.lam))
            drawn = to.sigma * np.sqrt(1.0 - kept**2)
            rows.add(at.t, Prediction(to.alpha, kept * to.sigma), weights=[1.0], noise=drawn, draw=i + 1)


@dataclass(frozen=True, kw_only=True)
class DDPM(SchemeSolver):
    """Ancestral sampling with the variance of the posterior (Ho et al. 2020, arXiv:2006.11239, eq. 6-7)."""

    @property
    def scheme(self) -> Scheme:
        return Scheme(_x0(), 1, eta=1.0)


@dataclass(frozen=True, kw_only=True)
class DPM2M(SchemeSolver):
    """DPM-Solver-2 (noise prediction), multistep (Lu et al. 2022, arXiv:2206.00927; 2211.01095).

    Attributes:
      form: ``midpoint`` or ``taylor`` as published, or ``exact``.
    """

    form: str = "midpoint"

    @property
    def scheme(self) -> Scheme:
        return Scheme(Method(prediction="noise", basis="lam", form=self.form), 2)


@dataclass(frozen=True, kw_only=True)
class DPM3M(SchemeSolver):
    """DPM-Solver-3 (noise prediction), multistep.  The published forms are of order 2; see ``DPMpp3M``.

    Attributes:
      form: ``midpoint`` or ``taylor`` as published, or ``exact``.
    """

    form: str = "midpoint"

    @property
    def scheme(self) -> Scheme:
        return Scheme(Method(prediction="noise", basis="lam", form=self.form), 3)


@dataclass(frozen=True, kw_only=True)
class DPMpp2M(SchemeSolver):
    """DPM-Solver++ (2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2).

    Attributes:
      form: ``midpoint`` or ``taylor`` as published, or ``exact``.
    """

    form: str = "midpoint"

    @property
    def scheme(self) -> Scheme:
        return Scheme(_x0(self.form), 2)


@dataclass(frozen=True, kw_only=True)
class DPMpp3M(SchemeSolver):
    """DPM-Solver++ (3M) as its code has it.

    Its second derivative has half the weight of Taylor's formula, so that it converges with order 2;
    ``form = exact`` is the method of order 3.  ``form`` (``midpoint`` or ``taylor``) is that of the start.

    Attributes:
      form: ``midpoint`` or ``taylor`` as published, or ``exact``.
    """

    form: str = "midpoint"

    @property
    def scheme(self) -> Scheme:
        return Scheme(_x0(self.form), 3)


@dataclass(frozen=True, kw_only=True)
class SDEDPMpp2M(SchemeSolver):
    """SDE-DPM-Solver++ (2M) (arXiv:2211.01095, section 5); "DPM++ 2M SDE".

    Attributes:
      form: ``midpoint`` or ``taylor`` as published, or ``exact``.
      eta: the rate ``tau`` of the noise; 1 is the reverse SDE.
    """

    eta: float = 1.0
    form: str = "midpoint"

    @property
    def scheme(self) -> Scheme:
        return Scheme(_x0(self.form), 2, eta=self.eta, noise_rule="rate")


@dataclass(frozen=True, kw_only=True)
class SDEDPMpp3M(SchemeSolver):
    """SDE-DPM-Solver++ with three nodes, "DPM++ 3M SDE"; two-node steps are ``taylor`` there.

    Attributes:
      eta: as of ``SDEDPMpp2M``.
      form: ``midpoint`` or ``taylor`` as published, or ``exact``.
    """

    eta: float = 1.0
    form: str = "taylor"

    @property
    def scheme(self) -> Scheme:
        return Scheme(_x0(self.form), 3, eta=self.eta, noise_rule="rate")


@dataclass(frozen=True, kw_only=True)
class UniPC(SchemeSolver):
    """UniPC-p: a predictor of order p and its corrector, together of order p + 1 (arXiv:2302.04867).

    Attributes:
      order: p, 1 to 3.
      prediction: ``x0`` or ``noise``.
      form: ``bh1``, ``bh2`` or ``vary`` as published, or ``exact``.
    """

    order: int = 2
    prediction: str = "x0"
    form: str = "bh2"

    @property
    def scheme(self) -> Scheme:
        method = Method(prediction=self.prediction, basis="lam", form=self.form)
        return Scheme(method, self.order, self.order)


@dataclass(frozen=True, kw_only=True)
class DEIS(SchemeSolver):
    """DEIS (Zhang & Chen 2023, arXiv:2204.13902): the noise as a polynomial.

    Attributes:
      order: past predictions used; tAB3 there has 4, in our count.
      basis: ``t`` (tAB-DEIS), ``rho`` (rhoAB-DEIS), or ``lam`` (log rho, as in diffusers).
    """

    order: int = 3
    basis: str = "t"

    @property
    def scheme(self) -> Scheme:
        return Scheme(Method(prediction="noise", basis=self.basis, form="exact"), self.order)


@dataclass(frozen=True, kw_only=True)
class LMS(SchemeSolver):
    """Linear multistep in the noise level: Adams-Bashforth on ``d(x/alpha)/d(sigma/alpha)``, any grid.

    Attributes:
      order: of the polynomial, 1 to 4.
    """

    order: int = 4
    lower_final_below: int = 0

    @property
    def scheme(self) -> Scheme:
        return Scheme(Method(prediction="noise", basis="rho", form="exact"), self.order)


@dataclass(frozen=True, kw_only=True)
class IPNDM(SchemeSolver):
    """Improved PNDM (arXiv:2202.09778, 2204.13902): the weights of equal steps, whatever the grid.

    Of order 2 on a smooth grid, of ``order`` only on one with equal steps in sigma / alpha.

    Attributes:
      order: of the polynomial, 1 to 4.
    """

    order: int = 4
    lower_final_below: int = 0

    @property
    def scheme(self) -> Scheme:
        return Scheme(Method(prediction="noise", basis="rho", form="adams"), self.order)


MULTISTEP = {
    "multistep": Multistep,
    "ddim": DDIM,
    "ddpm": DDPM,
    "dpm_2m": DPM2M,
    "dpm_3m": DPM3M,
    "dpmpp_2m": DPMpp2M,
    "dpmpp_3m": DPMpp3M,
    "sde_dpmpp_2m": SDEDPMpp2M,
    "sde_dpmpp_3m": SDEDPMpp3M,
    "unipc": UniPC,
    "deis": DEIS,
    "lms": LMS,
    "ipndm": IPNDM,
}
