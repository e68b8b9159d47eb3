"""The benchmarks that need no clock: they count."""

import importlib.util
from pathlib import Path

import pytest

from score_sde.nets import parameter_count

FOLDER = Path(__file__).parents[1] / "experiments" / "benchmarks"


@pytest.fixture(scope="module")
def capacity():
    spec = importlib.util.spec_from_file_location("capacity", FOLDER / "capacity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_full_rematerialisation_keeps_less_and_repeats_at_most_the_forward_pass(capacity):
    plain, again = (capacity.build("configs/vp_digits.py", "bfloat16", remat) for remat in ("none", "full"))
    # Each weight of a convolution multiplies once for every position forwards and twice backwards.
    assert 1.05 < capacity.operations(again, 2) / capacity.operations(plain, 2) < 4 / 3
    assert capacity.kept_bytes(again, 2) < 0.5 * capacity.kept_bytes(plain, 2)


def test_kept_arrays_are_the_parameters_and_a_share_of_each_image(capacity):
    recipe = capacity.build("configs/vp_digits.py", "bfloat16", "none")
    one, two, three = (capacity.kept_bytes(recipe, n) for n in (1, 2, 3))
    assert two - one == pytest.approx(three - two, rel=1e-3)
    count = parameter_count(recipe.params)
    assert one - (two - one) == pytest.approx(2 * count, rel=0.1)
