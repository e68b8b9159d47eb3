"""Every method on priors whose posterior is known: mean, covariance and weights of modes.

    python experiments/inverse/exact.py

One of two numbers is measured.  The first prior is a Gaussian of correlation 0.8, the second a mixture of
three narrow modes.  The denoiser is exact, so that every error is that of the method and of its steps.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.arrays import expand
from score_sde.denoiser import Denoise, from_x0
from score_sde.inverse import MASK, MEASURED, METHODS, NOISE_STD, Mask
from score_sde.runtime.mesh import make_mesh
from score_sde.sampling.draw import compile_sample
from score_sde.sde import EDM, SDE
from score_sde.solvers import GRIDS, SOLVERS

MEAN, COVARIANCE = np.array([0.2, -0.1]), 0.25 * np.array([[1.0, 0.8], [0.8, 1.0]])
MODES, WIDTH = np.array([[0.6, 0.5], [-0.3, -0.6], [0.2, -0.4]]), 0.05
RUNS = (
    ("mmps", "heun", {}),
    ("pigdm", "heun", {}),
    ("ddnm", "pc", {}),
    ("ddrm", "pc", {}),
    ("dps", "pc", {"step_size": 0.1}),
    ("replacement", "pc", {}),
    ("repaint", "pc", {"jump_length": 5, "resamplings": 10}),
    ("tds", "pc", {"particles": 1}),
    ("tds", "pc", {"particles": 8}),
    ("tds", "pc", {"particles": 64}),
)


def gaussian(sde: SDE) -> Denoise:
    """The denoiser of ``N(MEAN, COVARIANCE)``, states ``(B, 2)``."""

    def at(x, t):
        t = jnp.broadcast_to(t, x.shape[:1])
        a, s = sde.alpha(t)[:, None, None], sde.sigma(t)[:, None, None]
        total = a**2 * COVARIANCE[None] + s**2 * jnp.eye(2)[None]
        off = (x - a[..., 0] * MEAN[None])[..., None]
        return from_x0(sde, MEAN[None] + (a * COVARIANCE[None] @ jnp.linalg.solve(total, off))[..., 0], x, t)

    return at


def mixture(sde: SDE) -> Denoise:
    """The denoiser of equal Gaussians of standard deviation ``WIDTH`` around ``MODES``."""

    def at(x, t):
        t = jnp.broadcast_to(t, x.shape[:1])
        a, s = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
        variance = (a * WIDTH) ** 2 + s**2
        square = jnp.sum((x[:, None] - a[:, None] * MODES[None]) ** 2, axis=-1)
        mean = jax.nn.softmax(-0.5 * square / variance, axis=1) @ MODES
        return from_x0(sde, mean + a * WIDTH**2 * (x - a * mean) / variance, x, t)

    return at


def draw(prior, method: str, solver: str, options: dict, y: float, noise_std: float, args) -> np.ndarray:
    """Samples ``(count, 2)`` of a method."""
    sde = EDM(t_max=20.0)
    how = METHODS[method](operator=Mask(), sde=sde, **options)
    steps = how.steps(SOLVERS[solver](predictor="ancestral") if solver == "pc" else SOLVERS[solver]())
    first = np.tile(np.array([1.0, 0.0], np.float32), (args.samples, 1))
    cond = {MEASURED: y * first, MASK: first, NOISE_STD: np.full(args.samples, noise_std, np.float32)}
    plan = steps.plan(sde, GRIDS["karras"](sde=sde)(20.0, 2e-3, args.steps))
    mesh = make_mesh(devices=jax.devices()[:1])
    program = compile_sample(how(lambda parts, cond: prior(sde)), sde, steps, mesh, shape=(2,))
    keys = jax.random.split(jax.random.key(0), args.samples)
    return np.asarray(program({}, plan, keys, {k: jnp.asarray(v) for k, v in cond.items()}), np.float64)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    y, noise_std = 1.0, 0.2
    gain = COVARIANCE[:, 0] / (COVARIANCE[0, 0] + noise_std**2)
    mean, covariance = MEAN + gain * (y - MEAN[0]), COVARIANCE - np.outer(gain, COVARIANCE[0])
    print(f"Gaussian, y = {y}, noise {noise_std}, {args.steps} steps, {args.samples} samples\n")
    print("| method | mean, measured | mean, other | variance, measured | covariance | variance, other |")
    print("|---|---|---|---|---|---|")
    numbers = [*mean, covariance[0, 0], covariance[0, 1], covariance[1, 1]]
    print(f"| exact | {' | '.join(f'{n:.3f}' for n in numbers)} |")
    for method, solver, options in RUNS:
        x = draw(gaussian, method, solver, options, y, noise_std, args)
        c = np.cov(x.T)
        numbers = [*x.mean(axis=0), c[0, 0], c[0, 1], c[1, 1]]
        name = " ".join([method, *(f"{k}={v}" for k, v in options.items())])
        print(f"| {name} | {' | '.join(f'{n:.3f}' for n in numbers)} |", flush=True)
    y = 0.2
    weights = np.exp(-0.5 * (y - MODES[:, 0]) ** 2 / (WIDTH**2 + noise_std**2))
    print(
        f"\nMixture, y = {y}, noise {noise_std}\n\n| method | mode 1 | mode 2 | mode 3 |\n|---|---|---|---|"
    )
    print(f"| exact | {' | '.join(f'{w:.3f}' for w in weights / weights.sum())} |")
    for method, solver, options in RUNS:
        x = draw(mixture, method, solver, options, y, noise_std, args)
        near = np.square(x[:, None] - MODES).sum(axis=-1).argmin(axis=1)
        name = " ".join([method, *(f"{k}={v}" for k, v in options.items())])
        share = np.bincount(near, minlength=3) / len(x)
        print(f"| {name} | {' | '.join(f'{s:.3f}' for s in share)} |", flush=True)


if __name__ == "__main__":
    main()
