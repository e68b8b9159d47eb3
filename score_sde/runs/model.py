"""A trained model: what Python, the command line and the notebooks use."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from score_sde.architecture import Architecture, codec_params
from score_sde.arrays import Parts
from score_sde.conditions import Chosen, Cond, Conditions, Value
from score_sde.data import Source
from score_sde.evaluate import Density
from score_sde.evaluate.cache import fingerprint
from score_sde.experiment.assemble import sampler_of
from score_sde.experiment.schema import Config
from score_sde.experiment.sections import as_tree
from score_sde.guidance import UNCHANGED, Guidance, compose
from score_sde.inverse import LinearOperator, Posterior
from score_sde.names import ConfigError
from score_sde.nets import digest
from score_sde.runs.edit import edit_pictures
from score_sde.runs.estimates import Estimate, make_estimate, measure
from score_sde.runs.given import Given, Latents
from score_sde.runs.inputs import from_user
from score_sde.runs.inverter import Inverter, map_with
from score_sde.runs.others import open_run
from score_sde.runs.posterior import posterior
from score_sde.runs.workdir import NEWEST, Choice, Workdir
from score_sde.sampling.chunks import Draw, Progress
from score_sde.sampling.draw import generate
from score_sde.sampling.sampler import Sampler
from score_sde.sde import SDE


def load(
    workdir: str | Path,
    *,
    step: int | None = None,
    best: bool = False,
    sigma_rel: float | None = None,
    changes: Mapping[str, object] | None = None,
) -> "Model":
    """The model of a directory that training, or an import, has written.

    Args:
      step: of the checkpoint; None: the newest.
      best: the checkpoint that training has kept as the best.
      sigma_rel: length of the average of the parameters; see ``workdir.Choice``.
      changes: to fields of the config, such as ``{"sampling.solver": "heun", "sampling.steps": 18}``.

    Raises:
      FileNotFoundError: no config, or no such checkpoint, there.
      ConfigError: a field that there is not, or a value that it cannot have.
    """
    return Model.of(Workdir.open(workdir, changes), Choice(step, best, sigma_rel))


@dataclass(frozen=True)
class Model:
    """The averaged parameters of a checkpoint, with everything that can be done with them.

    Examples are as users have them: pictures are uint8 ``(N, H, W, C)`` with values 0 .. 255, other data are
    in their own units.  Conditions are given by name, one value for all examples or one for each.

    Attributes:
      workdir: where it comes from.
      architecture: the model without its parameters, with its process given.
      parts: averaged parameters by part, on ``mesh``.
      which: checkpoint was asked for.
      step: of it.
      guidance: of samples, after that of the config; see ``guided``.
    """

    workdir: Workdir
    which: Choice
    architecture: Architecture
    parts: Parts = field(repr=False)
    step: int
    mesh: Mesh
    guidance: Guidance = UNCHANGED

    @classmethod
    def of(cls, workdir: Workdir, which: Choice = NEWEST) -> "Model":
        """The chosen checkpoint of a run; raises as ``load`` does."""
        architecture = workdir.architecture
        step, mesh, parts = workdir.restore(which)
        return cls(workdir, which, _given(workdir, architecture, parts), parts, step, mesh)

    @property
    def config(self) -> Config:
        """That of the run, with the changes that were asked for."""
        return self.workdir.config

    def at(self, step: int) -> "Model":
        """The same at another checkpoint; the compiled sampler is shared, where the process is the same.

        Raises:
          FileNotFoundError: there is no such checkpoint.
        """
        other = Model.of(self.workdir, replace(self.which, step=step, best=False))
        if other.architecture == self.architecture:
            other.__dict__.update({name: getattr(self, name) for name in ("sampler", "draw", "relay")})
        return other

    def change(self, changes: Mapping[str, object]) -> "Model":
        """The same parameters under another config: ``{"sampling.solver": "heun", "sampling.steps": 18}``.

        Raises:
          ConfigError: a field that there is not, or a value that it cannot have.
        """
        workdir = self.workdir.changed(changes)
        return replace(self, workdir=workdir, architecture=_given(workdir, workdir.architecture, self.parts))

    def guided(self, guidance: Guidance) -> "Model":
        """The same with more guidance of its samples, such as ``Gradient(loss, scale, sde=model.sde)``.

        It acts on the process of the model, after the guidance of the config and before a change of process
        and a threshold.
        """
        return replace(self, guidance=compose(self.guidance, guidance))

    @property
    def sde(self) -> SDE:
        """The process of the model."""
        return self.architecture.sde

    # --- samples ------------------------------------------------------------------------------------

    @cached_property
    def sampler(self) -> Sampler:
        """How ``config.sampling`` draws samples."""
        self._check_denoises("samples")
        return sampler_of(self.config, self.architecture, open_run=open_run, guided=self.guidance)

    @cached_property
    def draw(self) -> Draw:
        """The compiled sampler: made once, for all batches of one size."""
        return self.sampler.compile(self.mesh, self.relay)

    @cached_property
    def relay(self) -> "Relay":
        """Where the compiled samplers report their steps."""
        return Relay()

    @cached_property
    def posteriors(self) -> dict[Posterior, tuple[Sampler, Draw]]:
        """Samplers of inverse problems that were made so far."""
        return {}

    def sample(self, count: int = 1, *, seed: int | None = None, **conditions: Value) -> np.ndarray:
        """Draw samples: ``(count, *shape)``.

        A sample depends on the seed and its number only, not on how many are drawn.

        Args:
          seed: root of the noise; None: that of the config.
          conditions: values by name, as ``label=3``; an input of the guidance such as ``guidance_scale`` too.
            Without any, samples take the classes in turn.

        Raises:
          ValueError: a condition that the model does not take, or a value that it cannot have.
          FloatingPointError: samples that are not finite.
        """
        inputs = self.sampler.guidance.inputs(count)
        own = {name: conditions.pop(name) for name in inputs if name in conditions}
        for name, value in own.items():
            inputs[name] = np.broadcast_to(np.asarray(value, inputs[name].dtype), inputs[name].shape)
        chosen = choose(self.sampler.conditions, conditions, count)
        batches = self.batches(count, seed=seed, chosen=chosen, inputs=inputs)
        return np.concatenate([self.architecture.decode(self.parts, batch) for batch in batches])

    def batches(
        self,
        count: int,
        *,
        seed: int | None = None,
        chosen: Chosen | None = None,
        inputs: Mapping[str, np.ndarray] | None = None,
        start: int = 0,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[np.ndarray]:
        """Samples ``start .. count - 1`` as the model has them, in batches ``(<= batch_size, *state_shape)``.

        Args:
          chosen: conditions of each sample; None: classes in turn.
          inputs: of the guidance, ``(count, ...)`` by name; None: those of the config.
          progress: called with the number of a step as the devices begin it.
        """
        sampler = self.sampler
        self.relay.to = progress
        return generate(
            self.draw,
            self.parts,
            sampler.plan,
            self.mesh,
            seed=self.config.seed if seed is None else seed,
            num_samples=count,
            batch_size=self.config.sampling.batch_size if batch_size is None else batch_size,
            chosen=Chosen.every_class(sampler.conditions) if chosen is None else chosen,
            inputs=sampler.guidance.inputs(count) if inputs is None else inputs,
            start=start,
        )

    def posterior(
        self,
        measured: np.ndarray,
        operator: LinearOperator,
        *,
        given: Mapping[str, np.ndarray] = MappingProxyType({}),
        noise_std: float = 0.01,
        method: str = "mmps",
        options: Mapping[str, object] = MappingProxyType({}),
        samples: int = 1,
        seed: int | None = None,
        progress: Progress | None = None,
        first: int = 0,
        **conditions: Value,
    ) -> np.ndarray:
        """Samples of ``x0`` given ``measured = A x0 + noise_std z``: ``(N, samples, *shape)``.

        Args:
          measured: ``(N, *M)`` in the model's range, one measurement for each result.
          operator: ``A``; what it needs is in ``given``, ``(N, ...)`` each, such as ``mask``.
          noise_std: in the model's range.
          method: of ``score_sde.inverse.METHODS``, with its ``options``.
          samples: of each measurement, by the solver of ``config.sampling``.
          first: number of the first measurement, where these are a part of more.
          conditions: values by name, one for all; those that are left out are null.

        Raises:
          ValueError: an unknown method, or a measurement that it cannot use.
        """
        count, taken = len(measured) * samples, self.sampler.conditions
        nulls: dict[str, Value] = {name: one.null for name, one in taken}  # what is measured says the rest
        return posterior(
            self,
            measured,
            operator,
            given=given,
            noise_std=noise_std,
            method=method,
            options=options,
            samples=samples,
            seed=self.config.seed if seed is None else seed,
            chosen=choose(taken, {**nulls, **conditions}, count),
            first=first,
            progress=progress,
        )

    edit = edit_pictures

    # --- what the model makes of examples -----------------------------------------------------------

    def denoise(
        self, x: np.ndarray | Array, t: float | np.ndarray | Array, **conditions: Value
    ) -> np.ndarray:
        """``E[x0 | x_t = x]`` in the model's range: ``(B, *state_shape)``, times ``()`` or ``(B,)``."""
        chosen = choose(self.architecture.conditions, conditions, len(x))
        cond = {name: jnp.asarray(values) for name, values in chosen.of(np.arange(len(x))).items()}
        return np.asarray(self._denoise(self.parts, jnp.asarray(x, jnp.float32), jnp.float32(t), cond))

    @cached_property
    def _denoise(self) -> Callable[[Parts, Array, Array, Cond], Array]:
        self._check_denoises("denoiser")
        return jax.jit(lambda parts, x, t, cond: self.architecture.bind(parts, cond)(x, t).x0)

    def encode_state(self, examples: np.ndarray) -> np.ndarray:
        """Examples in the model's range, without noise: ``(N, *state_shape)`` float32."""
        raw = from_user(examples, self.architecture.spec)
        return np.asarray(self.architecture.codec.middle(codec_params(self.parts), raw))

    def log_prob(self, examples: np.ndarray, *, seed: int | None = None, **conditions: Value) -> np.ndarray:
        """Log density of each example in nats, ``(N,)``, by the first of ``config.likelihood.estimates``.

        Of integer data, dequantised unless ``config.likelihood.dequantize`` is off, it is a lower bound on
        the log probability; of others the log density in their own units.

        Raises:
          ValueError: examples of another shape or type.
          FloatingPointError: an example could not be integrated.
        """
        source = Given(
            self.architecture.spec, examples, choose(self.architecture.conditions, conditions, len(examples))
        )
        return self.likelihood(source, self.config.likelihood.estimates[0], seed=seed).nats

    def likelihood(self, source: Source, estimate: str, *, seed: int | None = None) -> Density:
        """An estimate of the log density of every example of a source, with its errors."""
        made = self._estimates
        if estimate not in made:
            made[estimate] = make_estimate(self.density_model, estimate)
        return measure(made[estimate], self.density_model, source, seed=seed)

    @cached_property
    def _estimates(self) -> dict[str, Estimate]:
        return {}  # each is made once, and so compiled once

    @cached_property
    def density_model(self) -> "Model":
        """The model that densities are measured with: integer data are dequantised, if the config says so."""
        self._check_denoises("likelihood")
        wanted = not self.architecture.codec.has_density and self.config.likelihood.dequantize
        return self.change({"codec.dequantize": True}) if wanted else self

    @cached_property
    def inverter(self) -> Inverter:
        """The way between examples and latents that ``config.inversion`` describes."""
        self._check_denoises("latents")
        return Inverter.of(self.config, self.architecture)

    def encode(self, examples: np.ndarray, **conditions: Value) -> np.ndarray:
        """Latents of examples, points of the prior of unit variance: ``(N, *state_shape)`` float32."""
        source = Given(
            self.architecture.spec, examples, choose(self.architecture.conditions, conditions, len(examples))
        )
        return map_with(self, self.inverter.encode, source)["latent"]

    def decode(self, latents: np.ndarray, **conditions: Value) -> np.ndarray:
        """Examples of latents, the inverse of ``encode``."""
        chosen = choose(self.architecture.conditions, conditions, len(latents))
        given = Latents(latents, chosen.of(np.arange(len(latents))))
        found = map_with(self, self.inverter.decode, given)
        return self.architecture.decode(self.parts, found["x"])

    def _check_denoises(self, what: str) -> None:
        if not self.workdir.denoises:
            raise ConfigError(
                f"--workdir={self.workdir.path}: has no {what}: it was trained with config.task = "
                f"{self.config.task.name!r}, which fits no score model"
            )

    @property
    def results(self) -> Path:
        """Where finished pieces of long work are kept, under fingerprints."""
        return self.workdir.path / "results"

    # --- identity -----------------------------------------------------------------------------------

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the parameters of the network; with the others, where there are others."""
        return digest(self.parts["net"] if set(self.parts) == {"net"} else self.parts)

    def fingerprint(self, *sections: str, **what: object) -> str:
        """Of the model, of sections of its config, and of what else a result depends on."""
        tree = as_tree(self.config)
        own = ("sde", "model", "denoiser", "codec", "conditions", *sections)
        return fingerprint(config={name: tree[name] for name in own}, parameters=self.digest, **what)


def _given(workdir: Workdir, architecture: Architecture, parts: Parts) -> Architecture:
    """The architecture with its process as training has left it."""
    return architecture.freeze(parts) if workdir.denoises else architecture


class Relay:
    """Passes the progress of a compiled sampler on to whoever looks at the moment."""

    to: Progress | None = None

    def __call__(self, step: int) -> None:
        if self.to is not None:
            self.to(step)


def choose(conditions: Conditions, values: Mapping[str, Value], count: int) -> Chosen:
    """Conditions of ``count`` examples: one value for all, or one for each; classes in turn without any.

    Raises:
      ValueError: a condition that the model does not take, or a value that it cannot have.
    """
    known = dict(conditions)
    for name in values:
        if name not in known:
            raise ValueError(f"{name}: the model takes {', '.join(known) or 'no condition'}")
    arrays = {
        name: known[name].parse(name, value) if isinstance(value, str) else np.asarray(value)
        for name, value in values.items()
    }
    each = {n: a for n, a in arrays.items() if a.ndim > len(known[n].shape)}
    for name, array in each.items():
        if len(array) != count:
            raise ValueError(f"{name} has {len(array)} values: must be one, or {count}, one for each example")
    base = Chosen.fixed(conditions, {name: a for name, a in arrays.items() if name not in each})
    if not each:
        return base
    about = [base.about, {name: array.tolist() for name, array in each.items()}]
    return Chosen.of_data(conditions, lambda i: {**base.of(i), **{n: a[i] for n, a in each.items()}}, about)
