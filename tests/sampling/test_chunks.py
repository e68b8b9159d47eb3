"""Samplers led by the host: they draw what one program draws, say where they are, and are kept on disk."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.runtime.mesh import make_mesh
from score_sde.sampling import chunks
from score_sde.sampling.chunks import compile_trajectory
from score_sde.sampling.draw import compile_sample, generate, sample, sample_keys, sample_with_hooks
from score_sde.sde import VP
from score_sde.solvers import PC, SOLVERS, Carry, Hooks, Watch
from tests.conftest import ROOT
from tests.oracles import Gaussian

DATA = Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))
TIMES = np.linspace(1.0, 1e-3, 12)
SOME = {
    "ddim": SOLVERS["ddim"](),
    "unipc": SOLVERS["unipc"](),  # remembers steps
    "sde_dpmpp_3m": SOLVERS["sde_dpmpp_3m"](),  # and adds noise
    "pc": PC(corrector="langevin"),
    "coupled": PC(corrector="langevin", norm="batch"),  # as published: one step size for a batch
}


def bind(params, cond):
    """The closed form, shifted by a parameter and by each sample's label."""
    shift = params["shift"][None] + (0.1 * cond["label"][:, None] if cond else 0.0)
    return lambda x, t: DATA.denoise(VP())(x, t).shifted(VP(), t, jnp.broadcast_to(shift, x.shape))


@pytest.mark.parametrize("key", SOME)
def test_parts_draw_what_one_program_draws(key, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNKS", 4)  # the last of which is shorter
    mesh, solver, keys = make_mesh(), SOME[key], sample_keys(3, jnp.arange(16))
    assert solver.couples_batch == (key == "coupled")
    plan, params = solver.plan(VP(), TIMES), {"shift": jnp.array([0.05, -0.02])}
    cond = {"label": jnp.arange(16) % 3}
    draw = compile_sample(bind, VP(), solver, mesh, shape=(2,))
    want = sample(keys, bind(params, cond), VP(), solver, plan, shape=(2,))
    np.testing.assert_allclose(draw(params, plan, keys, cond), want, atol=2e-5)
    assert len(np.unique(want[:, 0])) == 16


@pytest.mark.parametrize("key", ["unipc", "coupled"])
def test_hooks_count_on_from_part_to_part(key, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNKS", 5)
    mesh, solver = make_mesh(devices=jax.devices()[:2]), SOME[key]
    plan, params, keys = solver.plan(VP(), TIMES), {"shift": jnp.zeros(2)}, sample_keys(0, jnp.arange(4))
    hooks = Hooks(after=lambda steps, x: x + 0.01 * steps, keep_every_steps=3, keep=5)
    draw = compile_trajectory(bind, VP(), solver, mesh, hooks, shape=(2,))
    trajectory = draw(params, plan, keys, {})
    x, kept = sample_with_hooks(keys, bind(params, {}), VP(), solver, plan, hooks, shape=(2,))
    assert trajectory.shape == (4, 6, 2)
    np.testing.assert_allclose(trajectory[:, -1], x, atol=2e-4)
    np.testing.assert_allclose(np.moveaxis(trajectory[:, :-1], 0, 1), kept, atol=2e-4)
    assert np.isnan(kept).any(axis=(1, 2)).tolist() == [False, False, False, solver.steps(plan) < 12, True]


@pytest.mark.parametrize(("rows", "parts", "ends"), [(3, 100, (1, 2, 3)), (7, 3, (3, 6, 7))])
def test_the_host_tells_what_the_devices_begin_and_is_one_chunk_ahead(rows, parts, ends, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNKS", parts)
    happened = []

    def compile_nothing(function, *rest):
        if function.__name__ == "prepare":
            return lambda plan, keys, cond: (plan, Carry("begun", (), Watch(0, 0, "kept")))
        if function.__name__ == "splice":
            return lambda kept, x: (kept, x)

        def advance(params, plan, keys, cond, carry, first, last):
            happened.append(("advance", first, last))
            return carry._replace(x=f"at {last}"), f"drawn at {last}"

        return advance

    monkeypatch.setattr(chunks, "over_devices", compile_nothing)
    monkeypatch.setattr(chunks.jax, "block_until_ready", lambda carry: happened.append(("wait", carry.x)))
    solver, mesh = dataclasses.replace(SOLVERS["ddim"](), denoise=False), make_mesh()
    plan = solver.plan(VP(), np.linspace(1.0, 1e-3, rows + 1))
    draw = compile_trajectory(
        bind, VP(), solver, mesh, Hooks(), shape=(2,), progress=lambda row: happened.append(("tell", row))
    )
    drawn = draw({}, plan, sample_keys(0, jnp.arange(8)), {})
    expected, first, x = [], 0, "begun"
    for last in ends:
        expected += [("advance", first, last), ("wait", x), ("tell", first)]
        first, x = last, f"at {last}"
    assert happened == expected
    assert drawn == ("kept", f"drawn at {rows}")


SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
from score_sde.runtime import compilation_cache as programs
programs.keep(sys.argv[1])
from score_sde.runtime.mesh import make_mesh
from score_sde.sampling.draw import compile_sample, sample_keys
from score_sde.sde import VP
from score_sde.solvers import PC
from tests.sampling.test_chunks import bind
mesh, solver, rows = make_mesh(), PC(), []
jax.monitoring.register_event_listener(
    lambda name, **_: print("missed") if name == "/jax/compilation_cache/cache_misses" else None
)
plan = solver.plan(VP(), np.linspace(1.0, 1e-3, 9))
keys = sample_keys(0, jnp.arange(8))
print("draws")
draw = compile_sample(bind, VP(), solver, mesh, shape=(2,), progress=rows.append)
draw({"shift": jnp.zeros(2)}, plan, keys, {}).block_until_ready()
assert rows
"""


def test_programs_that_show_progress_are_found_by_the_next_process(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

    def missed() -> int:
        words = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path)]
        out = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        return out.partition("draws")[2].count("missed")

    assert missed() >= 2
    assert len(list(tmp_path.glob("jit_advance-*-cache"))) == 1
    assert missed() == 0


def test_a_sample_can_be_differentiated_by_what_the_network_has():
    solver, keys = SOLVERS["unipc"](), sample_keys(0, jnp.arange(3))
    plan = solver.plan(VP(), TIMES)

    def mean(shift):
        return jnp.mean(sample(keys, bind({"shift": shift}, {}), VP(), solver, plan, shape=(2,)))

    at, by = jnp.array([0.1, -0.2]), 1e-2
    slope = jax.grad(mean)(at)
    steps = by * jnp.eye(2)
    expected = [(mean(at + step) - mean(at - step)) / (2 * by) for step in steps]
    np.testing.assert_allclose(slope, expected, rtol=2e-3)


def test_samples_depend_neither_on_parts_nor_on_batches(monkeypatch):
    mesh, solver = make_mesh(devices=jax.devices()[:2]), SOME["unipc"]
    plan, drawn = solver.plan(VP(), TIMES), []
    for parts, batch in ((1, 10), (7, 4)):
        monkeypatch.setattr(chunks, "CHUNKS", parts)
        draw = compile_sample(bind, VP(), solver, mesh, shape=(2,))
        batches = generate(draw, {"shift": jnp.zeros(2)}, plan, mesh, seed=1, num_samples=9, batch_size=batch)
        drawn.append(np.concatenate(list(batches)))
    np.testing.assert_allclose(drawn[1], drawn[0], atol=2e-5)
