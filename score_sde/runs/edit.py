"""Pictures that agree with what is kept of others: what ``Model.edit`` and ``--mode=edit`` stand on."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from score_sde.architecture import codec_params
from score_sde.conditions import Value
from score_sde.experiment.measure_sections import EditSection
from score_sde.inverse import Edit, LinearOperator
from score_sde.names import ConfigError
from score_sde.runs.inputs import drawable, from_user
from score_sde.runs.posterior import measure
from score_sde.sampling.chunks import Progress

if TYPE_CHECKING:
    from score_sde.runs.model import Model

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Answers:
    """Of ``n`` pictures.

    Attributes:
      kept: what is kept of each, as pictures: uint8 ``(n, *shape)``.
      measured: the same as it was measured, in the model's range: ``(n, *M)``.
      samples: uint8 ``(n, samples, *shape)``.
    """

    kept: np.ndarray
    measured: np.ndarray
    samples: np.ndarray


@dataclass(frozen=True)
class Editor:
    """An edit by a model; made by ``of``, which finds what is wrong before anything is compiled.

    Attributes:
      shape: of the model's pictures.
      taken: shapes of the pictures that it can be given; the first is what others are fitted to.
      seed: root of the noise, and of masks that are drawn at random.
    """

    model: "Model"
    section: EditSection
    task: Edit
    operator: LinearOperator
    shape: Shape
    taken: tuple[Shape, ...]
    seed: int

    @classmethod
    def of(cls, model: "Model", section: EditSection, seed: int) -> "Editor":
        """Raises ConfigError: a model of no pictures, or a task that does not suit them."""
        spec, codec = model.architecture.spec, model.architecture.codec
        shape = model.architecture.state_shape
        if not drawable(spec) or codec.range is None or shape != spec.shape:
            raise ConfigError(f"edit: is for pictures; the model's examples have the shape {spec.shape}")
        task = section.task.build()
        try:
            operator = task.operator(shape)
            task.given(shape, 1, seed=seed)
        except ValueError as error:
            raise ConfigError(section.task.placed(str(error))) from error
        taken = task.taken(shape)
        if section.measured:
            small = task.measured_shape(shape)
            if small is None:
                raise ConfigError(
                    f"config.edit.measured = True: what {section.task.name!r} keeps is no picture; give the "
                    "picture itself"
                )
            taken = taken if small == shape else (small,)
        return cls(model, section, task, operator, shape, taken, seed)

    def check(self, shape: Shape, where: str, fit: str = "") -> None:
        """Refuse a picture of another shape.

        Args:
          fit: what would help, for the message.
        """
        if shape not in self.taken:
            sizes = " or ".join("x".join(map(str, one)) for one in self.taken)
            raise ConfigError(
                f"{where}: a picture of {'x'.join(map(str, shape))} (height x width x channels), and "
                f"{self.section.task.name!r} takes {sizes}{fit}"
            )

    def answers(
        self,
        pictures: Sequence[np.ndarray],
        *,
        first: int = 0,
        conditions: Mapping[str, Value],
        progress: Progress | None = None,
    ) -> Answers:
        """Samples for uint8 pictures of shapes that it takes.

        An answer depends on the seed, the number of its picture and its own, not on the other pictures.

        Args:
          first: number of the first picture, where these are a part of more.
          progress: called with the number of a step as the devices begin it.
        """
        model, section = self.model, self.section
        given = self.task.given(self.shape, len(pictures), seed=self.seed, first=first)
        measured = self._measured(pictures, given, first)
        samples = model.posterior(
            measured,
            self.operator,
            given=given,
            noise_std=section.noise_std,
            method=section.method.name,
            options=section.method.options,
            samples=section.samples,
            seed=self.seed,
            first=first,
            progress=progress,
            **conditions,
        )
        low, _ = model.architecture.codec.range or (0.0, 0.0)
        kept = model.architecture.decode(model.parts, self.task.shown(measured, given, self.shape, low))
        return Answers(kept, measured, samples)

    def _measured(
        self, pictures: Sequence[np.ndarray], given: Mapping[str, np.ndarray], first: int
    ) -> np.ndarray:
        """``(n, *M)``: of a picture with noise, and of one that is measured already as it is."""
        seen = self.task.seen(dict(given))
        if self.section.measured:
            stacked = np.stack(pictures)
            if stacked.shape[1:] != self.shape:
                return self._encoded(stacked)
            return self._encoded(np.stack([self.task.whole(one, self.shape) for one in pictures])) * seen
        whole = np.stack([self.task.whole(one, self.shape) for one in pictures])
        clean = measure(self.model, whole, self.operator, given)
        noise = np.stack(
            [_noise(self.seed, first + i).standard_normal(one.shape) for i, one in enumerate(clean)]
        )
        return clean + self.section.noise_std * noise.astype(np.float32) * seen

    def _encoded(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures of any size in the model's range, float32."""
        architecture = self.model.architecture
        spec = dataclasses.replace(architecture.spec, shape=pictures.shape[1:])
        raw = from_user(pictures, spec)
        return np.asarray(architecture.codec.middle(codec_params(self.model.parts), raw), np.float32)


def _noise(seed: int, number: int) -> np.random.Generator:
    """Of the measurement of one picture; a third word keeps it apart from the stream of its mask."""
    return np.random.Generator(np.random.PCG64([seed, number, 1]))


def edit_pictures(
    model: "Model",
    pictures: np.ndarray | Sequence[np.ndarray],
    changes: Mapping[str, object],
    *,
    seed: int,
    conditions: Mapping[str, Value],
    batch_size: int,
) -> np.ndarray:
    """See ``Model.edit``; ``changes``: to fields of the config."""
    editor = Editor.of(model, model.workdir.changed(changes).config.edit, seed)
    each = list(pictures)
    if not each:
        raise ConfigError("edit: no pictures are given")
    for i, one in enumerate(each):
        if one.dtype != np.uint8:
            raise ConfigError(f"edit: picture {i} is {one.dtype}: must be uint8, 0 to 255")
        editor.check(one.shape, f"edit: picture {i}")
    parts = in_groups(editor, len(each), batch_size, lambda i: each[i], conditions=conditions)
    return np.concatenate([answers.samples for _, answers in parts])


def in_groups(
    editor: Editor,
    count: int,
    batch_size: int,
    picture: Callable[[int], np.ndarray],
    *,
    conditions: Mapping[str, Value],
    firsts: Sequence[int] | None = None,
    progress: Progress | None = None,
):
    """Pictures ``0 .. count - 1`` in groups whose samples fill a batch: numbers of the first, and answers.

    The last group is filled with its last picture, so that one size is compiled, and cut.

    Args:
      firsts: of the groups; None: all.
    """
    size = group_size(editor, count, batch_size)
    for first in range(0, count, size) if firsts is None else firsts:
        stop = min(first + size, count)
        numbers = [*range(first, stop), *[stop - 1] * (first + size - stop)]
        found = editor.answers(
            [picture(i) for i in numbers], first=first, conditions=conditions, progress=progress
        )
        real = stop - first
        yield first, Answers(found.kept[:real], found.measured[:real], found.samples[:real])


def group_size(editor: Editor, count: int, batch_size: int) -> int:
    """Pictures of a group: their samples fill a batch, or are more if those of one picture are."""
    return min(count, max(1, batch_size // editor.section.samples))
