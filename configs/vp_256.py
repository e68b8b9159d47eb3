"""DDPM on LSUN and CelebA-HQ at 256x256: arXiv:2006.11239, vp/ddpm/bedroom, and its siblings.

    python run.py --config=configs/vp_256.py --mode=train \\
        --config.data.source=folder --config.data.source.path=DIR --config.data.source.size=256

DIR holds images of any size; each is scaled to cover 256x256 and cut.  Without the overrides the data
come from TensorFlow Datasets by name (lsun/bedroom).  Variants: ``church``, and ``celebahq``, which has no
default data: name a folder.

Published (arXiv:2006.11239, table 3): FID 6.36 on bedrooms, 7.89 on churches.  111.570 M parameters.
Hardware: 491 GFLOP an image forwards; groups of accelerators.
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

VARIANTS = {
    "": {},  # vp/ddpm/bedroom
    "church": {"data.source.dataset": "lsun/church"},  # vp/ddpm/church
    "celebahq": {"data.source": {"name": "folder", "size": 256}},  # vp/ddpm/celebahq
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 42
    config.data = ConfigDict(
        {"source": {"name": "tfds", "dataset": "lsun/bedroom", "size": 256}, "random_flip": True}
    )
    config.sde = ConfigDict({"name": "ddpm", "steps": 1000, "beta_min": 0.1, "beta_max": 20.0})
    config.model = ConfigDict(
        {
            "name": "ddpm",
            "nf": 128,
            "ch_mult": (1, 1, 2, 2, 4, 4),
            "num_res_blocks": 2,
            "attn_resolutions": (16,),
            "dropout": 0.0,
        }
    )
    config.denoiser = ConfigDict({"prediction": "noise", "time_input": "index"})
    config.loss = ConfigDict({"weight": "noise", "times": "levels"})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-5, "warmup_steps": 5000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "constant", "decay": 0.9999})
    config.training = ConfigDict({"steps": 2_400_000, "batch_size": 64, "checkpoint_every_steps": 5_000})
    config.sampling = ConfigDict(
        {"solver": {"name": "pc", "predictor": "ancestral", "corrector": "none"}, "steps": 999, "t_end": 0.0}
    )
    return vary(config, VARIANTS, variant)
