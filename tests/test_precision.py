"""Half precision, blocks that are computed again, and compiled networks: the numbers that they must leave alone."""

import math

import pytest
import torch

import genmatch as gm
from genmatch.training.checkpoints import newest
from genmatch.training.recompute import blocks, recomputing
from tests.toys import TinyVector

DATA = torch.linspace(-1, 1, 9).unsqueeze(-1)
PROCESS = gm.Flow(gm.paths.Gaussian((1,)))
SETTINGS = {"steps": 8, "batch_size": 6, "lr": 1e-2, "warmup": 2, "seed": 1}


def network(depth=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return gm.nn.MLP(PROCESS.space, PROCESS.output_shape, width=16, depth=depth)


class Seen(TinyVector):
    """Notes in which type it computes, and times."""

    def __init__(self):
        super().__init__()
        self.kinds, self.times = set(), set()

    def forward(self, x, t, condition=None):
        self.times.add(t.dtype)
        out = super().forward(x, t)
        if self.training:
            self.kinds.add(out.dtype)
        return out


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_the_network_is_in_half_precision_and_nothing_else(precision, dtype):
    model = Seen()
    result = gm.train(PROCESS, model, DATA, precision=precision, **SETTINGS)
    assert (model.kinds, model.times) == ({dtype}, {torch.float32})
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}
    exact = gm.train(PROCESS, network(), DATA, **SETTINGS).losses
    losses = gm.train(PROCESS, network(), DATA, precision=precision, **SETTINGS).losses
    # The scale of fp16 begins too high, and the first steps are left out.
    assert losses[: 1 if precision == "fp16" else 8] == pytest.approx(exact[: 1 if precision == "fp16" else 8], rel=2e-2)


class Overflowing(TinyVector):
    """Its gradient is more than fp16 holds, if the loss is scaled by more than `limit`."""

    limit = 2.0**12

    def forward(self, x, t, condition=None):
        out = super().forward(x, t)
        if out.requires_grad:
            # The loss is a mean over six rows: its gradient is of the size of the scale.
            out.register_hook(lambda g: torch.where(g.abs() > self.limit, math.inf, g))
        return out


def test_a_step_that_overflows_is_left_out_and_the_scale_falls(tmp_path):
    torch.manual_seed(0)
    model = Overflowing()
    begin = [p.clone() for p in model.parameters()]
    result = gm.train(PROCESS, model, DATA, precision="fp16", checkpoint=tmp_path / "run", **SETTINGS)
    assert len(result.losses) == 8
    assert result.losses[0] == pytest.approx(result.losses[0])
    assert any(not torch.equal(p, q) for p, q in zip(begin, model.parameters(), strict=True))
    scale = float(newest(tmp_path / "run")[0].files["history"]["scaler.scale"])
    assert 1 < scale < 2.0**16


def test_a_gradient_that_is_never_finite_ends_with_an_error():
    model = Overflowing()
    model.limit = -1.0
    with pytest.raises(gm.GenmatchError, match=r"the gradient is (nan|inf) at step 17"):
        gm.train(PROCESS, model, DATA, precision="fp16", **(SETTINGS | {"steps": 40}))
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_run_in_fp16_goes_on_to_the_same_numbers(tmp_path):
    def run(folder, steps):
        torch.manual_seed(0)
        return gm.train(PROCESS, Overflowing(), DATA, precision="fp16", checkpoint=folder, resume=True, lr_schedule="constant", **(SETTINGS | {"steps": steps}))

    straight = run(tmp_path / "a", 8)
    run(tmp_path / "b", 3)
    assert run(tmp_path / "b", 8).losses == straight.losses
    one, two = (newest(tmp_path / name)[0].files for name in "ab")
    assert all(torch.equal(value, two[file][name]) for file in one for name, value in one[file].items())


@pytest.mark.parametrize("depth", [0, 3])
def test_gradients_of_blocks_that_are_computed_again_are_the_same(depth):
    model = network(depth).double()
    x, t = torch.randn(5, 1).double(), torch.rand(5).double()

    def gradients(wanted):
        model.zero_grad()
        with recomputing(model, wanted):
            model(x, t).square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    for one, two in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=0)
    assert all("forward" not in vars(module) for module in model.modules()), "the network is left as it was"


def test_recomputing_keeps_less():
    model, kept = network(), []
    x, t = torch.randn(5, 1), torch.rand(5)

    def held(wanted):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda v: kept.append(v.numel()) or v, lambda v: v), recomputing(model, wanted):
            model(x, t)
        return sum(kept)

    assert held(True) < 0.6 * held(False)


def test_training_that_recomputes_is_the_same_with_dropout_and_without(tmp_path):
    class Dropping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.parts = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.3)), torch.nn.Linear(8, 1)])

        def forward(self, x, t):
            for part in self.parts:
                x = part(x)
            return x

    one, two = (gm.train(PROCESS, Dropping(), DATA, recompute=wanted, **SETTINGS) for wanted in (False, True))
    assert one.losses == two.losses
    assert len(blocks(Dropping())) == 2


def test_a_compiled_network_is_called_and_keeps_its_names(tmp_path, monkeypatch):
    called = []

    def compiled(model):
        def call(x, t, **condition):
            called.append(len(t))
            return model(x, t, **condition)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    one = gm.train(PROCESS, network(), DATA, compile=True, checkpoint=tmp_path / "run", **SETTINGS)
    assert called == [6] * 8
    assert one.losses == gm.train(PROCESS, network(), DATA, **SETTINGS).losses
    assert set(newest(tmp_path / "run")[0].files["model"]) == set(network().state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"precision": "fp8"}, "unknown precision"), ({"sharding": "ful"}, "did you mean `full`"), ({"recompute": 1}, "`recompute` must be True or False, got 1")],
)
def test_settings_are_checked(change, message):
    with pytest.raises(gm.GenmatchError, match=message):
        gm.train(PROCESS, network(), DATA, **SETTINGS, **change)
