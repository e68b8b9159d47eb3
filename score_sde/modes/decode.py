"""``--mode=decode``."""

from pathlib import Path

import numpy as np

from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.inversion.latents import temper
from score_sde.modes.coder import Coder
from score_sde.modes.examples import array_names
from score_sde.modes.workdir import is_chief, outside, pictures_path, say
from score_sde.names import ConfigError


class Codes:
    """Codes as examples.

    Attributes:
      x, label: ``(N, *D)`` float32 and ``(N,)``.
    """

    def __init__(self, x: np.ndarray, label: np.ndarray):
        self.x, self.label = x.astype(np.float32), label.astype(np.int32)

    def __len__(self) -> int:
        return len(self.x)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``{"x": (n, *D), "label": (n,)}``."""
        return {"x": self.x[indices], "label": self.label[indices]}


def decode(options: Options) -> int:
    """Examples of the codes in ``--samples``: a row of the grid each, a column for each temperature."""
    if options.samples is None:
        raise ConfigError("--mode=decode: name codes: --samples=FILE, the .npz of --mode=encode or a .npy")
    coder = Coder(options)
    experiment = coder.experiment
    codes = read_codes(Path(options.samples).expanduser(), experiment.spec.shape)
    temperatures = np.asarray(experiment.config.inversion.temperature, np.float32)
    output = pictures_path(options, experiment.spec, "decoded")
    if options.label is not None:
        codes.label[:] = options.label
    factors = np.tile(temperatures, len(codes))
    several = Codes(
        np.asarray(temper(codes.x.repeat(len(temperatures), axis=0), factors)),  # type: ignore[arg-type]
        codes.label.repeat(len(temperatures)),
    )
    x = outside(experiment, coder.run(coder.decode, several, "decode")["x"])
    if is_chief():
        if output.suffix == ".png" and len(temperatures) > 1:
            pictures.grid(x, columns=len(temperatures)).save(output)
        elif output.suffix == ".npz":
            np.savez(output, samples=x, temperature=factors)
        else:
            pictures.write(output, x, seed=0)
    said = ", ".join(f"{t:g}" for t in temperatures)
    say(f"{len(codes)} codes decoded at temperature {said} in {output}")
    return 0


def read_codes(path: Path, shape: tuple[int, ...]) -> Codes:
    """Codes and labels of a file of ``--mode=encode``, or codes of a .npy, which have no labels.

    Raises:
      ConfigError: not such a file; names it.
    """
    where = f"--samples={path}"
    if not path.is_file():
        raise ConfigError(f"{where}: no such file; codes are the .npz of --mode=encode, or a .npy")
    label = None
    try:
        if path.suffix == ".npz":
            names = array_names(path)
            with np.load(path, allow_pickle=False) as file:
                if "code" not in names:
                    raise ValueError(f"holds no array 'code', only {', '.join(names)}")
                code, label = file["code"], file["label"] if "label" in names else None
        else:
            code = np.load(path, allow_pickle=False)
    except Exception as error:  # zip, pickle and header errors all mean the same here
        raise ConfigError(f"{where}: not codes of --mode=encode: {error}") from error
    if code.shape[1:] != shape or not len(code) or not np.issubdtype(code.dtype, np.floating):
        raise ConfigError(
            f"{where}: holds {code.dtype} of shape {code.shape}; codes of this model are floats (N, "
            f"{', '.join(map(str, shape))})"
        )
    if not np.isfinite(code).all():
        raise ConfigError(f"{where}: holds codes that are not finite")
    return Codes(code, np.full(len(code), -1) if label is None else label)
