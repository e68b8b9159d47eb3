"""docs/config.md is what the sections say, and every option of everything to choose is documented."""

import importlib.util

from score_sde.experiment.fields import entries_of, summary
from score_sde.experiment.measure_sections import Likelihood, Search
from score_sde.experiment.schema import Config
from score_sde.runs.estimates import ESTIMATES
from score_sde.runs.vectors import VECTORS
from tests.conftest import ROOT


def undocumented(entries, where):
    """Paths of fields and options, and of members, that say nothing."""
    for key, entry in entries.items():
        place = f"{where}.{key}"
        if not entry.doc:
            yield place
        if entry.section is not None:
            yield from undocumented(entries_of(entry.section), place)
        for name, make in (entry.table or {}).items():
            if not summary(make):
                yield f"{place}={name}"
            yield from undocumented(entries_of(make, entry.given), f"{place}={name}")


def test_defaults_and_documentation_name_what_the_tables_have():
    for section, field, table in ((Search, "features", VECTORS), (Likelihood, "estimates", ESTIMATES)):
        entry = entries_of(section)[field]
        assert set(entry.default) <= set(table)
        assert all(f"`{name}`" in entry.doc for name in table)


def test_everything_is_documented():
    assert list(undocumented(entries_of(Config), "config")) == []


def test_the_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("fields", ROOT / "docs" / "fields.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8").endswith(module.MARKER + "\n" + module.page())
