"""Tables: columns and their kinds, holes, splits, and what is refused."""

import numpy as np
import pytest

from score_sde.data import Spec, Table
from score_sde.data.columns import Column, check_same
from score_sde.data.csv_file import Cells, read_cells, write_cells

HEADER = "size,colour,grade"


def table_of(tmp_path, rows, header=HEADER, split="train", **options):
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return Table(split, path, **options)


def some(count=20):
    return [f"{0.5 * i},{('red', 'blue')[i % 2]},{i % 3}" for i in range(count)]


def test_numbers_and_categories_are_told_apart(tmp_path):
    table = table_of(tmp_path, some(), held_out=0.0)
    size, colour, grade = table.spec.columns
    assert (size.name, colour.name, grade.name) == ("size", "colour", "grade")
    assert (size.categories, colour.categories, grade.categories) == ((), ("blue", "red"), ())
    assert size.mean == pytest.approx(np.mean(0.5 * np.arange(20)))
    assert size.std == pytest.approx(np.std(0.5 * np.arange(20)))
    assert table.spec.shape == (3,) and table.spec.grey_levels is None and len(table) == 20
    np.testing.assert_array_equal(table.read(np.array([3, 0]))["x"], [[1.5, 0, 0], [0, 1, 0]])
    stated = table_of(tmp_path, some(), held_out=0.0, categories=("grade",), columns=("grade", "size"))
    assert [c.categories for c in stated.spec.columns] == [("0", "1", "2"), ()]
    np.testing.assert_array_equal(stated.read(np.array([2]))["x"], [[2, 1.0]])


def test_categories_that_are_numbers_come_in_their_order(tmp_path):
    table = table_of(tmp_path, [f"{i % 11}" for i in range(40)], "n", categories=("n",), held_out=0.0)
    assert table.spec.columns[0].categories == tuple(map(str, range(11)))


def test_moments_are_those_of_the_training_rows_and_the_splits_share_none(tmp_path):
    train, test = (table_of(tmp_path, some(), split=split, held_out=0.25) for split in ("train", "test"))
    inside, outside = (t.read(np.arange(len(t)))["x"][:, 0] for t in (train, test))
    assert (len(train), len(test)) == (15, 5)
    assert sorted([*inside, *outside]) == [0.5 * i for i in range(20)]
    for split in (train, test):
        assert split.spec.columns[0].mean == pytest.approx(inside.mean(), rel=1e-6)
        assert split.spec.columns[0].std == pytest.approx(inside.std(), rel=1e-6)
    assert abs(inside.mean() - outside.mean()) > 1e-3


def test_rows_with_holes_are_refused_or_dropped_with_their_number(tmp_path):
    rows = some()
    rows[4], rows[7] = "2.0,,1", ",red,1"
    with pytest.raises(ValueError, match=r"2 of 20 rows have missing cells, the first is row 5 .*'drop'"):
        table_of(tmp_path, rows)
    with pytest.warns(UserWarning, match="2 of 20 rows have missing cells and are left out"):
        table = table_of(tmp_path, rows, holes="drop", held_out=0.0)
    np.testing.assert_array_equal(
        table.read(np.arange(18))["x"][:, 0], [0.5 * i for i in range(20) if i not in (4, 7)]
    )
    with pytest.raises(ValueError, match="holes = 'fill': must be"):
        table_of(tmp_path, rows, holes="fill")
    with pytest.raises(ValueError, match="each of the 2 rows has a missing cell"):
        table_of(tmp_path, ["1,", ",2"], "a,b", holes="drop")


def test_held_out_rows_of_an_unknown_category_are_left_out(tmp_path):
    for i in range(20):  # some row that is held out
        rows = some()
        rows[i] = f"{0.5 * i},green,0"
        if "green" not in table_of(tmp_path, rows, held_out=0.25).spec.columns[1].categories:
            break
    with pytest.warns(UserWarning, match="1 of 5 held-out rows are left out: .* 'green' in column 'colour'"):
        table = table_of(tmp_path, rows, held_out=0.25, split="test")
    assert len(table) == 4 and 0.5 * i not in table.read(np.arange(4))["x"][:, 0]


@pytest.mark.parametrize(
    ("header", "rows", "options", "said"),
    [
        ("1.5,2", ["1,2"], {}, "first row must be a header .*'1.5' there is a number"),
        ("a,", ["1,2"], {}, "a name there is empty"),
        ("a,b,a", ["1,2,3"], {}, "has 'a' more than once"),
        ("a,b", ["1,2", "3"], {}, "row 2 after the header has 1 cells, not 2"),
        ("a,b", ["1,2", "3,4,5"], {}, "row 2 after the header has 3 cells, not 2"),
        ("a,b", [], {}, "no row after the header"),
        ("a,b", ["1,2", "3,2"], {}, "every value of column 'b' in the training split is 2"),
        ("a,b", ["1,x", "3,x"], {}, "every cell of column 'b' in the training split is 'x'"),
        ("a,b", ["1,", "3,"], {}, "every cell of column 'b' is empty"),
        ("a,b", ["1,1", "3,2", "n/a,3"], {}, "column 'a' holds numbers, and 'n/a' in row 3"),
        ("a,b", ["1,1", "3,inf", "5,3"], {}, "column 'b' holds numbers, and 'inf' in row 2"),
        ("a,b", ["1,1", "3,nan", "5,3"], {}, "column 'b' holds numbers, and 'nan' in row 2"),
        ("a,b", ["1,1", "2,2"], {"columns": ("c",)}, "columns = .*has no column 'c' among a, b"),
        ("a,b", ["1,1", "2,2"], {"categories": ("c",)}, "categories = .*has no column 'c'"),
        ("a", [f"name {i}" for i in range(50)], {}, "50 different texts in 50 rows, which are no categories"),
        ("a,b", ["1,1", "2,2"], {"held_out": 0.0, "split": "test"}, "leaves none of the 2 rows"),
        ("a,b", ["1,1", "2,2"], {"held_out": 1.0}, "held_out = 1.0"),
    ],
)
def test_mistakes_are_named(tmp_path, header, rows, options, said):
    options = {"held_out": 0.0, **options}
    with pytest.raises(ValueError, match=said):
        table_of(tmp_path, rows, header, **options)


def test_files_that_are_no_table(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        Table("train", tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="the file is empty"):
        Table("train", tmp_path / "empty.csv")
    (tmp_path / "latin.csv").write_bytes(b"a\n\xe9\n")
    with pytest.raises(ValueError, match="cannot be read as comma-separated UTF-8"):
        Table("train", tmp_path / "latin.csv")
    with pytest.raises(ValueError, match="ships no such table; there are sklearn:breast_cancer"):
        Table("train", "sklearn:titanic")


def test_sets_that_scikit_learn_ships():
    from sklearn.datasets import load_diabetes, load_wine

    wine, (x, y) = Table("train", "sklearn:wine", held_out=0.0), load_wine(return_X_y=True)
    read = wine.read(np.arange(len(wine)))["x"]
    assert wine.spec.columns[-1] == Column("class", categories=("class_0", "class_1", "class_2"))
    np.testing.assert_allclose(read, np.column_stack([x, y]), rtol=1e-6)
    diabetes = Table("train", "sklearn:diabetes", held_out=0.0)
    x, y = load_diabetes(return_X_y=True, scaled=False)
    assert diabetes.spec.columns[-1].name == "target"
    np.testing.assert_allclose(diabetes.read(np.arange(len(y)))["x"], np.column_stack([x, y]), rtol=1e-6)
    assert Table("train", "sklearn:linnerud").spec.shape == (6,)


def test_a_spec_survives_its_file(tmp_path):
    spec = table_of(tmp_path, some()).spec
    assert Spec.from_json(spec.to_json()) == spec
    old = spec.to_json()
    del old["columns"]
    assert Spec.from_json(old).columns == ()


def test_columns_that_have_changed_are_refused():
    a, b = Column("a", 1.0, 2.0), Column("b", categories=("x", "y"))
    check_same((a, b), (Column("a", 5.0, 6.0), b), "here")  # moments may move
    with pytest.raises(ValueError, match="here: .*columns b, a here, and a, b then"):
        check_same((a, b), (b, a), "here")
    with pytest.raises(ValueError, match="column 'b' has 'x', 'z' here, and 'x', 'y' then"):
        check_same((a, b), (a, Column("b", categories=("x", "z"))), "here")
    with pytest.raises(ValueError, match="column 'b' has numbers here"):
        check_same((a, b), (a, Column("b")), "here")


def test_a_category_that_was_not_in_the_training_is_named():
    column = Column("colour", categories=("blue", "red"))
    assert (column.code("red"), column.text(1.0), column.width) == (1.0, "red", 2)
    with pytest.raises(ValueError, match="column 'colour': 'green' is not one of the 2 .*'blue', 'red'"):
        column.code("green")
    with pytest.raises(ValueError, match="column 'size': 'big' is not a finite number"):
        Column("size").code("big")
    assert Column("size").text(0.1 + 0.2) == "0.3" and Column("size").width == 1


def test_cells_survive_a_file(tmp_path):
    cells = Cells(["a", "b,c"], [["1.50", 'say "x"'], ["", "y"]])
    write_cells(tmp_path / "t.csv", cells)
    assert read_cells(tmp_path / "t.csv", "here") == cells
