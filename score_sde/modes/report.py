"""``--mode=report``."""

from score_sde.flags import Options
from score_sde.modes.run import output_of, which_of, workdir_of
from score_sde.report.write import report_page
from score_sde.runtime.processes import is_chief, say


def report(options: Options) -> int:
    """Write ``report.html``: what is known of a run, on one page that needs no network."""
    output = output_of(options, "report.html", "a report is a .html", ".html")
    text = report_page(workdir_of(options), which_of(options))
    if is_chief():
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    say(f"report in {output}")
    return 0
