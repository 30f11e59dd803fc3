import copy
import math

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import genmatch as gm
from genmatch.generators import Drift
from genmatch.training import loss_on, train, validation_loss
from genmatch.training.batches import drop
from genmatch.training.objectives import low_discrepancy_times
from tests.toys import TinyTokens, TinyVector, chain, full, seeded

DATA = torch.tensor([[-1.0], [1.0], [1.0], [0.5]])


def flow(prediction="velocity"):
    return gm.Flow(gm.paths.Gaussian((1,)), prediction=prediction)


def tiny(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyVector()


def weights_of(model):
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


CONDITION = torch.tensor([0.0, 1.0, 1.0, 2.0])
FORMS = {
    "tensor": DATA,
    "array": DATA.numpy(),
    "pair": (DATA, CONDITION),
    "pair with names": (DATA, {"condition": CONDITION}),
    "Dataset": Rows(DATA),
    "Dataset of pairs": Rows(list(zip(DATA, CONDITION, strict=True))),
    "TensorDataset": TensorDataset(DATA),
    "TensorDataset of pairs": TensorDataset(DATA, CONDITION),
    "DataLoader": DataLoader(TensorDataset(DATA), batch_size=2),
    "DataLoader of pairs": DataLoader(Rows(list(zip(DATA, CONDITION, strict=True))), batch_size=3),
    "DataLoader of pairs with names": DataLoader(Rows([(x, {"condition": c}) for x, c in zip(DATA, CONDITION, strict=True)]), batch_size=2),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_trains(form):
    result = train(flow(), tiny(), FORMS[form], steps=5, batch_size=4)
    assert len(result.losses) == 5
    assert all(math.isfinite(loss) for loss in result.losses)
    assert result.settings["batch_size"] == 4


@pytest.mark.parametrize("form", ["tensor", "Dataset"])
def test_a_seed_repeats_a_run_and_leaves_the_global_state_alone(form):
    before = torch.get_rng_state()
    runs = [train(flow(), tiny(), FORMS[form], steps=8, batch_size=3, seed=seed, validation=DATA) for seed in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), before)
    assert runs[0].losses == runs[1].losses
    assert runs[0].validation == runs[1].validation
    assert torch.equal(weights_of(runs[0].model), weights_of(runs[1].model))
    assert runs[0].losses != runs[2].losses


def test_batches_show_every_point_once_an_epoch():
    from genmatch.training.batches import batches

    stream = batches(torch.arange(6.0).unsqueeze(-1), gm.spaces.Euclidean((1,)), 4, seed=0)
    seen = torch.cat([next(stream).x1.flatten() for _ in range(3)])
    assert seen[:6].sort().values.tolist() == seen[6:].sort().values.tolist() == list(range(6))


def test_conditions_stay_with_their_data():
    pairs = []

    class Model(TinyVector):
        def forward(self, x, t, condition):
            pairs.append(condition)
            return super().forward(x, t, condition)

    x1 = torch.tensor([[0.0], [10.0], [20.0]])
    process = flow("data")
    result = train(process, Model(), (x1, x1[:, 0] / 10), steps=400, batch_size=30, lr=1e-2)
    given = torch.tensor([0.0, 1.0, 2.0])
    out = result.model(torch.zeros(3, 1), torch.full((3,), 0.1), given)
    assert torch.allclose(out[:, 0], 10 * given, atol=2.0)
    assert len(pairs[0]) == 30


def test_the_average_of_the_weights_is_the_recursion_that_it_says():
    process, model, decay, steps = flow(), tiny(), 0.5, 4
    history = []
    original = torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        out = original(self, *args, **kwargs)
        history.append(weights_of(model))
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        result = train(process, model, DATA, steps=steps, ema=decay)
    average = history[0]
    for n, weights in enumerate(history[1:], start=1):
        keep = min(decay, (1 + n) / (10 + n))
        average = keep * average + (1 - keep) * weights
    assert torch.allclose(weights_of(result.model), average, rtol=1e-5, atol=1e-7)
    assert torch.equal(weights_of(model), history[-1])
    assert not torch.equal(weights_of(result.model), weights_of(model))
    assert not result.model.training


def test_without_averaging_the_result_is_the_last_model():
    model = tiny()
    assert torch.equal(weights_of(train(flow(), model, DATA, steps=5, ema=0.0).model), weights_of(model))


@pytest.mark.parametrize(
    ("shape", "factors"),
    [("cosine", {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 60: 0.5, 110: 0.0}), ("constant", {0: 0.1, 9: 1.0, 10: 1.0, 109: 1.0})],
)
def test_the_learning_rate_warms_up_and_cools_down(shape, factors):
    from genmatch.settings import Settings

    settings = Settings(steps=110, warmup=10, lr_schedule=shape)
    for step, factor in factors.items():
        assert settings.lr_factor(step) == pytest.approx(factor, abs=1e-12)


def test_the_optimiser_follows_the_schedule():
    rates = []
    original = torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        train(flow(), tiny(), DATA, steps=6, lr=0.1, warmup=2)
    assert rates == pytest.approx([0.1 * f for f in (0.5, 1.0, 1.0, *(0.5 * (1 + math.cos(math.pi * k / 4)) for k in (1, 2, 3)))])


def test_the_validation_loss_is_the_same_at_every_call_and_sees_no_training():
    process, model = flow(), tiny().train()
    held_out = (DATA, {})
    one, two = (validation_loss(process, model, held_out, seed=3) for _ in range(2))
    assert one == two
    assert one != validation_loss(process, model, held_out, seed=4)
    assert model.training
    frozen = train(process, model, DATA, steps=4, lr=1e-30, validate_every=2, validation=DATA).validation
    assert [step for step, _ in frozen] == [2, 4]
    assert frozen[0][1] == frozen[1][1]


def test_validation_is_a_mean_over_data_points_whatever_the_batch():
    process, model = flow("data"), lambda x, t: torch.zeros_like(x)
    assert validation_loss(process, model, (DATA, {}), size=3) == pytest.approx(float((DATA**2).mean()))


@pytest.mark.parametrize("t_min", [0.0, 1e-3, 0.2])
def test_times_cover_the_interval_evenly(t_min):
    t = low_discrepancy_times(1000, t_min, rng=seeded())
    assert t.dtype == torch.float64
    gaps = t.sort().values.diff()
    assert torch.allclose(gaps, torch.full_like(gaps, (1 - t_min) / 1000), atol=1e-12)
    assert t_min <= float(t.min()) < t_min + (1 - t_min) / 1000
    assert float(t.max()) < 1
    alone = torch.cat([low_discrepancy_times(1, t_min, rng=seeded(k)) for k in range(400)])
    assert abs(float(alone.mean()) - (1 + t_min) / 2) < 4 * (1 - t_min) / math.sqrt(12 * 400)


def test_the_loss_is_a_mean_over_coordinates_in_float32_or_better():
    process = gm.Flow(gm.paths.Gaussian((3, 2)), prediction="data")
    x1 = torch.full((5, 3, 2), 2.0)
    for dtype in (torch.bfloat16, torch.float32):
        loss = loss_on(process, lambda x, t, dtype=dtype: torch.zeros(x.shape, dtype=dtype), x1, {}, rng=seeded())
        assert loss.item() == pytest.approx(4.0)
        assert loss.dtype == torch.float32


@pytest.mark.slow
def test_a_network_learns_the_posterior_of_a_chain():
    process = chain("uniform", positions=2)
    data = torch.tensor([[0, 0], [1, 1], [2, 3], [3, 2], [0, 1]])
    torch.manual_seed(0)
    result = train(process, TinyTokens(process, width=64), data, steps=1000, batch_size=256, lr=1e-2, seed=0)
    states = process.space.enumerate()
    oracle = gm.oracle(process, data)
    for time in (0.2, 0.5, 0.8):
        t = full(time, len(states))
        exact, learned = process.mean(oracle(states, t)), process.mean(result.model(states, t.float())).detach()
        visited = torch.exp(gm.marginal.log_marginal(process, data, states, t))
        distance = (exact - learned).abs().sum(-1).mean(-1) / 2
        assert float((visited * distance).sum()) < 0.05
        flat = (exact - 0.25).abs().sum(-1).mean(-1) / 2
        assert float((visited * flat).sum()) > 0.2, "a network that knows nothing is far"


class Pull(gm.MarkovProcess):
    """A user's process: a flow on straight lines, with the pull to the data as its statistic."""

    kinds = frozenset({"drift"})

    def __init__(self):
        self.path = gm.paths.Gaussian((1,))

    def target(self, x, t, x1, *, x0=None):
        return x1 - x

    def generator(self, output, x, t):
        return Drift(output / (1 - t).to(x.dtype).unsqueeze(-1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "process", [flow("velocity"), gm.Diffusion(gm.paths.Gaussian((1,)), noise=lambda t: torch.sqrt(2 * (1 - t))), Pull()], ids=["flow", "diffusion", "user"]
)
def test_one_loop_learns_every_process(process):
    """The learned prediction against the exact posterior mean on the states that the path visits."""
    torch.manual_seed(0)
    result = train(process, TinyVector(width=64), DATA, steps=800, batch_size=256, lr=5e-3, seed=0)
    oracle, error, spread = gm.oracle(process, DATA), 0.0, 0.0
    for time in (0.1, 0.4, 0.7):
        t = full(time, 2000)
        x = process.path.sample(DATA.repeat(500, 1), t, rng=seeded())
        exact, learned = oracle(x, t), result.model(x, t.float()).detach()
        error, spread = error + float(((exact - learned) ** 2).mean()), spread + float(exact.var())
    assert error < 0.1 * spread
    x = gm.sample(process, result.model, 2000, steps=64, seed=0)
    assert abs(float((x > 0).float().mean()) - 0.75) < 0.15


def test_a_loss_that_stops_being_finite_raises():
    class Fragile(TinyVector):
        calls = 0

        def forward(self, x, t, condition=None):
            self.calls += 1
            return super().forward(x, t) * (math.nan if self.calls > 3 else 1.0)

    with pytest.raises(gm.GenmatchError, match=r"loss is nan at step 3 on process 0: .*lower `lr` \(now 0.001\) or check the data"):
        train(flow(), Fragile(), DATA, steps=10)


class Wrong(TinyVector):
    def forward(self, x, t, condition=None):
        return super().forward(x, t).repeat(1, 2)


class Endless(IterableDataset):
    def __iter__(self):
        yield DATA[0]


BAD_RUNS = [
    ({"model": Wrong()}, r"model's output must have shape \(4, 1\) .*got \(4, 2\); build the network with `process.output_shape`"),
    ({"model": lambda x, t: x}, "`model` must be a torch.nn.Module to be trained, got function"),
    ({"data": torch.full((4, 1), math.nan)}, "`data` must be finite, got 4 value"),
    ({"data": torch.zeros(4, 3)}, r"`data` must have shape \(B, 1\), got \(4, 3\)"),
    ({"data": "digits"}, "must be a tensor or an array, got str"),
    ({"data": Rows(torch.zeros(4, 3))}, r"shape \(B, 1\), got \(4, 3\)"),
    ({"data": Rows(torch.zeros(0, 1))}, "the data set is empty"),
    ({"data": DataLoader(TensorDataset(DATA), batch_size=8, drop_last=True)}, "gives no batch"),
    ({"data": Endless()}, "wrap it in a DataLoader"),
    ({"data": (DATA, CONDITION[:2])}, r"condition `condition` must be a tensor with one entry for each of 4 data points, got \(2,\)"),
    ({"data": (DATA, "cats")}, "`condition` must be a tensor or a dictionary of tensors, got str"),
    ({"validation": torch.full((2, 1), math.inf)}, "must be finite"),
    ({"validation": torch.zeros(2, 3)}, r"shape \(B, 1\)"),
    ({"steps": 0}, "`steps` must be a positive integer, got 0"),
    ({"steps": 2.5}, "`steps` must be a positive integer, got 2.5"),
    ({"batch_size": 0}, "`batch_size` must be a positive integer, got 0"),
    ({"lr": -1.0}, r"`lr` must be a number in \(0, inf\), got -1.0"),
    ({"lr": "fast"}, r"`lr` must be a number in \(0, inf\), got 'fast'"),
    ({"grad_clip": math.nan}, r"`grad_clip` must be a number in \(0, inf\)"),
    ({"ema": 1.0}, r"`ema` must be a number in \[0, 1\), got 1.0; 0 switches averaging off"),
    ({"warmup": -1}, r"`warmup` must be a number in \[0, inf\)"),
    ({"lr_schedule": "linear"}, "`lr_schedule` must be 'cosine' or 'constant', got 'linear'"),
    ({"seed": "one"}, "`seed` must be an integer of at most 64 bits, got 'one'"),
    ({"precision": "fp8"}, "unknown precision `fp8`"),
    ({"accumulate": 5}, r"`batch_size` = 4 cannot be cut into 5 parts"),
    ({"timeout": 0}, r"`timeout` must be a number in \(0, inf\)"),
    ({"explode": 1}, r"`explode` must be a number in \(1, inf\], got 1; infinity never stops"),
    ({"resume": True}, "`resume` needs the folder"),
    ({"checkpoint": "nowhere", "every": 0}, "`every` must be a positive integer"),
    ({"learning_rate": 1e-3}, r"unknown setting `learning_rate`.*Known: accumulate, batch_size"),
    ({"batchsize": 3}, "unknown setting `batchsize`; did you mean `batch_size`"),
]


@pytest.mark.parametrize(("change", "message"), BAD_RUNS, ids=[str(k) for k in range(len(BAD_RUNS))])
def test_what_cannot_be_trained_is_refused_before_the_first_step(change, message):
    arguments = {"model": tiny(), "data": DATA, "steps": 3, "batch_size": 4} | change
    model, data = arguments.pop("model"), arguments.pop("data")
    before = copy.deepcopy(model.state_dict()) if isinstance(model, torch.nn.Module) else {}
    with pytest.raises(gm.GenmatchError, match=message):
        train(flow(), model, data, **arguments)
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value)


def test_tokens_outside_the_vocabulary_are_refused():
    process = chain("mask")
    for data, message in ((torch.full((2, 3), 4), "got 4 .the mask is not data"), (torch.zeros(2, 3), "integer tokens.*round and pass")):
        with pytest.raises(gm.GenmatchError, match=message):
            train(process, TinyTokens(process), data, steps=1)


def test_a_bad_batch_of_a_loader_is_refused_when_it_comes():
    rows = torch.cat([torch.zeros(4, 1), torch.full((4, 1), math.nan)])
    with pytest.raises(gm.GenmatchError, match="must be finite"):
        train(flow(), tiny(), DataLoader(rows, batch_size=4), steps=5)


# Conditions that are dropped


def test_a_share_of_the_samples_loses_all_its_conditions_together():
    given = {"label": torch.arange(4000), "style": torch.ones(4000, 2), "mask": torch.ones(4000)}
    found = drop(given, {"label": -1, "style": torch.tensor([7.0, 8.0]), "other": 3}, 0.2, rng=seeded())
    lost = found["label"] == -1
    assert float(lost.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert torch.equal(found["style"][lost].unique(dim=0), torch.tensor([[7.0, 8.0]]))
    assert torch.equal(found["style"][~lost].unique(), torch.ones(1))
    assert torch.equal(found["label"][~lost], given["label"][~lost])
    assert found["mask"] is given["mask"]
    assert drop(given, None, 0.0, rng=seeded()) is given


def test_a_network_that_loses_its_label_now_and_then_knows_both_laws():
    """The label is the token; without it either is as likely, and guidance has two different calls to work with."""
    process = gm.CTMC(gm.paths.Mixture((1,), vocab_size=2))
    torch.manual_seed(0)
    model = gm.nn.MLP(process.space, process.output_shape, width=16, depth=1, labels={"label": 2})
    tokens = torch.arange(2).repeat(64)
    settings = {"steps": 120, "lr": 1e-2, "warmup": 0, "ema": 0.9, "seed": 0}
    trained = train(process, model, (tokens.unsqueeze(-1), {"label": tokens}), drop_condition=0.3, **settings).model
    x, t, label = torch.full((2, 1), 2), torch.full((2,), 0.5), torch.arange(2)
    assert trained(x, t, label=label).softmax(-1).squeeze(1).diagonal().min() > 0.95
    free = gm.guidance.classifier_free(trained, 0)(x, t, label=label).softmax(-1)
    torch.testing.assert_close(free, torch.full_like(free, 0.5), atol=0.1, rtol=0)


def test_what_stands_for_a_lost_condition_must_be_declared():
    process = gm.Flow(gm.paths.Gaussian((1,)))
    data = (torch.zeros(8, 1), torch.zeros(8))
    with pytest.raises(gm.GenmatchError, match=r"`drop_condition` needs to know.*\['condition'\]; set `model.null"):
        train(process, TinyVector(), data, steps=1, drop_condition=0.5)
    model = TinyVector()
    model.null = {"condition": -1.0}
    assert train(process, model, data, steps=1, drop_condition=0.5).model.null == model.null
    with pytest.raises(gm.GenmatchError, match="needs to know"):
        train(process, model, data[0], steps=1, drop_condition=0.5)
    with pytest.raises(gm.GenmatchError, match=r"`drop_condition` must be a number in \[0, 1\], got 2; it is a probability"):
        train(process, model, data, steps=1, drop_condition=2)
