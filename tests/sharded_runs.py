"""What two processes do in tests/test_sharding.py: started by torchrun, with a folder."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import genmatch as gm
from genmatch.training.distributed_tensors import held

SETTINGS = {"batch_size": 8, "lr": 1e-2, "warmup": 2, "seed": 0, "lr_schedule": "constant", "validate_every": 5}


def words():
    """A network that splits itself, of a process that reads a part of its output."""
    torch.manual_seed(0)
    process = gm.CTMC(gm.paths.Mixture((6,), vocab_size=4))
    return process, gm.nn.Transformer(process.space, process.output_shape, width=16, depth=2, heads=2).double(), torch.randint(4, (50, 6))


def place_and_word():
    """A network of blocks, with dictionaries around it."""
    torch.manual_seed(0)
    process = gm.Product(place=gm.Flow(gm.paths.Gaussian((2,))), word=gm.CTMC(gm.paths.Mixture((3,), vocab_size=4)))
    model = gm.nn.MLP(process.space, process.output_shape, width=16, depth=1).double()
    return process, model, {"place": torch.randn(50, 2).double(), "word": torch.randint(4, (50, 3))}


MAKERS = {"words": words, "product": place_and_word}


def train(name, where, steps, **settings):
    process, model, data = MAKERS[name]()
    return model, gm.train(process, model, data, steps=steps, checkpoint=where, resume=True, validation=data, **(SETTINGS | settings))


class Mute(torch.nn.Module):
    """Diverges on one process only, where a step must end on both."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x, t):
        return self.linear(x) * (float("nan") if dist.get_rank() and self.training else 1.0)


def main(folder):
    """Trains from the start, onwards from one process, and halfway."""
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    found = {}
    for name in MAKERS:
        model, result = train(name, folder / f"{name}-two", 10, sharding="full", accumulate=2)
        found[name] = {"losses": result.losses, "held": sum(held(p) for p in model.parameters()), "all": sum(p.nbytes for p in result.model.parameters())}
        found[name]["loss after"] = gm.training.validation_loss(MAKERS[name]()[0], result.model, (MAKERS[name]()[2], {}))
    train("words", folder / "from-one", 10, sharding="full", recompute=True)
    train("words", folder / "from-two", 5, sharding="full")
    train("words", folder / "fp16", 5, sharding="full", precision="fp16")
    try:
        gm.train(gm.Flow(gm.paths.Gaussian((2,))), Mute(), torch.randn(20, 2), steps=3, batch_size=8, sharding="full")
    except gm.GenmatchError as error:
        found["error"] = str(error)
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
