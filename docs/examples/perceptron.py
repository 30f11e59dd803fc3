"""A network of one's own: a perceptron for vectors that sees the state, the time and, if there are any, the labels."""

import torch


class Perceptron(torch.nn.Module):
    """Called as network(x, t, label=...), and without a label as network(x, t).

    Args:
        space: where the states live.
        output_shape: of one output, `process.output_shape`.
        width: of the hidden layers.
        depth: number of them.
        labels: number of classes of each label by name, such as {"label": 10}; None if the network is told none.
    """

    def __init__(self, space, output_shape, *, width, depth, labels):
        super().__init__()
        self.output_shape = output_shape
        self.null = labels  # what a label is when it is not given: one more class, for training with labels left out and for guidance
        self.embed = torch.nn.ModuleDict({name: torch.nn.Embedding(n + 1, width) for name, n in (labels or {}).items()})
        self.first = torch.nn.Linear(space.size + 1, width)
        hidden = [layer for _ in range(depth) for layer in (torch.nn.SiLU(), torch.nn.Linear(width, width))]
        self.rest = torch.nn.Sequential(*hidden, torch.nn.SiLU(), torch.nn.Linear(width, torch.Size(output_shape).numel()))

    def forward(self, x, t, **condition):
        h = self.first(torch.cat([x.flatten(1), t.unsqueeze(-1).to(x)], -1))
        for name, embed in self.embed.items():
            h = h + embed(condition.get(name, torch.full(t.shape, self.null[name], device=x.device)))
        return self.rest(h).view(-1, *self.output_shape)
