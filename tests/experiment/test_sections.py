"""The engine of the config, on a toy section."""

from dataclasses import dataclass

import numpy as np
import pytest

from score_sde.experiment import sections, values
from score_sde.experiment.fields import (
    Choice,
    Choices,
    checked,
    choice,
    entries_of,
    finite,
    natural,
    one_of,
    positive,
    section,
    several,
    share,
    value,
)
from score_sde.names import ConfigError


@dataclass(frozen=True)
class Round:
    """A shape.

    Attributes:
      radius: in metres.
      sides: given by the program.
    """

    radius: float = 1.0
    sides: int = 0

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise ValueError(f"radius = {self.radius}: must not be negative")


def square(*, side: float = 2.0, corners: tuple[int, ...] = ()) -> tuple:
    """Another.

    Args:
      side: in metres.
      corners: which are round.
    """
    return ("square", side, corners)


def framed(*, shape: Choice = choice({"round": Round, "square": square}, "round", "inside")) -> object:
    """A shape in a frame."""
    return shape.build()


SHAPES = {"round": Round, "square": square, "point": lambda: "point", "framed": framed}

SCORES = {name: SHAPES[name] for name in ("round", "square", "point")}


@dataclass(frozen=True)
class Loop:
    """A nested section."""

    steps: int = positive(10, "updates")
    every: int | None = natural(None, "report at multiples of this; none: never")
    extra: float = value(0.5, "for rounds", when=("kinds", ("round",)))
    kinds: tuple[str, ...] = one_of(("square",), ("round", "square"), "what is measured")


@dataclass(frozen=True)
class Toy:
    """The whole."""

    seed: int = checked(0, "even", lambda x: x % 2 == 0, "the root")
    shape: Choice = choice(SHAPES, "round", "what is drawn", given=("sides",))
    scores: Choices = several(SCORES, ("square",), "of it")
    loop: Loop = section(Loop)

    def __post_init__(self) -> None:
        if self.seed == 8:
            raise ValueError("seed = 8: is taken")


def of(tree, words=None):
    """The typed section of a tree after words of the command line."""
    return sections.typed(Toy, sections.change(Toy, sections.fill(Toy, tree), words or {}, words=True))


def refused(tree, words=None):
    with pytest.raises(ConfigError) as error:
        of(tree, words)
    return str(error.value)


def test_defaults_types_and_options_are_filled_in():
    made = of({})
    assert (made.seed, made.loop.steps, made.loop.every) == (0, 10, None)
    assert (made.shape.name, made.shape.options) == ("round", {"radius": 1.0})
    assert made.shape.build(sides=4) == Round(1.0, 4)
    assert [choice.build() for choice in made.scores.chosen] == [("square", 2.0, ())]
    assert type(of({"shape": {"radius": 3}}).shape.options["radius"]) is float


def test_a_field_is_one_line_and_an_option_none():
    assert entries_of(Loop)["steps"].doc == "updates"
    assert entries_of(Round)["radius"].doc == "in metres."
    assert entries_of(square)["corners"].kind == tuple[int, ...]
    assert "sides" not in entries_of(Round, ("sides",))


def test_a_name_alone_chooses_and_resets_the_options():
    start = {"shape": {"name": "round", "radius": 3.0}}
    assert of(start, {"shape": "square"}).shape.options == {"side": 2.0, "corners": ()}
    assert of(start, {"shape.name": "round"}).shape.options == {"radius": 1.0}
    assert of(start, {"shape.radius": "4"}).shape.options == {"radius": 4.0}
    assert of(start, {"shape.side": "4", "shape": "square"}).shape.build()[1] == 4.0  # in any order
    assert of({"shape": "square"}).shape.name == "square"


def test_a_choice_may_lie_in_a_choice():
    words = {"shape": "framed", "shape.shape.side": "5", "shape.shape": "square"}
    assert of({}, words).shape.build() == ("square", 5.0, ())
    assert refused({}, {"shape": "framed", "shape.shape.side": "5"}) == (
        "config.shape.shape.side: 'round' has no option 'side'; 'square' has"
    )


def test_a_tree_comes_back_from_what_it_became():
    tree = sections.fill(Toy, {"shape": {"name": "framed", "shape": "square"}, "scores": ("round", "point")})
    assert sections.as_tree(sections.typed(Toy, tree)) == tree
    assert tree["round"] == {"radius": 1.0, "sides": 0}  # the options of a score lie beside the names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"seed": "3"}, "config.seed = 3: must be even"),
        ({"seed": "8"}, "config.seed = 8: is taken"),
        ({"seed": "x"}, "config.seed = x: must be a whole number"),
        ({"sed": "3"}, "config has no field 'sed'; did you mean 'seed'?"),
        ({"every": "3"}, "did you mean config.loop.every?"),
        ({"loop": "3"}, "is a section; set one of its fields: steps, every, extra, kinds"),
        ({"seed.x": "3"}, "config.seed is a value, it has no fields"),
        ({"loop.every": "-1"}, "config.loop.every = -1: must be 0 or more"),
        ({"loop.every": "1.5"}, "config.loop.every = 1.5: must be a whole number or none"),
        ({"loop.kinds": "rund"}, "must be one of: round, square; did you mean 'round'?"),
        ({"shape": "squar"}, "is not one of: round, square, point, framed; did you mean 'square'?"),
        ({"shape.side": "1"}, "config.shape.side: 'round' has no option 'side'; 'square' has"),
        ({"shape.radios": "1"}, "'round' has no option 'radios'; did you mean 'radius'? (options: radius)"),
        ({"shape": "square", "shape.corners": "a"}, "shape.corners = a: must be whole numbers with commas"),
        ({"shape": "square", "shape.corners": "1;2"}, "shape.corners = 1;2: must be whole numbers with"),
        ({"shape": "square", "shape.corners": "1.5,2"}, "shape.corners = 1.5,2: must be whole numbers with"),
        ({"scores": "sqare"}, "config.scores = 'sqare' is not one of: round, square, point"),
        ({"round.side": "1"}, "config.round has no field 'side'"),
    ],
)
def test_mistakes_are_one_line(words, said):
    text = refused({}, words)
    assert said in text
    assert "\n" not in text


def test_values_of_files_are_checked_like_words():
    assert refused({"shape": {"name": "square", "corners": [1, "a"]}}) == (
        "config.shape.corners = [1, 'a']: must be whole numbers with commas between"
    )
    assert refused({"loop": {"steps": True}}) == "config.loop.steps = True: must be a whole number"
    assert of({"shape": {"name": "square", "corners": [1, 2]}}).shape.options["corners"] == (1, 2)


def test_an_option_without_a_default_has_to_be_set_but_what_the_program_gives_may_be_none():
    def file(path: str, levels: int | None) -> tuple:
        return path, levels

    unset = Choice("shape", "file", {"path": None}, file)
    with pytest.raises(ConfigError, match=r"config.shape.path is not set, and shape = 'file' needs it"):
        unset.build(levels=None)
    assert unset.but(path="x").build(levels=None) == ("x", None)


def test_what_a_member_refuses_names_its_field():
    with pytest.raises(ConfigError, match=r"^config.shape.radius = -1.0: must not be negative$"):
        of({}, {"shape.radius": "-1"}).shape.build()


@pytest.mark.parametrize(
    ("path", "names", "reader"),
    [("loop.extra", {"loop.kinds": "square"}, "'round'"), ("round.radius", {"scores": "square"}, "'round'")],
)
def test_what_nothing_reads_is_refused(path, names, reader):
    def check(words):
        sections.check_read(Toy, sections.change(Toy, sections.fill(Toy, {}), words, words=True), list(words))

    with pytest.raises(ConfigError, match=f"config.{path} is set, and nothing reads it: it is for {reader}"):
        check({path: "2", **names})
    check({path: "2", **{field: "square,round" for field in names}})


def test_a_field_that_nothing_reads_may_state_its_default():
    words = {"loop.kinds": "square", "loop.extra": "0.5"}
    tree = sections.change(Toy, sections.fill(Toy, {}), words, words=True)
    sections.check_read(Toy, tree, words)


def test_leaves_are_the_values_of_a_tree():
    assert list(sections.leaves({"a": 1, "b": {"c": (2,), "d": {}, "e": {"f": None}}})) == [
        "a",
        "b.c",
        "b.e.f",
    ]


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("1,2", tuple[int, ...], (1, 2)),
        ("(1, 2,)", tuple[int, ...], (1, 2)),
        ("()", tuple[int, ...], ()),
        ("('a','b')", tuple[str, ...], ("a", "b")),
        ("3", int | tuple[int, int] | None, 3),
        ("3,4", int | tuple[int, int] | None, (3, 4)),
        ("none", float | None, None),
        ("none", str, "none"),
        ("false", bool, False),
        ("1e-3", float, 1e-3),
    ],
)
def test_words_are_read_by_their_type(text, kind, found):
    got = values.read(text, kind)
    assert got == found and type(got) is type(found)


@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        (np.int64(3), int, 3),
        ((np.int32(1), np.int64(2)), tuple[int, ...], (1, 2)),
        (np.float32(0.5), float, 0.5),
        (np.bool_(True), bool, True),
    ],
)
def test_numbers_of_numpy_are_numbers(value, kind, found):
    got = values.cast(value, kind)
    assert got == found and type(got) is type(found)


@pytest.mark.parametrize(("text", "kind"), [("1e3", int), ("yes", bool), ("1,2,3", tuple[int, int])])
def test_words_of_another_type_are_refused(text, kind):
    with pytest.raises(ValueError, match=r"^must be "):
        values.read(text, kind)


@pytest.mark.parametrize(
    ("make", "allowed", "refused"),
    [
        (positive, (1e-30, 1), (0, -1, float("inf"), float("nan"))),
        (natural, (0, 1), (-1e-30, float("inf"), float("nan"))),
        (finite, (-1, 0), (float("inf"), float("nan"))),
        (share, (0, 0.5, 1), (-1e-9, 1 + 1e-9, float("nan"))),
    ],
)
def test_checks_of_numbers_end_where_they_say(make, allowed, refused):
    @dataclass(frozen=True)
    class Section:
        """One number."""

        x: float = make(1.0, "a number")

    passes = entries_of(Section)["x"].check.passes
    assert all(map(passes, allowed))
    assert not any(map(passes, refused))
