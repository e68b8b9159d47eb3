"""Training speed over devices and processes: prints a Markdown table.

    python experiments/benchmarks/scaling.py
    python experiments/benchmarks/scaling.py --config=configs/vp_cifar.py:reduced --layouts=1x1,1x2,2x1

A layout is processes x devices of each; on a CPU the devices are simulated, and more of them than cores gain
nothing.  Strong scaling keeps the batch, weak scaling the batch of a device.  Rates are those that the
training loop logs after its first step, the median of its lines.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = Path(__file__).parents[2] / "run.py"


def rate(config: str, words: list[str], processes: int, devices: int, batch: int, steps: int) -> float:
    """Images a second of one job.

    Raises:
      RuntimeError: a process failed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={devices}"
    with tempfile.TemporaryDirectory() as place:
        command = [
            *(sys.executable, str(RUN), f"--config={config}", "--mode=train", f"--workdir={place}"),
            f"--config.training.batch_size={batch}",
            f"--config.training.steps={steps}",
            f"--config.training.log_every_steps={max(1, steps // 4)}",
            *("--config.training.eval_examples=1", "--config.training.sample_count=1"),
            *("--config.sampling.steps=1", "--config.optimizer.decay_steps=0", *words),
        ]
        job = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"] if processes > 1 else []
        started = [
            subprocess.Popen(
                [*command, *job, *([f"--process_id={i}"] if job else [])],
                env={**os.environ, "XLA_FLAGS": flags},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for i in range(processes)
        ]
        said = [process.communicate()[0] for process in started]
        if any(process.returncode for process in started):
            raise RuntimeError("\n".join(said)[-3000:])
        lines = (Path(place) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rates = [json.loads(line).get("images_per_second") for line in lines]
    return statistics.median(value for value in rates if value is not None)


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/vp_digits.py", metavar="FILE[:VARIANT]")
    parser.add_argument("--batch", type=int, default=64, help="of the strong scaling, and of one device")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--layouts", default="1x1,1x2,2x1,2x2,1x4", help="processes x devices of each")
    parser.add_argument("words", nargs="*", help="for the command, after --")
    options = parser.parse_args()
    base = None
    print(f"{options.config}, batch {options.batch}, {os.cpu_count()} CPU threads\n")
    print("| processes x devices | strong, images/s | of one device | weak, images/s | of one device |")
    print("|---|---:|---:|---:|---:|")
    for layout in options.layouts.split(","):
        processes, devices = map(int, layout.split("x"))
        count, job = processes * devices, (options.config, options.words, processes, devices)
        strong = rate(*job, options.batch, options.steps)
        weak = strong if count == 1 else rate(*job, options.batch * count, options.steps)
        base = strong if base is None else base
        cells = f"{strong:.4g} | {strong / base:.2f} | {weak:.4g} | {weak / base:.2f}"
        print(f"| {layout} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
