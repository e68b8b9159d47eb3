"""``--mode=decode``."""

from pathlib import Path

import numpy as np

from score_sde.conditions import Conditions, Given
from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.inversion.latents import temper
from score_sde.modes.chosen import fixed_conditions
from score_sde.modes.coder import Coder
from score_sde.modes.examples import array_names
from score_sde.modes.workdir import is_chief, outside, pictures_path, say
from score_sde.names import ConfigError


class Codes:
    """Codes as examples.

    Attributes:
      x: ``(N, *D)`` float32.
      cond: their conditions, ``(N, *shape)`` each.
    """

    def __init__(self, x: np.ndarray, cond: Given):
        self.x, self.cond = x.astype(np.float32), dict(cond)

    def __len__(self) -> int:
        return len(self.x)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``x``, ``(n, *D)``, and the conditions of each."""
        return {"x": self.x[indices], **{name: values[indices] for name, values in self.cond.items()}}


def decode(options: Options) -> int:
    """Examples of the codes in ``--samples``: a row of the grid each, a column for each temperature."""
    if options.samples is None:
        raise ConfigError("--mode=decode: name codes: --samples=FILE, the .npz of --mode=encode or a .npy")
    coder = Coder(options)
    experiment = coder.experiment
    codes = read_codes(Path(options.samples).expanduser(), experiment.state_shape, experiment.conditions)
    temperatures = temperatures_of(experiment.config.codes.temperature)
    output = pictures_path(options, experiment.spec, "decoded")
    for name, value in fixed_conditions(options, experiment).items():
        codes.cond[name][:] = value
    factors = np.tile(temperatures, len(codes))
    several = Codes(
        np.asarray(temper(codes.x.repeat(len(temperatures), axis=0), factors)),  # type: ignore[arg-type]
        {name: values.repeat(len(temperatures), axis=0) for name, values in codes.cond.items()},
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


def temperatures_of(value: float | tuple[float, ...]) -> np.ndarray:
    """``(T,)`` float32 of ``config.codes.temperature``.

    Raises:
      ConfigError: none, or one that is negative or not finite.
    """
    result = np.atleast_1d(np.asarray(value, np.float32))
    if not len(result) or not np.all(np.isfinite(result) & (result >= 0)):
        raise ConfigError(f"config.codes.temperature = {value}: must be one or more numbers, 0 or more")
    return result


def read_codes(path: Path, shape: tuple[int, ...], conditions: Conditions) -> Codes:
    """Codes and conditions of a file of ``--mode=encode``, or codes of a .npy, which have no conditions.

    Raises:
      ConfigError: not such a file; names it.
    """
    where = f"--samples={path}"
    if not path.is_file():
        raise ConfigError(f"{where}: no such file; codes are the .npz of --mode=encode, or a .npy")
    cond: dict[str, np.ndarray] = {}
    try:
        if path.suffix == ".npz":
            names = array_names(path)
            with np.load(path, allow_pickle=False) as file:
                if "code" not in names:
                    raise ValueError(f"holds no array 'code', only {', '.join(names)}")
                code = file["code"]
                cond = {name: one.check(name, file[name]) for name, one in conditions if name in names}
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
    return Codes(code, {name: cond.get(name, one.nulls(len(code))) for name, one in conditions})
