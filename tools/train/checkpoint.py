"""Saving a training run every few minutes, and going on with it."""

import os
import signal
import time

import torch

EVERY = 240.0
# A longer step than this was a pause of the process, and is not counted as time of training.
PAUSE = 15.0


class Run:
    """All that a stage must keep: its modules, its optimizer and how far it is."""

    def __init__(self, path, modules, optimizer=None, keeps=True):
        self.path, self.modules, self.optimizer, self.keeps = path, modules, optimizer, keeps
        self.step = self.samples = 0
        self.seconds = 0.0
        self.saved = self.last = time.monotonic()
        self.stopping = False
        if path.exists():
            self.load()

    def stop_politely(self):
        """SIGTERM and ctrl-C save before they end the stage."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.asked)

    def asked(self, *_):
        self.stopping = True

    def load(self):
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        if self.optimizer is not None and state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.samples, self.seconds = state["step"], state["samples"], state["seconds"]
        print(f"{self.path.name}: goes on at step {self.step}, {self.samples} samples")

    def save(self):
        """Never leaves half a file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save({"modules": {name: module.state_dict() for name, module in self.modules.items()},
                    "optimizer": self.optimizer.state_dict() if self.optimizer is not None else None,
                    "step": self.step, "samples": self.samples, "seconds": self.seconds}, part)
        os.replace(part, self.path)
        self.saved = time.monotonic()

    def after(self, batch):
        """Counts a step, and saves when it is time."""
        now = time.monotonic()
        self.seconds += min(now - self.last, PAUSE)
        self.last = now
        self.step += 1
        self.samples += batch
        if self.keeps and (self.stopping or now - self.saved > EVERY):
            self.save()
        if self.stopping:
            raise SystemExit(f"{self.path.name}: saved at step {self.step}")


class Average(torch.nn.Module):
    """A moving average of a module's weights, faster at first."""

    def __init__(self, module, decay):
        super().__init__()
        self.decay = decay
        self.values = torch.nn.ParameterList(
            [torch.nn.Parameter(p.detach().clone(), requires_grad=False) for p in module.parameters()])

    @torch.no_grad()
    def follow(self, module, step):
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values), list(module.parameters()), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module):
        for mine, theirs in zip(self.values, module.parameters(), strict=True):
            theirs.copy_(mine)
        return module


def schedule(optimizer, rate, done, step, warm=200, floor=0.02):
    """Warm-up by steps, then half a cosine of the part done down to `floor`."""
    import math

    curve = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    now = rate * curve * min(1.0, (step + 1) / warm)
    for group in optimizer.param_groups:
        group["lr"] = now * group.get("share", 1.0)
    return now


def until(text):
    """Seconds left to the nearest time of day, `22:50`, before or behind; without end where there is none."""
    if text is None:
        return float("inf")
    hour, minute = (int(part) for part in text.split(":"))
    now = time.gmtime()
    left = (hour - now.tm_hour) * 3600 + (minute - now.tm_min) * 60 - now.tm_sec
    return (left + 12 * 3600) % (24 * 3600) - 12 * 3600


def part_done(run, samples, end):
    """The part of a run that is done: by samples, or by the time that is left."""
    by_time = run.seconds / (run.seconds + max(until(end), 0.0) + 1e-9)
    return max(run.samples / samples, by_time)
