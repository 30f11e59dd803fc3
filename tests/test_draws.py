"""The numbers of a step depend on the seed, the step and the data point, and on nothing else."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import genmatch as gm
from genmatch import draws
from genmatch.models import Predictor
from genmatch.training.batches import batches
from genmatch.training.objectives import OBJECTIVES
from tests.toys import TinyTokens, TinyVector, chain, seeded, token_data

SPACE = gm.spaces.Euclidean((1,))
POINTS = torch.arange(10.0).unsqueeze(-1)


def taken(stream, n):
    return [batch.x1.flatten().tolist() for batch in itertools.islice(stream, n)]


def test_steps_of_a_purpose_never_share_a_seed():
    keys = {draws.key(3, "noise", step) for step in range(20_000)}
    assert len(keys) == 20_000
    assert len({key >> 20 for key in keys}) > 3800, "they are spread over all of the 4096 high parts"
    assert draws.key(3, "noise", 5) not in (draws.key(4, "noise", 5), draws.key(3, "order", 5))


def test_a_generator_is_the_same_whatever_was_drawn_before():
    first = torch.rand(3, generator=draws.rng(0, "a", 7))
    torch.rand(100, generator=draws.rng(0, "a", 6))
    assert torch.equal(first, torch.rand(3, generator=draws.rng(0, "a", 7)))


def test_global_generators_are_seeded_for_a_block_only():
    before = torch.get_rng_state()
    with draws.globally(0, "a", 1):
        one = torch.rand(2)
    with draws.globally(0, "a", 1):
        assert torch.equal(one, torch.rand(2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("n", "size"), [(10, 4), (10, 10), (3, 8), (7, 1)])
def test_an_order_shows_every_point_once_an_epoch_from_any_step(n, size):
    order = draws.Order(n, size, seed=1)
    steps = 3 * n
    flat = torch.cat([order.batch(step) for step in range(steps)])
    for epoch in flat[: len(flat) // n * n].view(-1, n):
        assert epoch.sort().values.tolist() == list(range(n))
    assert not torch.equal(flat[:n], flat[n : 2 * n]) or n < 4
    late = draws.Order(n, size, seed=1).batch(steps - 1)
    assert torch.equal(late, order.batch(steps - 1))


class Drawing(Dataset):
    """A data set that augments by the global generator, as torchvision's do."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return POINTS[i] + torch.rand(1) / 2


FORMS = {
    "tensor": lambda: POINTS,
    "Dataset": lambda: TensorDataset(POINTS),
    "Dataset that draws": Drawing,
    "DataLoader": lambda: DataLoader(TensorDataset(POINTS), batch_size=3),
    "shuffled DataLoader": lambda: DataLoader(TensorDataset(POINTS), batch_size=3, shuffle=True),
    "DataLoader with a generator": lambda: DataLoader(TensorDataset(POINTS), batch_size=3, shuffle=True, generator=seeded(4)),
    "DataLoader that draws": lambda: DataLoader(Drawing(), batch_size=3, shuffle=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_from_a_later_step_is_the_rest_of_the_stream(form):
    whole = taken(batches(FORMS[form](), SPACE, 3, seed=2), 9)
    torch.rand(5)
    assert taken(batches(FORMS[form](), SPACE, 3, seed=2, start=5), 4) == whole[5:]
    assert len({tuple(sorted(batch)) for batch in whole}) > 3


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(
    "process", [chain("mask"), chain("uniform"), gm.Diffusion(gm.paths.Gaussian((1,))), gm.processes.Autoregressive(gm.paths.Sequential(3, 4))], ids=str
)
def test_the_loss_of_the_parts_of_a_draw_is_that_of_the_whole(process, name):
    """What makes processes and accumulation agree; a loss that looks across rows would fail it."""
    tokens = process.kinds == {"jump"}
    x1 = token_data()[::7] if tokens else torch.linspace(-1, 1, 10, dtype=torch.float64).unsqueeze(-1)
    model = (TinyTokens(process) if tokens else TinyVector()).double()  # in float32 a row's output depends on the rows beside it
    objective = OBJECTIVES[name]
    drawn = objective.draw(process, x1, {}, seeded(1))
    with torch.no_grad():

        def predict(x, t):
            return Predictor(process, model).for_loss(x, t)

        whole = objective.cost(process, predict, drawn)
        for parts in (2, 3):
            for part in range(parts):
                rows = slice(part, None, parts)
                torch.testing.assert_close(objective.cost(process, predict, drawn.part(rows)), whole[rows], rtol=1e-9, atol=1e-9)


def test_every_part_has_times_from_everywhere():
    drawn = OBJECTIVES["divergence"].draw(gm.Flow(gm.paths.Gaussian((1,))), torch.zeros(64, 1), {}, seeded())
    for part in range(4):
        gaps = drawn.part(slice(part, None, 4)).t.sort().values.diff()
        assert torch.allclose(gaps, torch.full_like(gaps, 1 / 16), atol=1e-12)


class Dropping(TinyVector):
    """A network with dropout, which draws from the global generator."""

    def forward(self, x, t, condition=None):
        return torch.nn.functional.dropout(super().forward(x, t), 0.5, self.training)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_leaves_the_losses_as_they_are(accumulate):
    process = gm.Flow(gm.paths.Gaussian((1,), coupling=gm.couplings.OptimalTransport()))
    runs = []
    for parts in (1, accumulate):
        torch.manual_seed(0)
        runs.append(gm.train(process, TinyVector().double(), POINTS.double() / 10, steps=12, batch_size=8, accumulate=parts, lr=1e-2, warmup=2))
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=1e-6)
    for one, two in zip(*(run.model.parameters() for run in runs), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-8)


def test_dropout_is_a_matter_of_the_seed_too():
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        model = Dropping()
        torch.rand(len(runs))
        runs.append(gm.train(gm.Flow(gm.paths.Gaussian((1,))), model, POINTS / 10, steps=5, batch_size=4).losses)
    assert runs[0] == runs[1]


def test_autocast_trains_with_losses_in_float32():
    torch.manual_seed(0)
    seen = []

    class Watching(TinyVector):
        def forward(self, x, t, condition=None):
            out = super().forward(x, t)
            seen.append((t.dtype, out.dtype))
            return out

    result = gm.train(gm.Flow(gm.paths.Gaussian((1,))), Watching(), POINTS / 10, steps=3, batch_size=8, precision="bf16", seed=0)
    torch.manual_seed(0)
    exact = gm.train(gm.Flow(gm.paths.Gaussian((1,))), TinyVector(), POINTS / 10, steps=3, batch_size=8, seed=0)
    assert seen[-1] == (torch.float32, torch.bfloat16)
    assert result.losses == pytest.approx(exact.losses, rel=0.02)
    assert result.losses != exact.losses
    assert all(p.dtype == torch.float32 for p in result.model.parameters())
