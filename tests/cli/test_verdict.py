"""The answer at the top of the report, against logs whose answer is known; and the page in a browser."""

import os
import re
import shutil
import subprocess
import tempfile

import numpy as np
import pytest
from PIL import Image

from score_sde.images.charts import Chart, Line
from score_sde.report.page import Page
from score_sde.report.verdict import judge
from score_sde.train import Record


def looks(*losses, every=100):
    return [{"step": every * (i + 1), "held_out_loss": loss} for i, loss in enumerate(losses)]


def result(best, *values, error=0.1, metric="cfd"):
    rows = [
        {"step": 100 * (i + 1), "scores": {metric: {"value": value, "error": error}}}
        for i, value in enumerate(values)
    ]
    return {"rows": rows, "best_step": best, "count": 500}


def test_a_run_that_still_improves_is_told_from_one_that_is_done():
    still = judge(looks(0.9, 0.5, 0.4, 0.3, 0.2, 0.1), 1000, [600], None, [])
    assert still.state == "good"
    assert still.trains == "Yes, still improving"
    assert still.why.startswith("the held-out loss has fallen from 0.9 at step 100 to 0.1 at step 600")
    assert "fell by 66.7%: more steps would still help. It is at step 600 of 1000." in still.why
    done = judge(looks(0.9, 0.5, 0.2, 0.1, 0.1, 0.0995), 600, [600], None, [])
    assert (done.state, done.trains) == ("good", "Yes, but hardly any more")
    assert "changed by -0.5%: more steps would help little. It has made all 600 steps." in done.why


def test_a_run_that_does_not_train_is_told():
    assert judge(looks(0.5, 0.52), 1000, [], None, []).why.startswith("the held-out loss has not fallen")
    worse = judge(looks(0.5, 0.2, 0.3, 0.4), 1000, [], None, [])
    assert worse.state == "bad"
    assert worse.trains == "No"
    assert worse.why.startswith("the held-out loss of the average has grown to 0.4 from 0.2 at step 200")
    risen = [{"step": i, "loss": 0.1 if i < 20 else 0.9} for i in range(1, 40)]
    warned = judge([*risen, {"step": 21, "warning": "training has diverged: words"}], 1000, [], None, [])
    assert warned.trains == "No"
    assert warned.why.startswith("training has diverged: the loss has risen to 0.9 from a level of 0.1")
    assert warned.warnings == ["step 21: training has diverged: words"]
    assert judge([], 1000, [], None, []).state == "wait"
    assert "measured 1 times" in judge(looks(0.5), 1000, [], None, []).why


def test_the_checkpoint_is_named_with_those_that_are_as_good():
    best = Record(300, "held_out_loss", 0.25)
    both = judge([], 400, [300, 400], best, [result(300, 9.0, 4.0, 1.0, 1.2)]).by
    assert both.startswith("300 by cfd of 500 samples (1 +- 0.1; within two error bars of it: 400).")
    assert "300 by held out loss (0.25), kept by training" in both
    clear = judge([], 400, [300, 400], None, [result(300, 9.0, 4.0, 1.0, 1.3)]).by
    assert clear == "300 by cfd of 500 samples (1 +- 0.1)."  # 0.3 is more than 2 sqrt(2) 0.1
    newest = judge([], 400, [300, 400], None, [result(400, 1.0)])
    assert newest.step == "400"
    assert "the newest of 2: nothing has been measured" in newest.by
    assert judge([], 400, [], None, []).step == "None"
    # Samples count for more than the loss.
    assert judge([], 400, [300, 400], best, [result(200, 9.0, 1.0, 4.0)]).step == "200"


# --- in a browser ----------------------------------------------------------------------------------

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


def browser():
    """A headless Chromium: the one that SCORE_SDE_BROWSER names, or one on the path."""
    found = os.environ.get("SCORE_SDE_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(
            f"no browser: none of {', '.join(BROWSERS)} on the path, and SCORE_SDE_BROWSER is not set"
        )
    return found


def rendered(path, *flags):
    """What the browser prints, without a network: host names lead nowhere."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND", *flags, path.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.browser
def test_the_page_is_shown_by_a_browser(tmp_path):
    page = Page("a run")
    page.answer("Is it training?", "Yes & <no>", "because", "good")
    page.heading("Curves")
    steps = np.arange(1.0, 9.0)
    page.svg(Chart("Loss", "step", "loss", (Line("a", steps, 1 / steps),), log=True).svg())
    page.picture(Image.new("RGB", (40, 30), (200, 0, 0)), "a red picture")
    (tmp_path / "report.html").write_text(page.text, encoding="utf-8")
    shot = tmp_path / "shot.png"
    rendered(tmp_path / "report.html", "--window-size=1000,900", f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)

    def count(red, green, blue):
        return int((np.abs(pixels - [red, green, blue]).max(axis=-1) < 8).sum())

    assert count(200, 0, 0) == pytest.approx(40 * 30, rel=0.1)  # the embedded picture, at its size
    assert count(0x2E, 0x8B, 0x57) > 100  # the mark of a good answer
    blue = pixels[..., 2] - pixels[..., 0] > 60
    across = np.flatnonzero(blue.any(axis=0))  # the curve, from its first step to its last
    assert np.ptp(across) > 400
    assert len(across) >= 0.98 * np.ptp(across)  # in one piece; an axis covers its first pixels
    text = rendered(tmp_path / "report.html", "--dump-dom").stdout
    assert "Yes &amp; &lt;no&gt;" in text
    assert len(re.findall("<svg", text)) == 1
