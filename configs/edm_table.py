"""A table on a laptop: EDM on scikit-learn's breast cancer set, 569 rows of 30 numbers and a diagnosis.

    python run.py --config=configs/edm_table.py --mode=train --workdir=runs/table
    python run.py --mode=edit --workdir=runs/table --task=impute --input=holes.csv --output=filled.csv

The second command fills the empty cells of a CSV file with the same header.  Another table:
``--config.data.source.path=my.csv``.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The recipe."""
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict({"source": {"name": "table", "path": "sklearn:breast_cancer", "held_out": 0.2}})
    config.codec = ConfigDict({"name": "table"})
    config.sde = ConfigDict({"name": "edm", "t_min": 0.002, "t_max": 80.0})
    config.model = ConfigDict({"name": "mlp", "width": 128, "num_blocks": 3, "dropout": 0.1})
    config.task = ConfigDict({"name": "imputation"})
    config.denoiser = ConfigDict(
        {"prediction": {"name": "edm", "sigma_data": 1.0}, "time_input": "quarter_log_sigma"}
    )
    config.loss = ConfigDict(
        {
            "weight": {"name": "edm", "sigma_data": 1.0},
            "times": {"name": "log_normal", "p_mean": -1.0, "p_std": 1.4},
        }
    )
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 1e-3, "warmup_steps": 100, "decay_steps": 4000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "warmup", "decay": 0.998})
    config.training = ConfigDict(
        {
            "steps": 4000,
            "batch_size": 128,
            "checkpoint_every_steps": 1000,
            "keep_every_steps": 0,
            "log_every_steps": 100,
            "eval_every_steps": 1000,
            "sample_every_steps": 0,
            "best_metric": "",
            "steps_per_dispatch": 50,
        }
    )
    config.sampling = ConfigDict(
        {
            "solver": "heun",
            "grid": {"name": "power", "rho": 7.0},
            "steps": 25,
            "t_end": 0.002,
            "batch_size": 500,
        }
    )
    config.edit = ConfigDict({"task": "impute", "method": "conditional"})
    return config
