"""Integration of a batch of independent ODEs on the device, with an error estimate per example or on a grid.

The adaptive integrator is diffrax's; the step size belongs to each example, so that an example's result
depends neither on the batch it shares nor on the number of devices.  The field is still evaluated for the
whole batch at once: ``vmap`` over single solves batches the field by ``custom_vmap``, and what
the field has bound for the batch (labels, probes) stays bound.  ``CONTROLS`` has the other choice too, one
step size for the batch.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, core
from jax.custom_batching import custom_vmap

from score_sde.arrays import Tree
from score_sde.integrate.fixed_steps import Evaluations

State = TypeVar("State")  # a pytree of arrays
Field = Callable[[Array, State], State]


class Method(NamedTuple):
    """An embedded explicit Runge-Kutta method: its name in diffrax, and field evaluations of one step."""

    solver: str
    evaluations: int


METHODS = {
    "dopri5": Method("Dopri5", 6),  # the last slope is the next step's first, as in all but Heun's
    "tsit5": Method("Tsit5", 6),
    "bosh3": Method("Bosh3", 3),
    "dopri8": Method("Dopri8", 13),
    "heun": Method("Heun", 2),
}


class Solution(NamedTuple, Generic[State]):
    """Result of an integration.

    Attributes:
      y: state at ``t1``; NaN for an example that did not get there in ``max_steps``.
      evaluations: field evaluations of each example, ``(B,)``; the batch pays for the largest.
      path: states at the times that were asked for, with those as the leading axis; None without.
    """

    y: State
    evaluations: Array
    path: State = None  # type: ignore[assignment]


class Accuracy(NamedTuple):
    """How an ODE is solved.

    Attributes:
      rtol, atol: tolerances on the root mean square over all entries that share a step size.
      max_steps: accepted and rejected steps after which an example is given up.
      method: ``dopri5`` (Dormand & Prince 1980), ``tsit5`` (Tsitouras 2011), both of order 5, ``bosh3``
        (Bogacki & Shampine 1989), ``dopri8`` (Prince & Dormand 1981), or ``heun``, of order 2.
    """

    rtol: float | Array = 1e-5
    atol: float | Array = 1e-5
    max_steps: int = 4096
    method: str = "dopri5"


def integrate_each(
    field: Field[State],
    y0: State,
    t0: Array | float,
    t1: Array | float,
    accuracy: Accuracy,
    times: Array | None = None,
    light: Field[State] | None = None,
) -> Solution[State]:
    """Integrate ``dy/dt = field(t, y)`` from ``t0`` to ``t1``, forwards or back, each at its own pace.

    Args:
      field: ``(t: (B,), y) -> dy/dt`` with the structure of ``y``; examples must not interact.
      y0: pytree of arrays with a leading axis ``B``.
      times: from ``t0`` to ``t1``, ``(T,)``: where the path is wanted, by the method's own interpolation.
      light: ``field`` but for zeros in place of what it does not depend on itself, such as a sum's slope,
        to be evaluated where that is of no account.
    """
    size = jax.tree.leaves(y0)[0].shape[0]
    parts = [_per_example(part, jnp.zeros(size), y0) for part in (field, light) if part]
    captured = [values for _, values in parts]

    def with_captured(i: int) -> Callable:
        return lambda t, y, captured: parts[i][0](t, y, captured[i])

    def solve(y: State, captured: list[list[Array]]) -> Solution[State]:
        lighter = with_captured(1) if light else None
        return _solve(with_captured(0), y, t0, t1, captured, accuracy, times, lighter)

    out_axes = Solution(0, 0, None if times is None else 1)  # type: ignore[arg-type]
    return jax.vmap(solve, in_axes=(0, None), out_axes=out_axes)(y0, captured)


def integrate_together(
    field: Field[State],
    y0: State,
    t0: Array | float,
    t1: Array | float,
    accuracy: Accuracy,
    times: Array | None = None,
    light: Field[State] | None = None,
) -> Solution[State]:
    """The same with one step size for the whole batch, as the official code has it."""
    size = jax.tree.leaves(y0)[0].shape[0]

    def of_all(field: Field[State]) -> Callable[[Array, State, None], State]:
        return lambda t, y, args: field(jnp.broadcast_to(t, (size,)), y)

    solution = _solve(of_all(field), y0, t0, t1, None, accuracy, times, of_all(light) if light else None)
    return solution._replace(evaluations=jnp.broadcast_to(solution.evaluations, (size,)))


CONTROLS = {"sample": integrate_each, "batch": integrate_together}


def integrate_on(field: Field[State], y0: State, how: Evaluations, intervals: int) -> Solution[State]:
    """By a method on a grid: the state at its end, and the path at the ends of intervals.

    Args:
      field, y0: as of ``integrate_each``.
      how: the method; its points are times, and its weights in units of time.
      intervals: that ``how.interval`` counts, of one step or more; the path has a state more.
    """
    size, back = jax.tree.leaves(y0)[0].shape[0], how.weights.shape[1]

    def evaluate(
        carry: tuple[State, State, Tree, Tree], row: Evaluations
    ) -> tuple[tuple[State, State, Tree, Tree], None]:
        start, point, slopes, path = carry
        slope = field(jnp.broadcast_to(row.points, (size,)), point)
        slopes = jax.tree.map(lambda new, old: jnp.concatenate([new[None], old[:-1]]), slope, slopes)
        point = jax.tree.map(lambda y, k: y + jnp.tensordot(row.weights, k, 1), start, slopes)
        start = jax.tree.map(lambda new, old: jnp.where(row.lands, new, old), point, start)
        # What is written last into an interval's place is its end.
        path = jax.tree.map(lambda states, y: states.at[row.interval].set(y), path, point)
        return (start, point, slopes, path), None

    slopes = jax.tree.map(lambda a: jnp.zeros((back, *a.shape), a.dtype), y0)
    path = jax.tree.map(lambda a: jnp.zeros((intervals, *a.shape), a.dtype), y0)
    (y, _, _, path), _ = jax.lax.scan(evaluate, (y0, y0, slopes, path), how)
    path = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), y0, path)
    return Solution(y, jnp.full(size, how.points.size), path)


def _solve(
    field: Callable,
    y0: State,
    t0: Array | float,
    t1: Array | float,
    args: Tree,
    accuracy: Accuracy,
    times: Array | None,
    light: Callable | None,
) -> Solution[State]:
    """One solve with one step size."""
    import diffrax  # only now: most runs start without, and it takes a while

    from score_sde.integrate.embedded import Embedded
    from score_sde.integrate.step_sizes import StepSizes, first_step

    # diffrax would turn the time of a way back itself, but the first step is chosen before.
    sign = jnp.where(jnp.asarray(t0) <= t1, 1.0, -1.0)

    def rising(t: Array | float) -> Array:
        return sign.astype(jnp.result_type(t)) * t

    def forwards(field: Callable) -> Callable:
        def slope(t: Array, y: State, args: Tree) -> State:
            return jax.tree.map(lambda k: sign.astype(k.dtype) * k, field(rising(t), y, args))

        return slope

    method = METHODS[accuracy.method]
    t0, t1 = rising(t0), rising(t1)
    times = None if times is None else rising(times)
    term = diffrax.ODETerm(forwards(field))
    solver = Embedded(getattr(diffrax, method.solver)(), light and forwards(light))
    sizes = StepSizes(accuracy.rtol, accuracy.atol)
    first, slope = first_step(
        lambda t, y: term.vf(t, y, args), t0, t1, y0, sizes, error_order=solver.error_order(term)
    )
    solution = diffrax.diffeqsolve(
        term,
        solver,
        t0,
        t1,
        dt0=first,
        y0=y0,
        args=args,
        stepsize_controller=sizes,
        max_steps=accuracy.max_steps,
        saveat=diffrax.SaveAt(t1=True, ts=times),
        adjoint=diffrax.ForwardMode(),
        throw=False,
        solver_state=slope,
    )
    assert solution.ys is not None
    ok = solution.result == diffrax.RESULTS.successful
    saved = jax.tree.map(lambda a: jnp.where(ok, a, jnp.nan), solution.ys)
    return Solution(
        jax.tree.map(lambda a: a[-1], saved),
        2 + method.evaluations * solution.stats["num_steps"],  # two for the first step's size
        None if times is None else jax.tree.map(lambda a: a[:-1], saved),
    )


def _per_example(field: Field[State], t: Array, y: State) -> tuple[Callable, list[Array]]:
    """``field`` as a function ``(t, y, captured)`` of one example whose ``vmap`` is ``field`` itself.

    What the field has captured (parameters, probes) becomes an argument: a batching rule that runs inside a
    loop's body may not close over values from outside it.
    """
    program, shapes = jax.make_jaxpr(field, return_shape=True)(t, y)
    structure = jax.tree.structure(shapes)

    @custom_vmap
    def single(t: Array, y: State, captured: list[Array]) -> State:
        return jax.tree.map(jnp.zeros_like, y)  # for its shapes: only ever called under vmap

    @single.def_vmap
    def batched(
        size: int, in_batched: list[Tree], t: Array, y: State, captured: list[Array]
    ) -> tuple[State, Tree]:
        def spread(a: Array, is_batched: bool) -> Array:
            return a if is_batched else jnp.broadcast_to(a, (size, *jnp.shape(a)))

        t, y = jax.tree.map(spread, (t, y), tuple(in_batched[:2]))
        slope = core.eval_jaxpr(program.jaxpr, captured, t, *jax.tree.leaves(y))
        return jax.tree.unflatten(structure, slope), jax.tree.unflatten(structure, [True] * len(slope))

    return single, program.consts
