"""``--mode=report``."""

from pathlib import Path

from score_sde.flags import Options
from score_sde.modes.run import which_of, workdir_of
from score_sde.names import ConfigError
from score_sde.report.write import report_page
from score_sde.runtime.processes import is_chief, say


def report(options: Options) -> int:
    """Write ``report.html``: what is known of a run, on one page that needs no network."""
    output = options.workdir / "report.html" if options.output is None else Path(options.output)
    if output.suffix != ".html":
        raise ConfigError(f"--output={output}: a report is a .html")
    text = report_page(workdir_of(options), which_of(options))
    if is_chief():
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    say(f"report in {output}")
    return 0
