"""Pictures that agree with what is kept of others: what ``Model.edit`` and ``--mode=edit`` stand on."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
class Measured:
    """What is kept of ``n`` pictures.

    Attributes:
      before: the pictures, uint8: of the model's shape, or small ones that are the measurement.
      given: what the operator needs, ``(n, ...)`` each.
      values: ``(n, *M)`` in the model's range.
      kept: the same as pictures: uint8 ``(n, *shape)``.
    """

    before: np.ndarray
    given: Mapping[str, np.ndarray]
    values: np.ndarray
    kept: np.ndarray


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

    @property
    def method(self) -> tuple[str, Mapping[str, object]]:
        """Name and options of the method: that of the task, or that of the config."""
        chosen = self.section.method
        return self.task.method() or (chosen.name, chosen.options)

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

    def measure(self, pictures: Sequence[np.ndarray], first: int = 0) -> Measured:
        """Measure uint8 pictures of shapes that it takes, with noise unless they are measured already.

        Args:
          first: number of the first picture, where these are a part of more.
        """
        given = self.task.given(self.shape, len(pictures), seed=self.seed, first=first)
        seen = self.task.seen(given)
        if self.shape in self.taken:
            before = np.stack([self.task.whole(one, self.shape) for one in pictures])
        else:
            before = np.stack(pictures)
        if self.section.measured:
            values = self._encoded(before) * seen
        else:
            values = measure(self.model, before, self.operator, given)
            noise = np.stack([_noise(self.seed, first + i, one.shape) for i, one in enumerate(values)])
            values = values + self.section.noise_std * noise * seen
        architecture = self.model.architecture
        low, _ = architecture.codec.range or (0.0, 0.0)
        shown = self.task.shown(values, given, self.shape, low)
        return Measured(before, given, values, architecture.decode(self.model.parts, shown))

    def answers(
        self,
        pictures: Sequence[np.ndarray],
        *,
        first: int = 0,
        conditions: Mapping[str, Value],
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Samples for uint8 pictures of shapes that it takes: uint8 ``(n, samples, *shape)``.

        An answer depends on the seed, the number of its picture and its own, not on the other pictures.

        Args:
          first: as of ``measure``.
          progress: called with the number of a step as the devices begin it.
        """
        measured, section = self.measure(pictures, first), self.section
        return self.model.posterior(
            measured.values,
            self.operator,
            given=measured.given,
            noise_std=section.noise_std,
            method=self.method[0],
            options=self.method[1],
            samples=section.samples,
            seed=self.seed,
            first=first,
            progress=progress,
            **conditions,
        )

    def _encoded(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures of any size in the model's range, float32."""
        architecture = self.model.architecture
        spec = dataclasses.replace(architecture.spec, shape=pictures.shape[1:])
        raw = from_user(pictures, spec)
        return np.asarray(architecture.codec.middle(codec_params(self.model.parts), raw), np.float32)


def _noise(seed: int, number: int, shape: Shape) -> np.ndarray:
    """Of the measurement of one picture; a third word keeps it apart from the stream of its mask."""
    stream = np.random.Generator(np.random.PCG64([seed, number, 1]))
    return stream.standard_normal(shape).astype(np.float32)


def group_size(editor: Editor, count: int) -> int:
    """Pictures of a group: their samples fill a batch, or are more if those of one picture are."""
    return min(count, max(1, editor.model.config.sampling.batch_size // editor.section.samples))


def in_groups(
    editor: Editor,
    read: Sequence[Callable[[], np.ndarray]],
    *,
    conditions: Mapping[str, Value],
    firsts: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Answers for pictures in groups: pairs of the number of the first one and ``(n, samples, *shape)``.

    The last group is filled up with its last picture, so that one size is compiled, and cut.

    Args:
      read: gives a picture, for each.
      firsts: numbers of the first pictures of the groups; None: of all.
    """
    count = len(read)
    size = group_size(editor, count)
    for first in range(0, count, size) if firsts is None else firsts:
        stop = min(first + size, count)
        group = [one() for one in read[first:stop]]
        group += [group[-1]] * (size - len(group))
        found = editor.answers(group, first=first, conditions=conditions, progress=progress)
        yield first, found[: stop - first]


def edit_pictures(
    model: "Model",
    pictures: np.ndarray | Sequence[np.ndarray],
    task: str = "inpaint",
    *,
    seed: int | None = None,
    **more: Value,
) -> np.ndarray:
    """Pictures that agree with what is kept of others: uint8 ``(N, samples, *shape)``.

    Args:
      pictures: uint8 ``(H, W, C)`` each, of the model's size, or of another that the task takes.
      task: of ``score_sde.inverse.EDITS``.
      seed: root of the noise; None: that of the config.
      more: fields of ``config.edit`` (``samples=8``, ``method="ddnm"``), options of the task
        (``mask="half"``) and conditions (``label=3``).

    Raises:
      ConfigError: names what is wrong, before anything is compiled.
    """
    names = {name for name, _ in model.sampler.conditions}
    fields = {field.name for field in dataclasses.fields(EditSection)}
    conditions = {name: value for name, value in more.items() if name in names}
    options = {
        f"edit.{name}" if name in fields else f"edit.task.{name}": value
        for name, value in more.items()
        if name not in names
    }
    section = model.workdir.changed({"edit.task": task, **options}).config.edit
    editor = Editor.of(model, section, model.config.seed if seed is None else seed)
    each = [np.asarray(one) for one in pictures]
    if not each:
        raise ConfigError("edit: no pictures are given")
    for i, one in enumerate(each):
        if one.dtype != np.uint8:
            raise ConfigError(f"edit: picture {i} is {one.dtype}: must be uint8, 0 to 255")
        editor.check(one.shape, f"edit: picture {i}")
    reads = [partial(np.asarray, one) for one in each]
    return np.concatenate([found for _, found in in_groups(editor, reads, conditions=conditions)])
