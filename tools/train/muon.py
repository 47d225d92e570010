"""The optimizer of the UNet and of the autoencoder: Muon for matrices and kernels, Adam for everything else.

Muon makes the momentum of a matrix orthogonal, so that what few samples teach moves the weights as far as what all of
them teach. Workers share out the matrices and hand each other the results.
"""

import torch

# Of Newton and Schulz's iteration, and how often it is done.
CURVE, TIMES = (3.4445, -4.7750, 2.0315), 5
# Size of an update's numbers beside the rate, as Adam has it.
SIZE = 0.2


def orthogonal(matrices):
    """`[n, rows, columns]`: nearly the orthogonal matrices nearest to them."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = CURVE
    for _ in range(TIMES):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """The optimizer of one of a team of workers."""

    def __init__(self, module, ends, rate, team, momentum=0.95, betas=(0.9, 0.98)):
        """`ends`: names of the modules at the ends of the network, which are Adam's."""
        groups, others = {}, []
        for name, p in module.named_parameters():
            if p.ndim < 2 or name.startswith(ends):
                others.append(p)
            else:
                groups.setdefault((len(p), p[0].numel()), []).append(p)
        groups = [{"params": found, "matrices": True} for _, found in sorted(groups.items())]
        super().__init__([*groups, {"params": others, "matrices": False}], {"lr": rate})
        self.team, self.momentum, self.betas = team, momentum, betas

    @torch.no_grad()
    def step(self, closure=None):
        own, whose = [], []
        for group in self.param_groups:
            if not group["matrices"]:
                self.adam(group)
                continue
            looks = []
            for p in group["params"]:
                kept = self.state[p].setdefault("momentum", torch.zeros_like(p))
                kept.lerp_(p.grad, 1 - self.momentum)
                looks.append(p.grad.lerp(kept, self.momentum))
            mine = [i % self.team.size == self.team.rank for i in range(len(whose), len(whose) + len(looks))]
            found = iter(())
            if any(mine):
                several = torch.stack([look.flatten(1) for look, is_mine in zip(looks, mine) if is_mine])
                found = iter(orthogonal(several))
            for p, is_mine in zip(group["params"], mine):
                own.append(next(found).reshape(p.shape) if is_mine else None)
                whose.append((p, group["lr"]))
        if self.team.size > 1:
            own = self.team.exchange(own, [p for p, _ in whose])
        for (p, rate), update in zip(whose, own):
            p.add_(update, alpha=-rate * SIZE * max(len(p), p[0].numel()) ** 0.5)

    def adam(self, group):
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state.update(step=torch.zeros(()), mean=torch.zeros_like(p), square=torch.zeros_like(p))
            state["step"] += 1
            fast, slow = self.betas
            state["mean"].lerp_(p.grad, 1 - fast)
            state["square"].mul_(slow).addcmul_(p.grad, p.grad, value=1 - slow)
            n = state["step"].item()
            size = (state["square"] / (1 - slow ** n)).sqrt_().add_(1e-8)
            p.addcdiv_(state["mean"], size, value=-group["lr"] / (1 - fast ** n))
