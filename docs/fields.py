"""Write the tables of ``config.md`` from the sections of the config, so that none is missing or stale.

    python docs/fields.py            rewrite the part of config.md below the marker
    python docs/fields.py --check    say whether it is up to date

The package must be installed.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from score_sde.experiment.fields import Entry, entries_of, summary
from score_sde.experiment.schema import Config

PAGE = Path(__file__).parent / "config.md"
MARKER = "<!-- below: written by docs/fields.py -->\n"


def shown(entry: Entry) -> str:
    """A default as the config file would have it."""
    if entry.required:
        return "needed"
    return "none" if entry.default is None else f"`{entry.default!r}`"


def table(entries: Mapping[str, Entry]) -> str:
    """The fields of a section that are no sections themselves."""
    rows = [
        f"| `{key}` | {shown(entry)} | {entry.doc.replace('|', chr(92) + '|')} |"
        for key, entry in entries.items()
        if entry.section is None
    ]
    return "\n".join(["| field | default | meaning |", "|---|---|---|", *rows])


def members(where: str, entry: Entry) -> Iterator[str]:
    """The members of a choice, and all their options; those that are alike once."""
    assert entry.table is not None
    names = [f"| `{name}` | {summary(make)} |" for name, make in entry.table.items()]
    yield f"### {where}\n\n{entry.doc[:1].upper() + entry.doc[1:]}.\n\n" + "\n".join(
        ["| name | |", "|---|---|", *names]
    )
    rows: dict[tuple[str, str, str], list[str]] = {}
    optioned = [name for name, make in entry.table.items() if entries_of(make, entry.given)]
    for name in optioned:
        for key, inner in entries_of(entry.table[name], entry.given).items():
            rows.setdefault((key, shown(inner), inner.doc), []).append(f"`{name}`")
    if rows:
        lines = ["| option | of | default | meaning |", "|---|---|---|---|"]
        for (key, default, doc), having in sorted(rows.items(), key=lambda row: row[0][0]):
            of = "all" if 1 < len(having) == len(entry.table) else ", ".join(having)
            lines.append(f"| `{key}` | {of} | {default} | {doc} |")
        yield "\n".join(lines)


def section(where: str, entries: Mapping[str, Entry], seen: set[int]) -> Iterator[str]:
    """The part of the page about a section and all that lies in it."""
    yield f"## {where}\n\n{table(entries)}"
    for key, entry in entries.items():
        place = f"{where}.{key}"
        if entry.section is not None:
            yield from section(place, entries_of(entry.section), seen)
        elif entry.several:
            for name, make in (entry.table or {}).items():
                if entries_of(make):
                    yield f"### {where}.{name}\n\n{summary(make)}\n\n{table(entries_of(make))}"
        elif entry.table is not None and id(entry.table) not in seen:
            seen.add(id(entry.table))
            yield from members(place, entry)


def page() -> str:
    """The generated part of the page."""
    parts: list[str] = []
    seen: set[int] = set()
    for name, entry in entries_of(Config).items():
        if entry.section is not None:
            parts += section(name, entries_of(entry.section), seen)
        elif entry.table is not None:
            parts += [part.replace("### ", "## ", 1) for part in members(name, entry)]
    return "\n\n".join(parts).replace("``", "`") + "\n"


def main() -> None:
    """Rewrite the page, or check it."""
    head, marker, old = PAGE.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise SystemExit(f"{PAGE}: the line {MARKER.strip()} is missing")
    new = "\n" + page()
    if sys.argv[1:] == ["--check"]:
        if old != new:
            raise SystemExit("docs/config.md is out of date: run python docs/fields.py")
        return
    PAGE.write_text(head + marker + new, encoding="utf-8")


if __name__ == "__main__":
    main()
