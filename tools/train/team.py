"""Several processes that train one network: each has its own part of every batch, and all take the same steps.

On a few cores, processes of one thread do more than threads of one process.
"""

import signal
import sys

import numpy as np
import torch

import checkpoint
import settings


class Team:
    """What one worker has of the others, through memory that all see."""

    def __init__(self, rank, shared, control, barrier):
        self.rank, self.shared, self.control, self.barrier = rank, shared, control, barrier
        self.size = len(shared)

    def is_first(self):
        return self.rank == 0

    def part_done(self, run, samples, end):
        """The part of the run that is done, by the clock of the first worker."""
        if self.is_first():
            over = checkpoint.until(end) <= 0
            self.control[0] = 1.0 if over else checkpoint.part_done(run, samples, end)
        self.barrier.wait()
        return float(self.control[0])

    def share(self, module):
        """Replaces every gradient by its mean over the workers."""
        if self.size == 1:
            return
        used = [p.grad for p in module.parameters() if p.grad is not None]
        size = sum(g.numel() for g in used)
        torch.cat([g.reshape(-1) for g in used], out=self.shared[self.rank][:size])
        self.barrier.wait()
        mean = self.shared[:, :size].mean(0)
        start = 0
        for gradient in used:
            gradient.copy_(mean[start:start + gradient.numel()].view(gradient.shape))
            start += gradient.numel()
        self.barrier.wait()

    def exchange(self, own, like):
        """Every worker's own tensors, the others' put in where one has none."""
        starts = np.cumsum([0, *(p.numel() for p in like)])
        for part, start in zip(own, starts):
            if part is not None:
                self.shared[0][start:start + part.numel()] = part.flatten()
        self.barrier.wait()
        found = [self.shared[0][start:start + p.numel()].view(p.shape).clone() for p, start in zip(like, starts)]
        self.barrier.wait()
        return found


def run(train, s, workers, numbers):
    """Calls `train(s, team)` in so many processes, this one first; `numbers`: how many the network has."""
    context = torch.multiprocessing.get_context("spawn")
    # As this process was called, so that who looks for it finds all.
    context.set_executable(sys.orig_argv[0])
    if workers > 1 and s.device != "cpu":
        raise SystemExit(f"several workers share the processor's memory; set workers to 1 for {s.device}")
    barrier = context.Barrier(workers)
    shared = torch.zeros(workers, numbers if workers > 1 else 0).share_memory_()
    control = torch.zeros(1, dtype=torch.float64).share_memory_()
    others = [context.Process(target=follow, args=(train, s, Team(rank, shared, control, barrier)))
              for rank in range(1, workers)]
    for other in others:
        other.start()
    try:
        train(s, Team(0, shared, control, barrier))
    finally:
        for other in others:
            other.kill()


def follow(train, s, own):
    """What ends the work reaches all processes at once; the first one saves, and ends the others."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    train(s, own)


def torch_up(s, workers):
    """PyTorch for one worker: with one thread, where there are others."""
    settings.torch_up(s)
    torch.set_num_threads(1 if workers > 1 else s.threads)
    # Gradients may be so small that processors are slow with them.
    torch.set_flush_denormal(True)
