"""NCSN++ cont. (VE) on LSUN at 256x256: arXiv:2011.13456, ve/bedroom_ncsnpp_continuous, and its siblings.

    python run.py --config=configs/ve_lsun.py --mode=train \\
        --config.data.source=folder --config.data.source.path=DIR --config.data.source.size=256

DIR holds images of any size; each is scaled to cover 256x256 and cut.  Without the overrides the data
come from TensorFlow Datasets by name (lsun/bedroom).  Variants: ``church``, and ``ncsnv2`` on bedrooms at
128x128.

Published: samples only.  65.575 M parameters.
Hardware: 530 GFLOP an image forwards; groups of accelerators.
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

VARIANTS = {
    "": {},  # ve/bedroom_ncsnpp_continuous
    "church": {"data.source.dataset": "lsun/church", "sde.sigma_max": 380.0},  # ve/church_ncsnpp_continuous
    # ve/ncsnv2/bedroom, whose misspelt field made the published file unusable: 1086 levels, as it meant.
    "ncsnv2": {
        "data.source.size": 128,
        "model": {"name": "ncsnv2_128", "nf": 128, "input_range": (0.0, 1.0)},
        "sde": {"name": "smld", "steps": 1086, "sigma_min": 0.01, "sigma_max": 190.0},
        "denoiser.time_input": "reverse_index",
        "loss.times": "levels",
        "optimizer": {"name": "adam", "learning_rate": 1e-4, "warmup_steps": 0, "clip_norm": 0.0},
        "ema.decay": 0.9999,
        "training.batch_size": 128,
        "sampling": {
            "solver": {
                "name": "legacy_pc",
                "predictor": "none",
                "corrector": "ald",
                "corrector_steps": 3,
                "snr": 0.095,
            },
            "steps": 1086,
            "t_end": 1e-5,
        },
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 42
    config.data = ConfigDict(
        {"source": {"name": "tfds", "dataset": "lsun/bedroom", "size": 256}, "random_flip": True}
    )
    # This recipe keeps the data in [0, 1]; the network maps them to [-1, 1].
    config.codec = ConfigDict({"name": "pixels", "low": 0.0, "high": 1.0})
    config.sde = ConfigDict({"name": "ve", "sigma_min": 0.01, "sigma_max": 378.0})
    config.model = ConfigDict(
        {
            "name": "ncsnpp",
            "nf": 128,
            "ch_mult": (1, 1, 2, 2, 2, 2, 2),
            "num_res_blocks": 2,
            "attn_resolutions": (16,),
            "dropout": 0.0,
            "embedding_type": "fourier",
            "fourier_scale": 16.0,
            "fir": True,
            "fir_kernel": (1, 3, 3, 1),
            "progressive": "output_skip",
            "progressive_input": "input_skip",
            "input_range": (0.0, 1.0),
        }
    )
    config.denoiser = ConfigDict({"prediction": "score", "time_input": "log_sigma"})
    config.loss = ConfigDict({"weight": "noise", "half_sum": True})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "constant", "decay": 0.999})
    config.training = ConfigDict({"steps": 2_400_000, "batch_size": 64, "checkpoint_every_steps": 5_000})
    config.sampling = ConfigDict(
        {
            "solver": {"name": "pc", "predictor": "reverse_diffusion", "corrector": "langevin", "snr": 0.075},
            "steps": 2000,
            "t_end": 1e-5,
        }
    )
    return vary(config, VARIANTS, variant)
