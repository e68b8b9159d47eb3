"""Fashion-MNIST on a laptop: VP SDE on 60,000 grey pictures of 28x28 pixels in ten classes.

    python run.py --config=configs/vp_fashion.py:class_conditional --mode=train --workdir=runs/vp_fashion

The data are the four files of Fashion-MNIST (MIT licence) in ``data.source.path``; if they are missing, the
message says how to get them.  ``class_conditional`` learns with the ten labels and drops a tenth of them, so
that one network serves with and without guidance.
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
VARIANTS = {
    "": {},
    "class_conditional": {"conditions.names": ("label",), "conditions.dropout": 0.1},
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict(
        {
            "source": {
                "name": "idx",
                "path": "/usr/share/datasets/fashion-mnist",
                "class_names": CLASSES,
            }
        }
    )
    config.codec = ConfigDict({"name": "pixels", "dequantize": True})
    config.sde = ConfigDict({"name": "vp", "beta_min": 0.1, "beta_max": 20.0})
    config.model = ConfigDict(
        {
            "name": "ncsnpp",
            "nf": 32,
            "ch_mult": (1, 2, 2),
            "num_res_blocks": 1,
            "attn_resolutions": (7,),
            "dropout": 0.0,
        }
    )
    config.denoiser = ConfigDict({"prediction": "noise", "time_input": "time_999"})
    config.loss = ConfigDict({"weight": "noise", "times": "low_discrepancy"})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-3, "warmup_steps": 100, "decay_steps": 2500, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "warmup", "decay": 0.995})
    config.training = ConfigDict(
        {
            "steps": 2500,
            "batch_size": 64,
            "checkpoint_every_steps": 250,
            "keep_every_steps": 0,
            "log_every_steps": 50,
            "eval_every_steps": 1250,
            "sample_every_steps": 1250,
            "sample_count": 100,
        }
    )
    config.sampling = ConfigDict(
        {"solver": {"name": "pc", "predictor": "ancestral"}, "steps": 100, "t_end": 1e-3, "batch_size": 100}
    )
    return vary(config, VARIANTS, variant)
