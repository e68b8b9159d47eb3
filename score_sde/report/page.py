"""A page that holds everything it shows: text, tables, inline SVG, pictures as data."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

_STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 74em; margin: 1.5em auto; padding: 0 1em; color: #222; }
h1, h2 { font-weight: 600; } h1 { font-size: 150%; } h2 { margin-top: 1.5em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; } td, th { padding: .2em .8em; border: 1px solid #ddd; text-align: left; }
figure { display: inline-block; vertical-align: top; width: min-content; max-width: 100%; overflow-x: auto; }
figure { margin: .5em 1em .5em 0; } figcaption { color: #666; font-size: 13px; min-width: 22em; }
img { image-rendering: pixelated; display: block; }
pre { background: #f6f6f6; padding: 1em; overflow: auto; }
svg { width: 530px; height: auto; }
.answer { border-left: .5em solid #999; background: #f6f6f6; padding: .6em 1em; margin: .6em 0; }
.answer b { font-size: 150%; }
.good { border-color: #2e8b57; } .wait { border-color: #d0a000; } .bad { border-color: #b00020; }
"""


class Page:
    """Parts in order; ``text`` is the whole document."""

    def __init__(self, title: str):
        self._title, self._parts = title, [f"<h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """A section begins."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Plain text."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def answer(self, question: str, answer: str, why: str, state: str) -> None:
        """A question, its answer in large letters ("good", "wait" or "bad"), and the reason."""
        self._parts.append(
            f'<div class="answer {html.escape(state)}">{html.escape(question)} <b>{html.escape(answer)}</b>'
            f"<br>{html.escape(why[:1].upper() + why[1:])}</div>"
        )

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Cells of plain text."""
        lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
        lines += ["<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows]
        self._parts.append("<table>\n" + "\n".join(lines) + "\n</table>")

    def folded(self, summary: str, text: str) -> None:
        """Preformatted text behind a line to click on."""
        self._parts.append(
            f"<details><summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre></details>"
        )

    def svg(self, element: str) -> None:
        """An ``<svg>`` element as it is."""
        self._parts.append(f"<figure>{element}</figure>")

    def picture(self, picture: Path | Image.Image, caption: str) -> None:
        """A picture, copied into the page and shown pixel by pixel: one that is too wide is scrolled."""
        if isinstance(picture, Path):
            data = picture.read_bytes()
        else:
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            data = buffer.getvalue()
        width, height = Image.open(io.BytesIO(data)).size
        source = base64.b64encode(data).decode()
        label = html.escape(caption)
        self._parts.append(
            f'<figure><img alt="{label}" width="{width}" height="{height}" '
            f'src="data:image/png;base64,{source}"><figcaption>{label}</figcaption></figure>'
        )

    @property
    def text(self) -> str:
        """The document."""
        head = f'<meta charset="utf-8"><title>{html.escape(self._title)}</title><style>{_STYLE}</style>'
        body = "\n".join(self._parts)
        return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
