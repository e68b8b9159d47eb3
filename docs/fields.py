"""Write the tables of ``config.md`` from the code, so that no field is missing and no default is stale.

    python docs/fields.py            rewrite the part of config.md below the marker
    python docs/fields.py --check    say whether it is up to date

The package must be installed.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

from score_sde.experiment.schema import FIELDS, GIVEN, NAMED
from score_sde.names import options
from score_sde.nets import NETS

PAGE = Path(__file__).parent / "config.md"
MARKER = "<!-- below: written by docs/fields.py -->\n"

MEANING = {
    "data": {
        "source": "`digits`, `folder`, `array` or `tfds`; see [Data](data.md)",
        "path": "folder, array: where the data are",
        "test_path": "array: a second file that holds the held-out examples",
        "name": "tfds: name of the set, such as `cifar10`",
        "data_dir": "tfds: where sets are prepared; none: the default of TensorFlow Datasets",
        "train_split": "tfds: split expression of the training data",
        "test_split": "tfds: of the held-out data; none: `test`, or `validation` if there is no `test`",
        "size": "folder, tfds: side in pixels, or (height, width); none: they have one size already",
        "channels": "folder, tfds: 1 (grey), 3 (RGB) or 4 (RGBA)",
        "resize": "folder, tfds: `crop`, `squash` or `none`",
        "augment_probability": "images: of each of six non-leaking augmentations of EDM; 0 is none",
        "center_crop": "folder, tfds: first cut so many central pixels a side; none: use the whole image",
        "held_out": "folder, array: fraction held out where there is no separate test set",
        "on_error": "folder: `raise`, or `skip` files that cannot be used",
        "grey_levels": "array: integer levels of a uint8 array; none: 256",
        "key": "array: name of the examples inside a .npz",
        "label_key": "array: name of the labels inside a .npz",
        "vector_key": "array: name of a vector for each example inside a .npz; none: there is none",
        "channels_last": "array: whether the last axis is channels; none: decided where there is no doubt",
        "low": "integer data: the model's range starts here",
        "high": "integer data: and ends here",
        "dequantize": "integer data: add uniform noise before scaling",
        "shift": "continuous data: subtracted",
        "scale": "continuous data: then divided by",
        "random_flip": "images: mirror each training image left to right with probability 1/2",
        "placement": "`device` (the whole set), `stream`, or `auto`: `device` up to 1 GiB in one process",
        "num_workers": "stream: worker processes; 0 reads in a thread",
    },
    "denoiser": {
        "prediction": "what the network predicts: `noise`, `score` (times sigma), `raw_score`, `x0`, "
        "`v`, `velocity`, `edm` or `scaled_noise`",
        "time_input": "how it is given the noise level: `time_999`, `log_sigma`, "
        "`quarter_log_sigma`, `log_half_sigma`, `vp_time`, `iddpm_index`; `index` and "
        "`reverse_index` for discrete processes",
        "sigma_data": "`edm`: standard deviation of the data",
    },
    "loss": {
        "weight": "`noise`, `likelihood`, `velocity`, `uniform` or `edm`",
        "times": "training times: `low_discrepancy`, `uniform`, `antithetic`, `importance`, `log_normal`; "
        "`levels` for discrete processes",
        "spread": "`importance`: how the times of a batch relate: `low_discrepancy`, `independent` or "
        "`antithetic`",
        "half_sum": "half the sum over the dimensions, not their mean, as in the published VE recipes",
        "sigma_data": "`edm`: standard deviation of the data",
        "p_mean": "`log_normal`: mean of log(sigma / alpha)",
        "p_std": "`log_normal`: its standard deviation",
    },
    "training": {
        "steps": "updates in all; a resumed run goes on to this number",
        "batch_size": "examples an update, over all devices",
        "steps_per_dispatch": "updates in one compiled loop",
        "accumulate_steps": "shares of the batch whose gradients are computed one after another and added",
        "checkpoint_every_steps": "write a checkpoint at multiples of this, and at the end",
        "keep_last": "newest checkpoints to keep",
        "keep_every_steps": "keep those at multiples of this for good; 0: none",
        "log_every_steps": "write metrics, and look for values that are not finite, at multiples of this",
        "eval_every_steps": "held-out loss of average and parameters at multiples of this, and at the end; "
        "0: at the end only",
        "eval_examples": "held-out examples of that loss",
        "sample_every_steps": "sample grid at multiples of this, and at the end; 0: at the end only",
        "sample_count": "samples of that grid, and of its distance to the training data",
        "best_metric": "the checkpoint where this is lowest is kept: `held_out_loss`, `held_out_loss_raw`, "
        "`sample_pixels_kid` (or another of `evaluate.features`), or empty: none is",
        "conditional": "condition the network on what the data have, such as class labels",
        "label_dropout": "with `conditional`: how often each condition is dropped, for classifier-free guidance",
    },
    "mesh": {
        "fsdp": "devices that share one copy of the parameters; see [Training](training.md)",
        "cpu_devices": "devices to make of a CPU; 0: one a core that gets 16 or more examples",
        "distributed": "call `jax.distributed.initialize()` first: TPU pods, SLURM",
    },
    "sampling": {
        "solver": "`pc`, `ode`, `dpmpp_2m`, `unipc`, `heun` and many more; see [Sampling](sampling.md)",
        "steps": "steps of the time grid",
        "t_end": "the last time",
        "grid": "`uniform` in t, `power`, `quadratic`, `log_snr`, `karras`, `edm`, `shifted`, `list`, `file`",
        "rho": "`power`, `karras`, `edm`: equal steps in t^(1/rho), or in (sigma/alpha)^(1/rho)",
        "shift": "`shifted`: factor of sigma/alpha, the ratio of the image sides",
        "times": "`list`: the steps + 1 times, decreasing",
        "times_file": "`file`: a JSON file of those times, such as a search has written",
        "stop_after_steps": "stop early, after so many of the steps; none: at the end of the grid",
        "keep_every_steps": "sample mode: write the states after so many steps too; 0: none",
        "levels": "on another path: the model is asked at times i / (levels - 1) only; 0: at any",
        "threshold": "the expected clean sample is kept in the data's range: `none`, `static`, `dynamic`",
        "threshold_quantile": "dynamic: quantile of each sample that is brought into the range",
        "batch_size": "samples computed together, over all devices; the result does not depend on it",
        "denoise": "end with the expected clean sample",
        "predictor": "pc: `euler_maruyama`, `reverse_diffusion`, `ancestral`, `ancestral_large` or `none`",
        "corrector": "pc: `langevin`, `ald` or `none`; corrected: the first two; none: the solver's own",
        "corrector_steps": "pc: corrector moves a step",
        "snr": "pc: signal-to-noise ratio of the corrector",
        "norm": "pc: `sample`, `dimension` or `batch`; none: `sample`, for legacy_pc `batch`",
        "noise_scale": "pc, stochastic_heun: factor of the noise; 0: none",
        "table": "corrected: the solver whose steps are corrected, such as `dpmpp_2m`",
        "order": "multistep, unipc, deis, lms, ipndm, adaptive_dpm: of the method; none: the solver's own",
        "corrector_order": "multistep: past predictions of the corrector beside the new one; 0: none",
        "eta": "ddim, multistep, sde_dpmpp_*, dpmpp_sde, singlestep: noise, 0 to 1; none: the solver's own",
        "noise_rule": "multistep: `ddim` or `rate`, the meaning of an eta between 0 and 1",
        "prediction": "multistep, unipc, adaptive_dpm: `x0` or `noise`, multistep also `velocity`",
        "basis": "multistep, deis: the polynomial is one in `lam`, `rho` or `t`",
        "form": "multistep solvers: `exact`, or published weights; singlestep: `midpoint` or `taylor`",
        "lower_final_below": "multistep solvers: the last steps have lower order on grids with fewer steps",
        "space": "euler, heun, midpoint, rk4: `t` or `rho` = sigma/alpha",
        "stage": "heun: place of the second evaluation as a share of the step",
        "stages": "singlestep: `log_snr`, `grid` for the published count of steps, or `even`",
        "inner": "singlestep: `taylor` as published, or `midpoint` as in diffusers",
        "s_churn": "one-step solvers: EDM's noise, in all; 0: none",
        "s_min": "and from which level sigma/alpha",
        "s_max": "to which; none: all",
        "s_noise": "factor of all noise that a table adds on the way",
        "restarts": "restart: how often to go back",
        "restart_steps": "restart: steps of each return",
        "restart_min": "restart: from which level sigma/alpha",
        "restart_max": "restart: up to which",
        "sde_rtol": "adaptive_sde: relative tolerance",
        "sde_atol": "adaptive_sde: absolute tolerance",
        "safety": "adaptive_sde: factor of the next step",
        "exponent": "adaptive_sde: power of the error in the next step",
        "first_step": "adaptive_sde: the first step as a share of the time span",
        "rtol": "ode: relative tolerance",
        "atol": "ode: absolute tolerance",
        "method": "ode: `dopri5`, `tsit5`, `bosh3`, `dopri8` or `heun`",
        "error_control": "ode: a step size for each `sample`, or one for the `batch`",
        "dpm_rtol": "adaptive_dpm: relative tolerance",
        "dpm_atol": "adaptive_dpm: absolute tolerance",
        "dpm_first": "adaptive_dpm: the first step, in half log-SNR",
        "dpm_control": "adaptive_dpm: the error of each `sample`, of the `batch`, or the `largest` in it",
        "controller": "adaptive_dpm: `plain`, as published, or `limited`",
        "max_steps": "ode, adaptive_*: after so many steps a sample is given up, which is an error",
    },
    "likelihood": {
        "estimates": "what is measured, of `ode`, `bound` and `vlb`; see [Likelihood](likelihood.md)",
        "divergence": "`hutchinson` (an unbiased estimate) or `exact`",
        "probes": "hutchinson: random directions an example",
        "kind": "hutchinson: `rademacher` or `gaussian`",
        "chunk": "exact: dimensions computed at a time",
        "nodes": "intervals of the divergence's quadrature, a multiple of 4; 0: part of the ODE",
        "integrator": "`adaptive` or `fixed`",
        "rtol": "adaptive: relative tolerance",
        "atol": "adaptive: absolute tolerance",
        "t_min": "where the data are taken to lie; none: the `t_min` of the process",
        "method": "adaptive: `dopri5`, `tsit5`, `bosh3`, `dopri8` or `heun`; fixed: `adams`, `euler`, "
        "`heun`, `midpoint` or `rk4`; none: the first",
        "error_control": "adaptive: steps for each `sample`, or one for the `batch`, as in the official code",
        "max_steps": "adaptive: after so many steps an example is given up, which is an error",
        "steps": "fixed: steps in all",
        "draws": "independent draws of the dequantisation noise, and of whatever a bound draws",
        "decoder": "bound, vlb: `gaussian`, `none`, or, for integer data, `levels` or `bins`",
        "times": "bound: times an example and draw",
        "chain_steps": "vlb: noise levels of a continuous process",
        "chain_draws": "vlb: steps looked at; none: all",
        "variance": "vlb: of the reverse steps, `small` or `large`",
        "batch_size": "examples computed together, over all devices",
        "dequantize": "add uniform noise to integer data",
        "dequantiser": "integer data: `uniform` noise, or `learned` by `--mode=dequantiser`",
        "num_examples": "only so many held-out examples; none: all",
    },
    "evaluate": {
        "batch_size": "examples computed together, over all devices",
        "levels": "noise levels at which the loss is measured",
        "metrics": "scores of samples: `frechet`, `kid`, `inception_score`, `prdc`; see "
        "[Evaluation](evaluation.md)",
        "features": "what they compare: `pixels`, `classifier`, `inception`, `inception_spatial`, or "
        "`module:function` of your own",
        "weights": "inception: the weight file; classifier: its file; none: `classifier.npz` in the workdir",
        "resize": "inception: `tensorflow`, `pytorch_fid` or `clean`",
        "reference": "what samples are compared with, as `--reference`; none: the split below",
        "split": "`train` or `test`: the split of the data that is the reference",
        "keep_features": "features of the reference to keep for `kid` and `prdc`; moments are of all",
        "bootstrap": "resamplings for error bars; 0: none",
        "kid_subsets": "kid: number of random subsets",
        "kid_subset_size": "kid: examples of each side in a subset",
        "kid_seed": "kid: of the draw of subsets",
        "splits": "inception_score: parts of the second form",
        "nearest": "prdc: balls reach to this nearest neighbour",
    },
    "dequantiser": {
        "width": "channels of its convolutions",
        "couplings": "affine layers, each of which moves every other pixel",
        "steps": "updates",
        "batch_size": "examples an update",
        "learning_rate": "of Adam, after a warm-up, falling along a cosine",
        "ema": "decay of the average of its parameters",
    },
    "codes": {
        "solver": "`ode` (adaptive), or a deterministic solver to walk both ways, such as `ddim`",
        "rtol": "`ode`: relative tolerance for an example",
        "atol": "`ode`: absolute tolerance for an example",
        "method": "`ode`: `dopri5`, `tsit5`, `bosh3`, `dopri8` or `heun`",
        "max_steps": "`ode`: after so many steps an example is given up",
        "steps": "other solvers: steps each way",
        "grid": "other solvers: time grid, as in `sampling`",
        "t_min": "where the data are taken to lie; none: that of the process",
        "batch_size": "examples computed together, over all devices",
        "split": "`train` or `test`: which examples, without `--samples`",
        "num_examples": "the first so many; none: all",
        "frames": "interpolate: pictures from one example to the next, ends included",
        "temperature": "decode: factor on the codes, or several, one for each column of the grid",
    },
    "search": {
        "features": "`network`, `codes`, `pixels`, `classifier`, `inception` or `file`; of several, the "
        "first searches and the others are compared with it",
        "log_snr": "network: noise level; of several, the best for the labels of the training data",
        "layer": "network: name of a layer; empty: the last at the lowest resolution",
        "cells": "network: parts of every axis over which features are averaged",
        "draws": "network: draws of the noise to average over; 0: no noise, only its scale",
        "file": "file: .npy of vectors `(N, d)`, one for each example",
        "metric": "`cosine` (after the mean is subtracted) or `euclidean`",
        "nearest": "neighbours shown, and counted for the accuracy",
        "split": "`train` or `test`: which examples are searched, without `--samples`",
        "num_examples": "the first so many; none: all",
        "batch_size": "examples computed together, over all devices",
    },
    "outliers": {
        "scores": "`typicality`, `likelihood`, `complexity`; the first chooses what the picture shows",
        "foreign": "without `--samples`: what held-out examples are turned into: `constant`, `noise`, "
        "`shuffled`, `rotated`, `inverted`",
        "num_examples": "so many training and held-out examples",
    },
    "classifier": {
        "widths": "channels of each stage; the last is the number of features",
        "steps": "updates",
        "batch_size": "examples an update",
        "learning_rate": "of Adam, falling to zero along a cosine",
    },
}


def shown(default: Any) -> str:
    """A default as the config file would have it."""
    if isinstance(default, type):  # not set
        default = None
    return "none" if default is None else f"`{default!r}`"


def table(head: str, rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    width = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * width, *("| " + " | ".join(row) + " |" for row in rows)])


def of_section(section: str) -> str:
    """The table of a section with fields of its own.

    Raises:
      SystemExit: a field without a meaning, or a meaning without a field.
    """
    if FIELDS[section].keys() != MEANING.get(section, {}).keys():
        different = FIELDS[section].keys() ^ MEANING.get(section, {}).keys()
        raise SystemExit(f"docs/fields.py: {section}: give a meaning to, or drop: {sorted(different)}")
    rows = [(f"`{key}`", shown(default), MEANING[section][key]) for key, default in FIELDS[section].items()]
    return table("| field | default | meaning |", rows)


def of_members(section: str) -> str:
    """The table of a section whose ``name`` picks a member of a table."""
    rows = []
    for name, make in NAMED[section].items():
        fields = [f"`{key}={default!r}`" for key, default in options(make, given=GIVEN).items()]
        rows.append((f"`{name}`", ", ".join(fields)))
    return table("| name | fields with their defaults |", rows)


def documented(make: Any) -> dict[str, str]:
    """What the docstring of a class says of its attributes, or of a function of its arguments."""
    found: dict[str, str] = {}
    current: list[str] = []
    inside = False
    for line in (inspect.getdoc(make) or "").splitlines():
        if line.strip() in ("Attributes:", "Args:"):
            inside = True
        elif inside and line.startswith("  ") and not line.startswith("   "):
            names, _, text = line.strip().partition(": ")
            current = names.split(", ")
            found |= dict.fromkeys(current, text)
        elif inside and line.startswith("   "):
            found |= {name: f"{found[name]} {line.strip()}" for name in current}
        elif line.strip():
            inside = False
    return found


def of_model(name: str) -> str:
    """The table of a network's fields, from its docstring and those of the networks it varies."""
    said: dict[str, str] = {}
    for kind in reversed(NETS[name].__mro__):
        said |= documented(kind)
    rows = [(f"`{key}`", shown(default), said[key]) for key, default in options(NETS[name]).items()]
    return table("| field | default | meaning |", rows)


def page() -> str:
    """The generated part of the page."""
    parts = [f"## {section}\n\n{of_members(section)}" for section in NAMED if section != "model"]
    parts += [f"## model: {name}\n\n{of_model(name)}" for name in NETS]
    parts += [f"## {section}\n\n{of_section(section)}" for section in FIELDS]
    return "\n\n".join(parts).replace("``", "`") + "\n"


def main() -> None:
    """Rewrite the page, or check it."""
    head, marker, old = PAGE.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise SystemExit(f"{PAGE}: the line {MARKER.strip()} is missing")
    new = "\n" + page()
    if sys.argv[1:] == ["--check"]:
        if old != new:
            raise SystemExit("docs/config.md is out of date: run python docs/fields.py")
        return
    PAGE.write_text(head + marker + new, encoding="utf-8")


if __name__ == "__main__":
    main()
