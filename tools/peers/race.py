"""Times several programs in turn, A B A B, and compares what they computed.

A runner is a process that answers each line `run` on its standard input with one line of seconds
and saves its output when its input ends.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import network

HERE = Path(__file__).resolve().parent
# How far apart two outputs may be, in dB, and how well the peer has to be set up.
# Two ways to round to whole numbers agree no better than each of them with real ones.
AGREEMENT = {"f32": 40.0, "bf16": 30.0, "w8a8": 15.0}
WELL_SET_UP = 0.85


class Runner:
    """A process that computes on request."""

    def __init__(self, name, command, saved):
        self.name, self.saved, self.seconds = name, saved, []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=sys.stderr, text=True)

    def run(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        while line := self.process.stdout.readline():
            try:
                return float(line)
            except ValueError:
                print(f"{self.name}: {line.rstrip()}", file=sys.stderr)
        sys.exit(f"{self.name} ended with status {self.process.wait()}")

    def finish(self):
        """Lets the process save its output and end."""
        self.process.stdin.close()
        self.process.wait()
        return network.output(self.saved)

    def peak(self):
        """The most memory it has held so far, in MB."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        line = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
        return line and int(line.split()[1]) * 1024 / 1e6


def peer(options, engine, precision, inputs, folder):
    saved = folder / f"{engine}-{precision}.safetensors"
    command = [sys.executable, str(HERE / "serve.py"), options.component, engine, precision,
               "--model", options.model, "--inputs", str(inputs), "--save", str(saved),
               "--threads", str(options.threads), "--cache", options.cache]
    return Runner(f"{engine} {precision}", command, saved)


def ours(options, precision, inputs, folder):
    saved = folder / f"ours-{precision}.safetensors"
    command = options.ours.format(component=options.component, model=options.model, inputs=inputs,
                                  save=saved, precision=precision, threads=options.threads)
    return Runner(f"ours {precision}", shlex.split(command), saved)


def interleaved(runners, options):
    """Warm-ups, then the same number of runs of each, in turn."""
    for turn in range(options.warm_ups + options.runs):
        for runner in runners:
            seconds = runner.run()
            if turn >= options.warm_ups:
                runner.seconds.append(seconds)
            # Idle worker threads of one engine stop spinning before the next one starts.
            time.sleep(options.pause)
    for runner in runners:
        peak = runner.peak()
        memory = f"  peak {peak:6.0f} MB" if peak else ""
        print(f"{runner.name:14} median {statistics.median(runner.seconds):.4f} s  "
              f"min {min(runner.seconds):.4f}  max {max(runner.seconds):.4f}{memory}", flush=True)


def compare(options, precision, inputs, folder, exact):
    """One precision: times, agreement, and whether the comparison counts.

    `exact` keeps the reference's f32 output, which those of other precisions are also compared with.
    """
    theirs = options.against or precision
    runners = [peer(options, engine, theirs, inputs, folder) for engine in options.peers]
    if options.ours:
        runners.insert(0, ours(options, precision, inputs, folder))
    interleaved(runners, options)
    medians = {r.name.split()[0]: statistics.median(r.seconds) for r in runners}
    outputs = {r.name.split()[0]: r.finish() for r in runners}
    row = {"component": options.component, "precision": precision, "seconds": medians, "sqnr": {}}
    reference = "openvino" if "openvino" in outputs else options.peers[0]
    for name, output in outputs.items():
        if name != reference:
            row["sqnr"][f"{name}:{reference}"] = network.sqnr(outputs[reference], output)
    if precision == "f32":
        exact["f32"] = outputs[reference]
    elif exact:
        row["sqnr_to_f32"] = {n: network.sqnr(exact["f32"], o) for n, o in outputs.items()}
    print(f"{precision}: deviation of the output {outputs[reference].std():.3f}")
    if options.ours:
        row["ratio"] = medians["ours"] / medians[reference]
    judged = {pair: value for pair, value in row["sqnr"].items()
              if pair.startswith("ours:") or not options.ours}
    faults = [f"{pair} agree to {value:.1f} dB only" for pair, value in judged.items()
              if value < AGREEMENT[precision]]
    # A VAE is nearly all convolutions, in which PyTorch calls the same library.
    if options.component == "unet" and precision == "bf16" and {"openvino", "torch"} <= medians.keys() \
            and medians["openvino"] > WELL_SET_UP * medians["torch"]:
        faults.append("OpenVINO takes more than 0.85 of PyTorch's time")
    row["void"] = faults
    return row


def run(component):
    parser = argparse.ArgumentParser(description=f"Times {component} in several engines, in turn.")
    parser.add_argument("model", help="diffusers folder with f16 weights")
    parser.add_argument("--ours", help="command of ours; {component} {model} {inputs} {save} {precision} "
                                       "{threads} are filled in")
    parser.add_argument("--peers", default="openvino,torch", type=lambda text: text.split(","))
    parser.add_argument("--precisions", default="f32,bf16", type=lambda text: text.split(","))
    parser.add_argument("--against", help="precision of the others, where it is not that of ours")
    parser.add_argument("--inputs", help="safetensors file; made for --size if absent")
    parser.add_argument("--size", type=int, default=512, help="pixels of a side")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--warm-ups", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.3)
    parser.add_argument("--cache", default="/tmp/mixdq-peers")
    options = parser.parse_args()
    options.component = component
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        inputs = Path(options.inputs or folder / "inputs.safetensors")
        if not options.inputs:
            network.random_inputs(component, options.model, options.size, inputs)
        exact = {}
        rows = [compare(options, precision, inputs, folder, exact) for precision in options.precisions]
    for row in rows:
        print(json.dumps(row))
    sys.exit(any(row["void"] for row in rows))
