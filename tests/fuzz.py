"""Random settings and inputs: every call ends well or with a GenmatchError that says why; no other error, no hang, no storm of warnings.

    python -m tests.fuzz --cases 10000 --seconds 480      # prints the counts; exits with 1 if anything else happens

Half of the cases call the public API, half the command line; what was wrong is printed with the values that it was drawn from.
"""

import argparse
import json
import math
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

import genmatch as gm
from genmatch import registry
from genmatch.cli import main as command_line
from genmatch.settings import LR_SCHEDULES, OBJECTIVES, PRECISIONS, SHARDINGS, Settings

PATIENCE = 30
"""Seconds after which a case hangs."""
STORM = 5
"""Warnings of a case that are a storm."""

odd = st.sampled_from([None, -1, 0, 1.5, True, "", "x", "nan", [], {}, (), math.nan, math.inf, -math.inf, 10**30, 1e-300, b"b", object])
small = st.integers(0, 4)


def mostly(good, bad=odd):
    """Good values, and a bad one now and then."""
    return st.integers(0, 19).flatmap(lambda i: bad if i == 0 else good)


SPACES = [gm.spaces.Euclidean((2,)), gm.spaces.Categorical((2,), 3), gm.spaces.Sphere(2), gm.spaces.Torus(2)]
SPACES += [gm.spaces.ProductSpace(place=gm.spaces.Euclidean((2,)), word=gm.spaces.Categorical((2,), 3))]

tensors = st.builds(
    lambda shape, kind, seed: kind(shape, torch.Generator().manual_seed(seed)),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from(
        [
            lambda shape, rng: torch.randn(shape, generator=rng),
            lambda shape, rng: torch.randn(shape, generator=rng).double(),
            lambda shape, rng: torch.randint(0, 3, shape, generator=rng),
            lambda shape, rng: torch.randint(-2, 9, shape, generator=rng),
            lambda shape, rng: torch.full(shape, math.nan),
            lambda shape, rng: torch.zeros(shape, dtype=torch.bool),
            lambda shape, rng: torch.zeros(shape, dtype=torch.complex64),
            lambda shape, rng: torch.zeros(shape, dtype=torch.float16),
        ]
    ),
    st.integers(0, 9),
)


def data_for(space, n, rng):
    """Valid data points."""
    if isinstance(space, gm.spaces.ProductSpace):
        return {name: data_for(part, n, rng) for name, part in space.parts.items()}
    if isinstance(space, gm.spaces.Categorical):
        return torch.randint(0, space.vocab_size, (n, *space.shape), generator=rng)
    x = torch.randn((n, *space.shape), generator=rng)
    return x / x.norm(dim=-1, keepdim=True) if isinstance(space, gm.spaces.Sphere) else x % (2 * math.pi) if isinstance(space, gm.spaces.Torus) else x


TRAINING = {
    "batch_size": st.integers(1, 6),
    "lr": st.sampled_from([1e-3, 1.0, 1e6]),
    "warmup": small,
    "lr_schedule": st.sampled_from(LR_SCHEDULES),
    "weight_decay": st.floats(0, 1),
    "grad_clip": st.floats(0.1, 9),
    "ema": st.floats(0, 0.999),
    "validate_every": st.integers(1, 3),
    "objective": st.sampled_from(OBJECTIVES),
    "drop_condition": st.sampled_from([0.0, 0.0, 0.5]),
    "seed": st.integers(-3, 2**40),
    "accumulate": st.integers(1, 3),
    "precision": st.sampled_from(PRECISIONS),
    "sharding": st.sampled_from(SHARDINGS),
    "recompute": st.booleans(),
    "explode": st.sampled_from([2.0, 1e4, math.inf]),
    "timeout": st.floats(1, 9),
    "every": st.integers(1, 3),
    "keep": st.integers(1, 3),
}
assert set(Settings.__dataclass_fields__) <= {*TRAINING, "steps", "compile"}

SAMPLING = {
    "steps": st.integers(1, 3),
    "solver": st.sampled_from([None, *registry.solvers.names()]),
    "grid": st.sampled_from(["uniform", "cosine", "angle", "log-snr", "karras"]),
    "seed": st.integers(0, 9),
    "batch_size": st.integers(1, 3),
}


def fits(name, space):
    """Whether a family makes a process on a space that any network can learn."""
    try:
        return not gm.processes.get(name)(space).network
    except gm.GenmatchError:
        return False


FITTING = [[name for name in gm.processes.available() if fits(name, space)] for space in SPACES]


def some_of(draw, table):
    """A few keywords of a table, each mostly good."""
    names = draw(st.lists(st.sampled_from([*table]), max_size=4, unique=True))
    return {name: draw(mostly(table[name])) if name in table else draw(odd) for name in names}


def api(draw, where):
    """A call of the public API."""
    space = draw(st.sampled_from(SPACES))
    family = draw(st.sampled_from(FITTING[SPACES.index(space)]))
    rng = torch.Generator().manual_seed(draw(small))
    make = gm.processes.get(family)
    process = make(space)
    n = draw(st.integers(1, 5))
    model = draw(mostly(st.just(gm.nn.MLP(process.space, process.output_shape, width=4, depth=1))))
    data = draw(mostly(st.just(data_for(space, n, rng)), st.one_of(tensors, odd)))
    kind = draw(st.sampled_from(["train", "sample", "oracle", "elbo", "log_likelihood", "simulate", "space", "settings"]))
    if kind == "train":
        keywords = some_of(draw, TRAINING) | draw(st.sampled_from([{}, {}, {}, {}, {}, {}, {"stepz": 1}]))
        if draw(st.booleans()):
            keywords["checkpoint"] = draw(st.sampled_from([where, where / "deep" / "er", Path("/proc/nowhere")]))
        return gm.train(process, model, data, steps=draw(mostly(st.integers(1, 3))), **keywords)
    if kind == "sample":
        return gm.sample(process, model, draw(mostly(st.integers(1, 3))), **some_of(draw, SAMPLING))
    if kind == "oracle":
        return gm.sample(process, gm.oracle(process, data), n, **some_of(draw, SAMPLING))
    if kind in ("elbo", "log_likelihood"):
        return getattr(gm, kind)(process, model, data, **some_of(draw, {"seed": small, "draws" if kind == "elbo" else "probes": st.integers(1, 4)}))
    if kind == "simulate":
        times = draw(mostly(st.sampled_from([torch.linspace(0, 1, 3), torch.tensor([0.2, 0.7])]), st.one_of(tensors, odd)))
        x0 = draw(mostly(st.just(process.path.source(n, rng=rng)), st.one_of(tensors, odd)))
        return gm.simulate(process, model, x0, times, solver=draw(mostly(SAMPLING["solver"])))
    if kind == "space":
        return space.validate(draw(st.one_of(tensors, odd)), "x")
    return Settings(steps=draw(mostly(small)), **some_of(draw, {name: value for name, value in TRAINING.items() if name not in ("every", "keep")}))


words = st.one_of(st.sampled_from(["", "-1", "0", "2", "1e9", "nan", "inf", "true", "x", "é", "--", "1.5", "[1]", "\x00"]), st.text(max_size=6))
numbers = st.sampled_from(["1", "2", "3"])
OPTIONS = {
    "train": {
        "--process": st.sampled_from(gm.processes.available()),
        "--data": st.sampled_from(["chain", "gaussians", "airports", "prepared", "text:nowhere", "chain:1"]),
        "--steps": numbers,
        "--batch-size": st.sampled_from(["1", "4"]),
        "--lr": st.sampled_from(["1e-3", "1"]),
        "--network": st.sampled_from(["mlp", "transformer"]),
        "--width": st.sampled_from(["4", "8"]),
        "--depth": st.sampled_from(["0", "1"]),
        "--seed": numbers,
        "--precision": st.sampled_from(PRECISIONS),
        "--sharding": st.sampled_from(SHARDINGS),
        "--accumulate": numbers,
        "--ema": st.sampled_from(["0", "0.5"]),
        "--every": numbers,
        "--set": st.sampled_from(["train.lr=1e-3", "lr=x", "lrr=1", "a", "=", "steps=2.5", "train.steps=2"]),
    },
    "sample": {
        "--n": numbers,
        "--steps": numbers,
        "--solver": st.sampled_from(registry.solvers.names()),
        "--seed": numbers,
        "--label": numbers,
        "--guidance": numbers,
    },
    "evaluate": {"--n": numbers, "--draws": st.sampled_from(["2", "3"]), "--seed": numbers},
    "infill": {
        "--n": numbers,
        "--steps": numbers,
        "--at": st.sampled_from(["0:a", "3", "-1:b", "99:c"]),
        "--solver": st.sampled_from(registry.solvers.names()),
    },
    "prepare": {"--length": st.sampled_from(["2", "4"]), "--tokeniser": st.sampled_from(["characters", "bytes", "words"]), "--size": numbers},
    "check-checkpoint": {},
    "list": {},
}
FLAGS = {"train": ["--condition", "--recompute", "--print-config"], "prepare": ["--verify", "--grey"], "infill": ["--stop"]}


def command(draw, where):
    """A command line."""
    name = draw(st.sampled_from(list(OPTIONS)))
    line = [name]
    if name == "train":  # small enough to end; later words win
        line += ["--process", "flow", "--data", "gaussians", "--steps", "2", "--batch-size", "4", "--width", "4", "--depth", "1"]
    if name == "sample":
        line += ["--steps", "2", "--n", "2"]
    if name == "evaluate":
        line += ["--n", "2", "--draws", "2"]
    if name == "infill":
        line += ["text", "--steps", "2"]
    if name in ("train", "sample", "prepare"):
        kinds = {"train": ["run"], "prepare": ["made"], "sample": ["s.png", "s.npy", "s.safetensors", "s.txt", "s.xyz", "no/s.npy"]}
        line += ["--out", str(where / draw(st.sampled_from(kinds[name])))]
    for option in draw(st.lists(st.sampled_from([*OPTIONS[name], "--zzz"]), max_size=4)) if OPTIONS[name] else []:
        line += [option, draw(mostly(OPTIONS[name].get(option, words), words))]
    line += draw(st.lists(st.sampled_from(FLAGS.get(name, ["--zzz"])), max_size=1)) if draw(st.integers(0, 4)) == 0 else []
    source = where / "source.txt"
    source.write_text("to be or not to be, that is the question\n" * 3)
    (where / "run.toml").write_bytes(
        draw(st.one_of(st.sampled_from([b"[train]\nsteps = 2\n", b"steps = 'x'", b"train = 1", b"[train]\nzz = 1", b"\xff"]), st.binary(max_size=8)))
    )
    if name in ("check-checkpoint", "prepare") or draw(st.integers(0, 3)) == 0:
        line.append(str(draw(st.sampled_from([source, where, where / "run", where / "run.toml", where / "none"]))) if name != "list" else draw(words))
    result = CliRunner().invoke(command_line, line)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise Wrong(line) from result.exception
    if result.exit_code not in (0, 1, 2) or (result.exit_code and not result.output.strip()):
        raise Wrong([*line, f"ended with {result.exit_code} and said {result.output!r}"])
    if result.exit_code:
        raise gm.GenmatchError(result.output)


class Enough(KeyboardInterrupt):
    """The time is over."""


class Wrong(Exception):
    """A command line that ended otherwise than it may."""


@contextmanager
def limited(seconds):
    """Ends a case that hangs, where there are alarms."""

    def late(number, frame):
        raise TimeoutError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def case(draw, kind):
    """Runs a case; returns "well" or "refused". Anything else is an error."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught, limited(PATIENCE):
        warnings.simplefilter("always")
        try:
            kind(draw, Path(folder))
            outcome = "well"
        except gm.GenmatchError as error:
            if not str(error).strip():
                raise Wrong(["an error that says nothing"]) from error
            outcome = "refused"
    if len(caught) > STORM:
        raise Wrong([f"{len(caught)} warnings, such as {caught[0].message}"])
    return outcome


KINDS = {"api": api, "command line": command}


def run(kind, cases, seed, seconds=math.inf):
    """Runs that many cases, or as many as fit; returns counts, and failures with their cause."""
    counts, failures, end = Counter(), {}, time.monotonic() + seconds

    @settings(max_examples=cases, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), derandomize=False)
    @given(st.data())
    def every(data):
        if time.monotonic() > end:
            raise Enough
        noted = []

        def draw(strategy):
            value = data.draw(strategy)
            if not isinstance(value, torch.nn.Module):
                noted.append(value)
            return value

        try:
            counts[case(draw, KINDS[kind])] += 1
        except (Exception, SystemExit) as error:
            counts["wrong"] += 1
            cause = error.__cause__ or error
            last = traceback.extract_tb(cause.__traceback__)[-1] if cause.__traceback__ else None
            key = f"{type(cause).__name__}: {str(cause)[:90]} at {last.filename.rsplit('/', 2)[-1]}:{last.lineno}" if last else str(cause)
            failures.setdefault(key, (noted, error))

    with suppress(Enough):
        seeded(seed)(every)()
    return counts, failures


def main():
    """Prints the counts of each kind, and each failure once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wrong, total, begin, kinds = 0, 0, time.monotonic(), arguments.kind or list(KINDS)
    for kind in kinds:
        counts, failures = run(kind, arguments.cases // len(kinds), arguments.seed, arguments.seconds / len(kinds))
        print(f"{kind:14s} {json.dumps(counts)}", flush=True)
        for key, (noted, error) in failures.items():
            print(f"  {key}\n    {str(noted)[:600]}")
            traceback.print_exception(error.__cause__ or error, limit=-4, file=sys.stdout)
        wrong += counts["wrong"]
        total += sum(counts.values())
    print(f"{total} cases in {time.monotonic() - begin:.0f} s, {wrong} wrong")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
