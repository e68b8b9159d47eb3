"""Handwritten digits on a laptop: VP SDE on scikit-learn's 1,797 images of 8x8 pixels.

python run.py --config=configs/vp_digits.py --mode=train --workdir=runs/digits
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

# For likelihood: the bound, with times drawn in proportion to its weight (arXiv:2101.09258).
ML = {"loss": {"weight": "likelihood", "times": "importance"}}
VARIANTS = {
    "": {},
    "wide": {"model.nf": 64},
    # One network with and without the digit's class, for guidance (arXiv:2207.12598).
    "class_conditional": {"conditions.names": ("label",), "conditions.dropout": 0.1},
    "ml": ML,
    # The noise schedule is learned with it (arXiv:2107.00630).
    "learned": ML | {"sde": {"name": "learned"}, "denoiser.time_input": "vp_time"},
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict({"source": "digits"})
    config.codec = ConfigDict({"name": "pixels", "dequantize": True})
    config.sde = ConfigDict({"name": "vp", "beta_min": 0.1, "beta_max": 20.0})
    config.model = ConfigDict(
        {
            "name": "ncsnpp",
            "nf": 32,
            "ch_mult": (1, 2),
            "num_res_blocks": 1,
            "attn_resolutions": (4,),
            "dropout": 0.0,
        }
    )
    config.denoiser = ConfigDict({"prediction": "noise", "time_input": "time_999"})
    config.loss = ConfigDict({"weight": "noise", "times": "low_discrepancy"})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-3, "warmup_steps": 100, "decay_steps": 1000}
    )
    config.ema = ConfigDict({"name": "warmup", "decay": 0.995})
    config.training = ConfigDict(
        {
            "steps": 1000,
            "batch_size": 64,
            "checkpoint_every_steps": 250,
            "keep_every_steps": 0,
            "log_every_steps": 50,
            "eval_every_steps": 500,
            "sample_every_steps": 500,
            "sample_count": 100,
        }
    )
    config.sampling = ConfigDict(
        {"solver": {"name": "pc", "predictor": "ancestral"}, "steps": 100, "t_end": 1e-3, "batch_size": 100}
    )
    config.likelihood = ConfigDict({"integrator": {"name": "adaptive", "rtol": 1e-4, "atol": 1e-4}})
    return vary(config, VARIANTS, variant)
