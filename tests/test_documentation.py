"""Every command and every block of Python of README and docs runs; links have a target."""

import re
import shutil

import pytest

from tests.conftest import ROOT
from tests.documentation import PAGES, SKIPPED, Reader, blocks, make_clone, read, skipped

# Training is not measured on this page, which would take most of the time.
UNMEASURED = ("docs/extending.md",)
RUN = [page for page in PAGES if any(block.language != "text" for block in read(page))]
COMMANDS = [(block, words) for page in PAGES for block in read(page) for words in block.commands()]


# --- the pages run ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The workdir of the first training command of README: other pages begin with it."""
    reader = Reader(make_clone(tmp_path_factory.mktemp("first")))
    _, first = next((b, words) for b, words in COMMANDS if b.page == "README.md" and "--mode=train" in words)
    assert "--workdir=runs/digits" in first
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(reader.folder)
        reader.type(first)
    return reader.folder / "runs" / "digits"


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_what_a_page_says_runs(page, digits, tmp_path):
    reader = Reader(make_clone(tmp_path, measured=page not in UNMEASURED))
    shutil.copytree(digits, tmp_path / "runs" / "digits")
    reader.follow(page)
    if reader.failures:
        pytest.fail("\n----\n".join([f"{len(reader.failures)} failed", *reader.failures]), pytrace=False)


# --- nothing is left out in silence ----------------------------------------------------------------


def test_every_block_has_a_language_that_is_known():
    for page in PAGES:
        for block in read(page):
            assert block.language in ("bash", "python", "options", "text"), block.where
            if block.language == "text":
                assert not re.search(r"\bpython3? |run\.py|--config\b|^import |^from ", block.text), (
                    block.where
                )


def test_every_command_is_run_or_left_out_for_a_reason():
    known = re.compile(r"(\w+=\S+ )*(\.venv/bin/)?python \S+\.py\b")
    for block, words in COMMANDS:
        assert skipped(words) or known.match(" ".join(words)), f"{block.where}: {' '.join(words)}"


@pytest.mark.parametrize("pattern", SKIPPED)
def test_every_reason_is_needed(pattern):
    assert any(pattern in skipped(words) for _, words in COMMANDS)


# --- links -----------------------------------------------------------------------------------------


def anchors(text):
    """The anchors of a page's headings, as GitHub and mkdocs name them."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)", outside, re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def broken(page, text):
    """The links of a page that lead to no file or no heading of the repository."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", outside)):
        name, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        file = (ROOT / page).parent / name
        there = text if not name else file.read_text(encoding="utf-8") if anchor and file.exists() else ""
        if not file.exists() or (anchor and anchor not in anchors(there)):
            wrong.append(link)
    return wrong


LINKED = sorted(
    {*PAGES, "CONTRIBUTING.md", *(f"docs/decisions/{p.name}" for p in ROOT.glob("docs/decisions/*.md"))}
)


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    assert broken(page, (ROOT / page).read_text(encoding="utf-8")) == []


def test_every_page_is_in_the_menu():
    menu = set(re.findall(r": (\S+\.md)", (ROOT / "mkdocs.yml").read_text()))
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert menu == pages


# --- each check can fail ---------------------------------------------------------------------------

PAGE = """# A page

- a list

      that goes on

Text.

    python run.py --mode=sample \\
        --num_samples=3    # a remark
    A=1 python x.py && pip install y

    python run.py

Text.

    --config.a=1

```python
x = 1

```

    a = b + c
"""


def test_blocks_and_commands_are_found():
    found = list(blocks("docs/data.md", PAGE))
    assert [(b.line, b.language) for b in found] == [
        (9, "bash"),
        (17, "options"),
        (20, "python"),
        (24, "text"),
    ]
    assert found[0].commands() == [
        ["python", "run.py", "--mode=sample", "--num_samples=3"],
        ["A=1", "python", "x.py"],
        ["pip", "install", "y"],
        ["python", "run.py"],
    ]
    assert found[1].commands()[0][-1] == "--config.a=1"


def test_what_fails_is_reported_and_the_rest_runs(tmp_path, monkeypatch):
    text = "```python\nx = 1\n```\n\n```python\n1 / 0\n```\n\n```python\nassert x == 1\n```\n"
    text += "\n```bash\npython run.py --mode=sample --workdir=nowhere\n```\n"
    monkeypatch.setattr("tests.documentation.read", lambda page: list(blocks(page, text)))
    reader = Reader(tmp_path)
    reader.follow("docs/index.md")
    assert [failure.split("\n")[0] for failure in reader.failures] == ["docs/index.md:6", "docs/index.md:14"]
    assert "ZeroDivisionError" in reader.failures[0]
    assert "nowhere" in reader.failures[1]


def test_a_link_that_leads_nowhere_is_found():
    text = "# A (b)\n[x](#a-b) [x](#c) [x](https://a.b/c) [x](data.md) [x](date.md)\n"
    text += "[x](data.md#order) [x](data.md#odr) `[x](no)`\n```\n# C\n[x](no)\n```\n"
    assert broken("docs/x.md", text) == ["#c", "date.md", "data.md#odr"]
