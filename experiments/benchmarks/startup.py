"""From a command to its first training step, cold and warm: prints a Markdown table.

    python experiments/benchmarks/startup.py
    python experiments/benchmarks/startup.py --config=configs/vp_cifar.py -- --config.data.source=folder ...

The command runs in processes of its own: first with an empty directory for compiled programs, then with
what that left there.  Words after ``--`` go to the command.

Two times are taken: until the devices begin the first step, and until it is done.  The step itself takes as
long in both, and longer than those after it: its memory is new to the process.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from watched import BEGINS

WATCHED = Path(__file__).with_name("watched.py")
DONE = "ran it once"  # what the training loop says after its first step


class Start(NamedTuple):
    """Seconds from the start of a process until its first step begins, and until it is done."""

    begins: float
    done: float


def seconds(config: str, words: list[str], cache: Path, workdir: Path) -> Start:
    """Of a process, which is stopped after its first step.

    Raises:
      RuntimeError: it ended before.
    """
    command = [sys.executable, str(WATCHED), f"--config={config}", "--mode=train", f"--workdir={workdir}"]
    start, said, begins = time.perf_counter(), [], None
    process = subprocess.Popen(
        [*command, f"--compile_cache={cache}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for line in process.stdout or []:
            said.append(line)
            if BEGINS in line and begins is None:
                begins = time.perf_counter() - start
            if DONE in line and begins is not None:
                return Start(begins, time.perf_counter() - start)
    finally:
        process.kill()
        process.wait()
    raise RuntimeError("no first step:\n" + "".join(said[-20:]))


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/vp_digits.py", metavar="FILE[:VARIANT]")
    parser.add_argument("--repeats", type=int, default=1, help="of both (default 1)")
    parser.add_argument("words", nargs="*", help="for the command, after --")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats={options.repeats}: must be at least 1")
    cold, warm = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as place:
            cache = Path(place) / "cache"
            cold.append(seconds(options.config, options.words, cache, Path(place) / "cold"))
            warm.append(seconds(options.config, options.words, cache, Path(place) / "warm"))
    print("| until the first step | | cold, s | warm, s | warm / cold |\n|---|---|---:|---:|---:|")
    for name in Start._fields:
        first, second = (statistics.median(getattr(s, name) for s in starts) for starts in (cold, warm))
        print(f"| {options.config} | {name} | {first:.1f} | {second:.1f} | {second / first:.2f} |")


if __name__ == "__main__":
    main()
