"""Measures the shards of `mixdq sensitivity` as Ray tasks, on this machine or a cluster, and merges them.

    tools/shards/setup
    tools/.venv-ray/bin/python tools/shards/ray_shards.py --shards 8 -- -m MODEL -o scores.jsonl [--count 8 …]

Everything after `--` goes to `mixdq sensitivity`. Its paths must be the same on all machines of the cluster. A task that
dies is started again by Ray and goes on in its own file; so does a second call of this script.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import ray


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--cpus", type=int, default=2, help="cores of each shard")
    parser.add_argument("--address", help="a running cluster, such as auto; without it, this machine")
    parser.add_argument("--mixdq", default="target/release/mixdq")
    parser.add_argument("command", nargs="+", help="arguments of `mixdq sensitivity`, after --")
    return parser.parse_args()


def main():
    typed = arguments()
    mixdq = str(Path(typed.mixdq).resolve())
    at = next((i for i, word in enumerate(typed.command) if word in ("-o", "--output")), None)
    if at is None or at + 1 == len(typed.command):
        sys.exit("error: say where the scores go with -o FILE")
    output = Path(typed.command[at + 1]).resolve()
    common = [*typed.command[:at], *typed.command[at + 2:]]
    folder = Path.cwd()

    @ray.remote(num_cpus=typed.cpus, max_retries=3, retry_exceptions=True)
    def measure(number):
        path = f"{output}.{number}-of-{typed.shards}"
        shard = ["--shard", f"{number}/{typed.shards}", "-t", str(typed.cpus), "-o", path]
        subprocess.run([mixdq, "sensitivity", *common, *shard], cwd=folder, check=True)
        return path

    ray.init(address=typed.address, log_to_driver=False)
    waiting = [measure.remote(number) for number in range(1, typed.shards + 1)]
    paths = []
    while waiting:
        done, waiting = ray.wait(waiting)
        paths += ray.get(done)
        print(f"{len(paths)} of {typed.shards} shards", file=sys.stderr)
    subprocess.run([mixdq, "sensitivity", "-o", str(output), "--merge", *sorted(paths)], check=True)


if __name__ == "__main__":
    main()
