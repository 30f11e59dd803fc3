"""kill -9 at random moments: every resumed run must end as the one that nobody disturbed, byte for byte.

    python -m tests.kills --kills 200             # prints the counts; exits with 1 if a run differs
    python -m tests.kills --kills 40 --writer in-place    # the control: a writer that is not atomic loses runs

A child is forked, trains, and is killed after a random time, again and again until it ends by itself. After each kill the newest whole
checkpoint is compared with that of the undisturbed run at the same step, and at the end the last one.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

import genmatch as gm
from genmatch.training import checkpoints
from genmatch.training.checkpoints import FILES, folders, newest
from tests.toys import TinyTokens, TinyVector, chain

STEPS = 40


class Dropping(TinyVector):
    """With dropout, which draws from the global generator."""

    def forward(self, x, t, condition=None):
        return torch.nn.functional.dropout(super().forward(x, t), 0.2, self.training)


def flow():
    process = gm.Flow(gm.paths.Gaussian((1,), coupling=gm.couplings.OptimalTransport()))
    return process, Dropping(), torch.linspace(-1, 1, 50).unsqueeze(-1)


def ctmc():
    process = chain("uniform")
    return process, TinyTokens(process), torch.randint(4, (50, 3))


def product():
    process = gm.Product(place=gm.Flow(gm.paths.Gaussian((2,))), word=chain("mask"))
    model = gm.nn.MLP(process.space, process.output_shape, width=16, depth=1)
    return process, model, {"place": torch.randn(50, 2), "word": torch.randint(4, (50, 3))}


# What is trained, on how many processes, and with which settings.
CONFIGS = {
    "flow": (flow, 1, {}),
    "ctmc": (ctmc, 1, {"objective": "elbo"}),
    "product": (product, 1, {}),
    "accumulation": (flow, 1, {"accumulate": 3}),
    "two processes": (ctmc, 2, {}),
}


def in_place(root, step, files, info, *, keep):
    """The control: one folder, overwritten file by file."""
    from safetensors.torch import save as as_bytes

    final = root / f"step-{step:08d}"
    for before in folders(root):
        before.rename(final)
    final.mkdir(exist_ok=True)
    listed = {}
    for name in FILES:
        content = as_bytes({key: value.detach().contiguous().clone() for key, value in files[name].items()})
        listed[f"{name}.safetensors"] = {"bytes": len(content), "sha256": checkpoints.hashlib.sha256(content).hexdigest()}
        (final / f"{name}.safetensors").write_bytes(content)
    manifest = {"format": 1, "step": step, "info": info, "versions": {}, "files": listed}
    content = checkpoints.json.dumps(manifest | {"sha256": checkpoints._digest(manifest)})
    (final / "manifest.json").write_text(content)
    return final


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(config, root, keep, writer):
    """Forks the processes of a run; returns their ids."""
    make, size, settings = CONFIGS[config]
    port, children = free_port(), []
    for rank in range(size):
        child = os.fork()
        if child:
            children.append(child)
            continue
        status = 1
        try:
            if size > 1:
                os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            if writer == "in-place":
                checkpoints.save = in_place
            torch.manual_seed(0)
            process, model, data = make()
            gm.train(
                process,
                model,
                data,
                steps=STEPS,
                batch_size=8,
                lr=1e-2,
                warmup=5,
                seed=1,
                checkpoint=root,
                every=1,
                keep=keep,
                resume=True,
                timeout=10,
                **settings,
            )
            status = 0
        except gm.GenmatchError as error:
            if "lost the others" not in str(error) and "find each other" not in str(error):
                print(error, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return children


def wait(children, seconds):
    """Waits that long at most; returns the statuses of those that ended."""
    ended, end = {}, time.monotonic() + seconds
    while len(ended) < len(children) and time.monotonic() < end:
        for child in children:
            if child not in ended:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    ended[child] = os.waitstatus_to_exitcode(status)
        if len(ended) < len(children):
            time.sleep(0.001)
    return ended


def kill(children, rng):
    """Kills one of the processes; the others must find out and end by themselves."""
    victim = rng.choice(children)
    os.kill(victim, signal.SIGKILL)
    ended = wait(children, 60)
    late = [child for child in children if child not in ended]
    for child in late:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return not late


def content(folder):
    return {name: (folder / f"{name}.safetensors").read_bytes() for name in FILES}


def warm(config):
    """Imports what a run imports on first use, so that children do not die before their first step."""
    make, _, settings = CONFIGS[config]
    process, model, data = make()
    with tempfile.TemporaryDirectory() as where:
        gm.train(process, model, data, steps=2, batch_size=8, checkpoint=Path(where) / "run", **settings)


def undisturbed(config, where):
    """The checkpoints of every step of a run that nobody disturbs, and how long it takes."""
    begin = time.monotonic()
    children = start(config, where, STEPS, "atomic")
    if any(status != 0 for status in wait(children, 300).values()):
        raise SystemExit(f"the undisturbed run of {config} failed")
    return {int(folder.name[5:]): content(folder) for folder in folders(where)}, time.monotonic() - begin


def torment(config, kills, writer, rng, where, counts):
    """Kills runs of a configuration that many times, and lets the last one end."""
    warm(config)
    reference, duration = undisturbed(config, where / "reference")
    root, left = where / "run", kills
    while True:
        children = start(config, root, 2, writer)
        ended = wait(children, rng.uniform(0, duration) if left > 0 else 300)
        if len(ended) == len(children):
            if any(ended.values()):
                counts["lost"] += 1
            else:
                counts["finished"] += 1
                counts["different"] += content(folders(root)[-1]) != reference[STEPS]
            shutil.rmtree(root, ignore_errors=True)
            if left <= 0:
                return
            continue
        if ended:  # one process ended just before the other
            wait([child for child in children if child not in ended], 60)
            continue
        counts["hung"] += not kill(children, rng)
        counts["kills"] += 1
        left -= 1
        counts["during a save"] += root.exists() and any(path.name.startswith(".writing") and "probe" not in path.name for path in root.iterdir())
        try:
            whole, refused = newest(root)
        except gm.GenmatchError:
            counts["lost"] += 1
            shutil.rmtree(root)
            continue
        counts["refused"] += len(refused)
        if whole is not None:
            counts["resumed"] += 1
            counts["different"] += content(whole.folder) != reference[whole.step]


def main():
    """Prints the counts of each configuration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writer", choices=["atomic", "in-place"], default="atomic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", choices=list(CONFIGS), action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng, total, configs = random.Random(arguments.seed), Counter(), arguments.config or list(CONFIGS)
    begin = time.monotonic()
    for i, config in enumerate(configs):
        counts = Counter(dict.fromkeys(("kills", "during a save", "resumed", "finished", "refused", "lost", "different", "hung"), 0))
        with tempfile.TemporaryDirectory() as where:
            torment(config, len(range(i, arguments.kills, len(configs))), arguments.writer, rng, Path(where), counts)
        print(f"{config:14s} {dict(counts)}", flush=True)
        total.update(counts)
    print(f"{'all':14s} {dict(total)}, {time.monotonic() - begin:.0f} s")
    raise SystemExit(1 if total["lost"] or total["different"] or total["hung"] else 0)


if __name__ == "__main__":
    main()
