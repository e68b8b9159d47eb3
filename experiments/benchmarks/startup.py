"""From a command to the end of its first training step, cold and warm: prints a Markdown table.

    python experiments/benchmarks/startup.py
    python experiments/benchmarks/startup.py --config=configs/vp_cifar.py -- --config.data.source=folder ...

The command runs in processes of its own: first with an empty directory for compiled programs, then with
what that left there.  Words after ``--`` go to the command.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = Path(__file__).parents[2] / "run.py"
READY = "ran it once"  # what the training loop says after its first step


def seconds(config: str, words: list[str], cache: Path, workdir: Path) -> float:
    """From the start of a process to the end of its first step; then it is stopped.

    Raises:
      RuntimeError: it ended before.
    """
    command = [sys.executable, str(RUN), f"--config={config}", "--mode=train", f"--workdir={workdir}"]
    start, said = time.perf_counter(), []
    process = subprocess.Popen(
        [*command, f"--compile_cache={cache}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for line in process.stdout or []:
            said.append(line)
            if READY in line:
                return time.perf_counter() - start
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
    print("| to the first step | cold, s | warm, s | warm / cold |\n|---|---:|---:|---:|")
    first, second = statistics.median(cold), statistics.median(warm)
    print(f"| {options.config} | {first:.1f} | {second:.1f} | {second / first:.2f} |")


if __name__ == "__main__":
    main()
