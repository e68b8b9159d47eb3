"""One step against the official code, exact resume, devices, signals: the promises of the training loop."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from score_sde import nets
from score_sde.arrays import mean_dims
from score_sde.data import Batches, Digits
from score_sde.denoiser import PREDICTIONS, TIME_INPUTS, Denoiser, Precondition
from score_sde.experiment.run_sections import Training
from score_sde.losses import WEIGHTS, square_error
from score_sde.nets.official import from_torch_names
from score_sde.runtime.mesh import batch_sharding, make_mesh, state_shardings
from score_sde.sde import VP
from score_sde.train import EMAS, OPTIMIZERS, Checkpoints, Log, TrainState, train
from score_sde.train.step import compile_step, init_state, make_step
from tests.recipe import normals, state_dict, uniforms

ROW = Precondition(PREDICTIONS["noise"](), TIME_INPUTS["time_999"]())


class Tiny:
    """A two-parameter-array network: quick to compile, with dropout so that keys matter."""

    def init(self, key):
        return {"w": 0.1 * jax.random.normal(key, (64, 64)), "b": jnp.zeros((64,))}

    def __call__(self, params, x, *, key=None):
        flat = x.reshape(x.shape[0], -1)
        if key is not None:
            flat = flat * jax.random.bernoulli(key, 0.9, flat.shape)
        return (jnp.tanh(flat @ params["w"]) + params["b"][None]).reshape(x.shape)


class Noise:
    """A task: a network that tells the noise of a VP process."""

    net = Tiny()

    def frozen(self):
        return {}

    def init(self, frozen, key):
        return {"net": self.net.init(key)}

    def draw(self, frozen, batch, key):
        key_data, key_t, key_noise = jax.random.split(key, 3)
        x0 = batch["x"] / 8.0 - 1 + 0.01 * jax.random.normal(key_data, batch["x"].shape)
        count = x0.shape[0]
        t = jnp.mod(jax.random.uniform(key_t, ()) + jnp.arange(count) / count, 1.0)
        return x0, 1e-5 + (1 - 1e-5) * t, jax.random.normal(key_noise, x0.shape)

    def loss(self, trained, frozen, ema, examples, key):
        x0, t, noise = examples
        guess = self.net(trained["net"], VP().perturb(x0, t, noise), key=key)
        return mean_dims((guess - noise) ** 2), {"largest": jnp.max(t)}

    def measures(self, setting):
        return ()


class Dry(Noise):
    """Without dropout, which is drawn by share."""

    def loss(self, trained, frozen, ema, examples, key):
        return super().loss(trained, frozen, ema, examples, None)


def adam(**options):
    return OPTIMIZERS["adam"](**{"learning_rate": 1e-3, "warmup_steps": 5} | options)


class Run:
    """A small run over ``devices``, resumed from whatever its directory holds."""

    def __init__(self, path, *, devices=1, fsdp=1, optimizer=None, task=None, dispatch=1, accumulate=1):
        self.path, self.dispatch = path, dispatch
        self.mesh = make_mesh(fsdp, jax.devices()[:devices])
        self.optimizer, task = optimizer or adam(), task or Noise()
        make = init_state(task, self.optimizer, 3)
        self.frozen = jax.tree.map(jnp.asarray, task.frozen())
        self.shapes = jax.eval_shape(make, self.frozen)
        step = make_step(task, self.optimizer, EMAS["warmup"](decay=0.99), 3, accumulate)
        self.compiled = compile_step(step, self.mesh, self.shapes, self.frozen, dispatch)
        self.make = jax.jit(make, out_shardings=state_shardings(self.mesh, self.shapes))
        self.data = Batches(
            Digits("train"),
            batch_size=16,
            seed=3,
            sharding=batch_sharding(self.mesh),
            steps_per_dispatch=dispatch,
        )

    def fresh(self):
        return self.make(self.frozen)

    def step(self, state, batch):
        return self.compiled(state, self.frozen, batch)

    def to(self, steps, **options):
        with Checkpoints(self.path / "checkpoints", keep_last=3) as checkpoints:
            state = checkpoints.restore(self.shapes, self.mesh) if checkpoints.steps else self.fresh()
            return self.on(checkpoints, state, steps, **options)

    def on(self, checkpoints, state, steps, **options):
        schedule = Training(
            steps=steps,
            batch_size=16,
            checkpoint_every_steps=4,
            log_every_steps=max(2, self.dispatch),
            steps_per_dispatch=self.dispatch,
        )
        with Log(self.path, int(state.step)) as log:
            return train(
                self.step,
                state,
                self.data.from_step(int(state.step)),
                schedule,
                frozen=self.frozen,
                checkpoints=checkpoints,
                log=log,
                quiet=True,
                **options,
            )[0]


def assert_same(a, b, **tolerance):
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if tolerance:
            np.testing.assert_allclose(left, right, **tolerance)
        else:
            np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_five_steps_equal_the_official_training_loop(fixture):
    # float32 on both sides; Adam divides small gradients by small moments, which amplifies their last digits.
    d = fixture("train_trace")
    info, table = json.loads(str(d["info"])), json.loads(str(d["table"]))
    net = nets.Net(nets.NCSNpp(nf=8, dropout=0.0))
    shape = (32, 32, 3)
    params = from_torch_names(state_dict(info["recipe_seed"], table), net, shape)
    params = jax.tree.map(jnp.asarray, params)

    optimizer = adam(learning_rate=info["lr"], warmup_steps=info["warmup"], clip_norm=info["grad_clip"])
    ema = EMAS["warmup"](decay=info["ema_decay"])

    # The package's own step; the recorded times and noises travel with the data.
    class Recorded(Noise):
        def draw(self, frozen, batch, key):
            return batch["x"]

        def loss(self, trained, frozen, ema, examples, key):
            denoiser = Denoiser(trained["net"], VP(), net, ROW)
            return square_error(denoiser, VP(), *examples, weight=WEIGHTS["noise"]()), {}

    step = jax.jit(make_step(Recorded(), optimizer, ema, 0))
    params = {"net": params}
    state = TrainState(jnp.zeros((), jnp.int32), params, params, optimizer.init(params))
    losses, norms = [], []
    for i in range(5):
        x0 = (2 * uniforms(900 + i, (4, 3, 32, 32)) - 1).transpose(0, 2, 3, 1)
        t = uniforms(700 + i, (4,)) * (1 - 1e-5) + 1e-5
        noise = normals(800 + i, (4, 3, 32, 32)).transpose(0, 2, 3, 1)
        raw = tuple(jnp.asarray(a, jnp.float32) for a in (x0, t, noise))
        state, metrics = step(state, {}, {"x": raw})
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
    np.testing.assert_allclose(losses, d["losses"], rtol=2e-5)
    np.testing.assert_allclose(norms, d["grad_norms"], rtol=2e-4)
    # Layouts differ, norms do not: how far every tensor and its average have moved.
    codes = {name: np.full(size, i, np.float32) for i, (name, size, *_) in enumerate(table)}
    order = {path: int(code.flat[0]) for path, code in _flat(from_torch_names(codes, net, shape)).items()}
    for got, key in ((state.params, "moved"), (state.ema, "ema_moved")):
        start = _flat(params["net"])
        for path, leaf in _flat(got["net"]).items():
            if path.endswith("['key']['bias']"):
                continue  # softmax does not see it: its gradient is rounding, which Adam magnifies
            distance = np.linalg.norm(np.asarray(leaf, np.float64) - np.asarray(start[path], np.float64))
            assert distance == pytest.approx(d[key][order[path]], rel=0.02, abs=3e-6), path


def _flat(tree):
    return {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_flatten_with_path(tree)[0]}


def test_the_average_of_the_first_step_is_mostly_the_new_parameters(tmp_path):
    # min(decay, (1 + n) / (10 + n)) for update n = 1: two elevenths of the old ones.
    run = Run(tmp_path, optimizer=optax.sgd(0.5))
    before = jax.device_get(run.fresh().params)
    after = run.step(run.fresh(), next(run.data.from_step(0)))[0]
    assert float(jnp.abs(after.params["net"]["w"] - before["net"]["w"]).max()) > 1e-3
    want = jax.tree.map(lambda old, new: 2 / 11 * old + 9 / 11 * new, before, jax.device_get(after.params))
    assert_same(after.ema, want, rtol=1e-5, atol=1e-7)


def test_resumed_run_is_bit_identical(tmp_path):
    whole = Run(tmp_path / "a").to(20)
    Run(tmp_path / "b").to(10)
    assert_same(Run(tmp_path / "b").to(20), whole)


def test_what_was_written_after_the_last_checkpoint_is_made_again(tmp_path):
    # As after kill -9 at step 11: the log is ahead of the checkpoint of step 8.
    whole = Run(tmp_path / "a").to(20)
    Run(tmp_path / "b").to(8)
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "loss": 5.0}\n{"step": 11, "lo')
    assert_same(Run(tmp_path / "b").to(20), whole)
    lines = [json.loads(line) for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert 5.0 not in [line["loss"] for line in lines]


def test_one_device_equals_eight_and_sharded_parameters(tmp_path, monkeypatch):
    monkeypatch.setattr("score_sde.runtime.mesh._SMALLEST_SPLIT", 1)
    one = Run(tmp_path / "1").to(12)
    eight = Run(tmp_path / "8", devices=8).to(12)
    split = Run(tmp_path / "f", devices=8, fsdp=4).to(12)
    assert "fsdp" in str(split.params["net"]["w"].sharding.spec)
    assert_same(eight.params, one.params, atol=2e-5)
    assert_same(split.params, one.params, atol=2e-5)


def test_restores_on_another_number_of_devices(tmp_path, monkeypatch):
    monkeypatch.setattr("score_sde.runtime.mesh._SMALLEST_SPLIT", 1)
    saved = Run(tmp_path, devices=8, fsdp=2).to(8)
    run = Run(tmp_path)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert_same(checkpoints.restore(run.shapes, run.mesh), saved)
        step, ema = checkpoints.restore_ema(run.shapes.ema, run.mesh)
    assert step == 8
    assert_same(ema, saved.ema)


def test_several_steps_a_dispatch_equal_single_ones(tmp_path):
    assert_same(Run(tmp_path / "4", dispatch=4).to(12), Run(tmp_path / "1").to(12), atol=2e-6)


def test_accumulated_shares_equal_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("score_sde.runtime.mesh._SMALLEST_SPLIT", 1)

    whole = Run(tmp_path / "1", task=Dry()).to(8)
    shares = Run(tmp_path / "4", task=Dry(), accumulate=4, devices=4, fsdp=2, dispatch=2).to(8)
    assert_same(shares.params, whole.params, atol=2e-6)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("1", "4")
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.slow
def test_shares_have_their_own_dropout(tmp_path):
    seen = []

    class Watched(Noise):
        def loss(self, trained, frozen, ema, examples, key):
            jax.debug.callback(lambda k: seen.append(tuple(np.ravel(k))), jax.random.key_data(key))
            return super().loss(trained, frozen, ema, examples, key)

    run = Run(tmp_path, task=Watched(), accumulate=4)
    jax.block_until_ready(run.step(run.fresh(), next(run.data.from_step(0))))
    jax.effects_barrier()
    assert len(set(seen)) == 4


def test_gradients_are_those_at_the_parameters_by_the_key_of_the_step():
    task, optimizer, batch = Noise(), optax.sgd(1.0), {"x": Digits("train").read(np.arange(16))["x"]}
    params, average = ({"net": task.net.init(jax.random.key(i))} for i in (0, 1))
    state = TrainState(jnp.int32(7), params, average, optimizer.init(params))
    moved, metrics = make_step(task, optimizer, EMAS["warmup"](), 3)(state, {}, batch)
    key_draw, key_loss = jax.random.split(jax.random.fold_in(jax.random.key(3), 7))
    examples = task.draw({}, batch, key_draw)

    def per_example(params):
        return task.loss(params, {}, average, examples, key_loss)[0]

    want = jax.grad(lambda params: jnp.mean(per_example(params)))(params)
    assert_same(jax.tree.map(jnp.subtract, params, moved.params), want, atol=1e-6)
    losses = per_example(params)
    assert float(metrics["loss"]) == pytest.approx(float(jnp.mean(losses)), rel=1e-6)
    assert float(metrics["loss_variance"]) == pytest.approx(float(jnp.var(losses)), rel=1e-3)
    assert float(metrics["largest"]) == pytest.approx(float(examples[1].max()), rel=1e-6)


class Distilled(Noise):
    """A task with a frozen teacher, whose loss also looks at the average."""

    def frozen(self):
        return {"teacher": {"shift": jnp.full((), 0.5)}}

    def loss(self, trained, frozen, ema, examples, key):
        x0, t, noise = examples
        x = VP().perturb(x0, t, noise)
        guess = self.net(trained["net"], x, key=key)
        goal = frozen["teacher"]["shift"] * noise + 0.1 * self.net(ema["net"], x)
        return mean_dims((guess - goal) ** 2), {}


def test_frozen_parts_are_inputs_that_stay_and_are_stored_once(tmp_path):
    run = Run(tmp_path, task=Distilled())
    state = run.to(4)
    assert set(state.params) == {"net"}
    batch = next(run.data.from_step(0))

    def gradient(teacher, average):
        frozen = {"teacher": {"shift": jnp.full((), teacher)}}
        fresh = run.fresh()
        fresh = dataclasses.replace(fresh, ema=jax.tree.map(lambda a: average * a, fresh.ema))
        moved, _ = run.compiled(fresh, frozen, batch)
        return optax.tree_utils.tree_get(moved.opt_state, "mu")["net"]["w"]

    first = gradient(0.5, 1.0)
    assert float(jnp.abs(gradient(0.5, 1.0) - first).max()) == 0
    assert float(jnp.abs(gradient(2.0, 1.0) - first).max()) > 0  # an input, not a constant of the program
    assert float(jnp.abs(gradient(0.5, 0.0) - first).max()) > 0  # the loss sees the average
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save_frozen(run.frozen)
        checkpoints.save_frozen({"teacher": {"shift": jnp.full((), 9.0)}})  # the first stays
        again = checkpoints.restore_frozen(jax.eval_shape(lambda: run.frozen), run.mesh)
    assert float(again["teacher"]["shift"]) == 0.5


def test_state_is_donated(tmp_path):
    run = Run(tmp_path)
    state = run.fresh()
    run.step(state, next(run.data.from_step(0)))
    assert state.params["net"]["w"].is_deleted()


def test_changed_learning_rate_average_and_length_are_honoured(tmp_path):
    Run(tmp_path).to(4)
    frozen = Run(tmp_path, optimizer=adam(learning_rate=1e-30)).to(8)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        before = checkpoints.restore(Run(tmp_path).shapes, make_mesh(1, jax.devices()[:1]), 4)
    assert_same(frozen.params, before.params)
    assert int(frozen.step) == 8


def test_a_changed_architecture_is_shown(tmp_path, monkeypatch):
    Run(tmp_path).to(4)
    monkeypatch.setattr(Tiny, "init", lambda self, key: {"w": jnp.zeros((64, 32)), "c": jnp.zeros(3)})
    with pytest.raises(ValueError, match="does not fit the config") as error:
        Run(tmp_path).to(8)
    text = str(error.value)
    assert "net/w: saved float32[64, 64], config float32[64, 32]" in text
    assert "net/b: saved float32[64], config nothing" in text
    assert "net/c: saved nothing, config float32[3]" in text


@pytest.mark.parametrize("at", [0, 5, 7])
def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path, at):
    class Marked(Noise):
        def loss(self, trained, frozen, ema, examples, key):
            value, aux = super().loss(trained, frozen, ema, examples, key)
            marked = jnp.array_equal(jax.random.key_data(key), jax.random.key_data(_loss_key(at)))
            return jnp.where(marked, jnp.nan, value), aux

    run = Run(tmp_path, task=Marked())
    with pytest.raises(FloatingPointError, match=f"step {at}: loss nan"):
        run.to(20)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert all(step <= at for step in checkpoints.steps)  # nothing spoilt was saved


def _loss_key(step):
    return jax.random.split(jax.random.fold_in(jax.random.key(3), step))[1]


def test_averages_follow_their_rules():
    constant, warm = EMAS["constant"](decay=0.9), EMAS["warmup"](decay=0.9999)
    assert float(constant(jnp.int32(0))) == pytest.approx(0.9)
    assert float(warm(jnp.int32(0))) == pytest.approx(2 / 11)
    assert float(warm(jnp.int32(10**7))) == pytest.approx(0.9999)


def test_learning_rate_warms_up_from_zero_and_gradients_are_clipped():
    optimizer = OPTIMIZERS["adam"](learning_rate=0.1, warmup_steps=2, clip_norm=1.0)
    params = {"w": jnp.zeros(2)}
    state = optimizer.init(params)
    sizes = []
    for _ in range(4):
        updates, state = optimizer.update({"w": jnp.array([30.0, 40.0])}, state, params)
        sizes.append(float(jnp.abs(updates["w"]).max()))
    np.testing.assert_allclose(sizes, [0, 0.05, 0.1, 0.1], rtol=1e-4, atol=1e-8)
    moments = optax.tree_utils.tree_get(state, "mu")["w"]
    assert float(jnp.linalg.norm(moments)) <= 1.0 + 1e-5


@pytest.mark.parametrize("size", [0.0, 0.5, 50.0, float("nan")])
def test_gradients_are_scaled_to_the_norm_as_by_optax(size):
    gradients = {"a": size * jnp.array([0.6, 0.0]), "b": size * jnp.array([[0.8]])}
    want, _ = optax.clip_by_global_norm(1.0).update(gradients, optax.EmptyState())
    optimizer = OPTIMIZERS["adam"](clip_norm=1.0, beta1=0.0)
    _, state = optimizer.update(gradients, optimizer.init(gradients), gradients)
    got = optax.tree_utils.tree_get(state, "mu")  # what Adam is given, without a moving average
    tolerance = 0.0 if size < 1 else 1e-6
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance), got, want)


def test_keeps_the_newest_and_every_kth(tmp_path):
    run = Run(tmp_path)
    with Checkpoints(tmp_path / "c", keep_last=1, keep_every_steps=4) as checkpoints:
        state = run.fresh()
        for step in (2, 4, 6, 8, 10):
            checkpoints.save(step, state)
            checkpoints.wait()
        assert checkpoints.steps == [4, 8, 10]


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    run = Run(tmp_path)
    state = run.to(4)

    class Full:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Full)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        with pytest.raises(OSError, match=r"no room for the checkpoint of step 8: .* MB needed"):
            checkpoints.save(8, state)
        assert checkpoints.steps == [4]


def test_missing_checkpoints_are_named(tmp_path):
    run = Run(tmp_path)
    with Checkpoints(tmp_path / "empty") as checkpoints, pytest.raises(FileNotFoundError, match="empty"):
        checkpoints.restore(run.shapes, run.mesh)
    run.to(4)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        with pytest.raises(FileNotFoundError, match=r"step 3 .* there are \[4\]"):
            checkpoints.restore(run.shapes, run.mesh, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 0.0}, "learning_rate = 0.0: must be positive"),
        ({"beta2": 1.0}, "beta2"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"decay_steps": 3, "warmup_steps": 5}, "must exceed"),
    ],
)
def test_impossible_optimizer_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        OPTIMIZERS["adam"](**options)


def test_half_life_forgets_half_within_its_images():
    decay = EMAS["half_life"](batch_size=50, half_life_images=1000, ramp_up=0.0)
    kept = np.prod([float(decay(jnp.asarray(n))) for n in range(20)])
    assert kept == pytest.approx(0.5, rel=1e-5)
    ramped = EMAS["half_life"](batch_size=50, half_life_images=1000, ramp_up=0.1)
    assert float(ramped(jnp.asarray(0))) == 0.0  # nothing is kept of the initial parameters
    assert float(ramped(jnp.asarray(100))) == pytest.approx(0.5 ** (50 / 500), rel=1e-5)
    assert float(ramped(jnp.asarray(1000))) == pytest.approx(0.5 ** (50 / 1000), rel=1e-5)


def test_warm_up_counted_in_images_is_that_in_steps():
    by_images = adam(learning_rate=0.5, warmup_images=400, batch_size=100)
    by_steps = adam(learning_rate=0.5, warmup_steps=4)
    params = {"w": jnp.ones(3)}
    states = [by_images.init(params), by_steps.init(params)]
    for n in range(6):
        grads = {"w": jnp.full(3, 1.0 + n)}
        (a, states[0]), (b, states[1]) = by_images.update(grads, states[0]), by_steps.update(grads, states[1])
        np.testing.assert_array_equal(a["w"], b["w"])
    assert float(a["w"][0]) == pytest.approx(-0.5, rel=0.2)
