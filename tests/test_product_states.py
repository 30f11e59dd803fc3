"""Products: dictionary states go through the same loop, oracle, sampler and solver as tensors."""

import re

import pytest
import torch

import genmatch as gm
from genmatch.generators import KroneckerSum
from genmatch.spaces import Categorical, Euclidean, ProductSpace
from genmatch.tensors import tree_map

JOINT = gm.Product(place=gm.Flow(gm.paths.Gaussian((2,))), word=gm.CTMC(gm.paths.Mixture((3,), vocab_size=3)))
DATA = {"place": torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), "word": torch.tensor([[0, 1, 2], [2, 2, 1]])}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 11)

    def forward(self, x, t):
        out = self.layer(torch.cat([x["place"], x["word"].float(), t.unsqueeze(-1)], -1))
        return {"place": out[:, :2], "word": out[:, 2:].reshape(-1, 3, 3)}


def test_samples_agree_between_modalities_under_every_solver():
    assert gm.solvers.available(JOINT) == ["exact", "euler"]
    for solver in gm.solvers.available(JOINT):
        x = gm.sample(JOINT, gm.oracle(JOINT, DATA), 200, solver=solver, steps=64, seed=0)
        right = x["place"][:, 0] > 0
        words = DATA["word"][right.long()]
        assert float((x["word"] == words).all(-1).double().mean()) > 0.9
        assert 60 < int(right.sum()) < 140


def test_the_same_loop_trains_it():
    result = gm.train(JOINT, Net(), tree_map(lambda v: v.repeat(50, *[1] * (v.dim() - 1)), DATA), steps=200, lr=1e-2, seed=0)
    assert sum(result.losses[-20:]) < 0.7 * sum(result.losses[:20])


def test_a_wrong_part_is_named():
    class Wrong(Net):
        def forward(self, x, t):
            return {**super().forward(x, t), "word": torch.zeros(len(t), 3, 4)}

    with pytest.raises(gm.GenmatchError, match=re.escape("output['word'] must have shape (1, 3, 3)")):
        gm.sample(JOINT, Wrong(), 2, steps=2)


CHAINS = gm.Product(
    a=gm.CTMC(gm.paths.Mixture((1,), vocab_size=2)),
    b=gm.CTMC(gm.paths.Mixture((2,), vocab_size=2, source="uniform", schedule=gm.schedules.Cosine())),
)


def test_every_identity_holds_exactly_on_a_finite_product():
    report = gm.check_process(CHAINS)
    assert report.passed, str(report)
    assert report["rates"].outcome == "passed"
    assert report["forward-marginal"].tolerance <= 1e-8


def test_heads_that_see_only_their_own_modality_are_caught():
    class Blind(type(CHAINS)):
        """Averages each part over the posterior given that part alone."""

        def generator(self, output, x, t):
            alone = {}
            for name, part in self.parts.items():
                model = gm.oracle(part, DATA_CHAINS[name], WEIGHTS)
                alone[name] = part.generator(model(x[name], t), x[name], t)
            return KroneckerSum(**alone)

    report = gm.check_process(Blind(**CHAINS.parts), data=DATA_CHAINS)
    assert "forward-marginal" in {failure.id for failure in report.failures}
    assert gm.check_process(CHAINS, data=DATA_CHAINS).passed


DATA_CHAINS = {"a": torch.tensor([[0], [1], [1]]), "b": torch.tensor([[0, 0], [1, 1], [0, 1]])}
WEIGHTS = torch.tensor([1.0, 2.0, 3.0])


class BlindHeads(torch.nn.Module):
    """A network for each part that sees that part alone."""

    def __init__(self, process):
        super().__init__()
        self.nets = torch.nn.ModuleDict({name: small_net(part) for name, part in process.parts.items()})

    def forward(self, x, t):
        return {name: net(x[name], t) for name, net in self.nets.items()}


def small_net(process):
    return gm.nn.MLP(process.space, process.output_shape, width=32, depth=1)


@pytest.mark.parametrize(("make", "low", "high"), [(small_net, 0, 0.04), (BlindHeads, 0.25, 0.4)])
def test_a_trained_network_follows_the_joint_law_and_one_with_blind_heads_does_not(make, low, high):
    process = gm.Product(a=gm.CTMC(gm.paths.Mixture((1,), 2)), b=gm.CTMC(gm.paths.Mixture((2,), 2, schedule=gm.schedules.Cosine())))
    space = process.path.data_space
    law = torch.tensor([0.3, 0.02, 0.03, 0.05, 0.02, 0.1, 0.08, 0.4], dtype=torch.float64)
    rows = torch.multinomial(law, 4096, replacement=True, generator=rng())
    torch.manual_seed(0)
    data = tree_map(lambda v: v[rows], space.enumerate())
    model = gm.train(process, make(process), data, steps=250, batch_size=256, lr=5e-3, ema=0.98, warmup=20, seed=0).model
    x = gm.sample(process, model, 8000, steps=64, seed=1)
    counts = torch.bincount(space.index(x), minlength=8).double()
    assert low <= float((counts / 8000 - law).abs().sum() / 2) < high


def test_the_family_makes_the_usual_process_of_each_part():
    space = ProductSpace(pair=ProductSpace(image=Euclidean((1, 2, 2)), word=Categorical((2,), 3)), place=gm.spaces.Sphere(2))
    process = gm.processes.get("product")(space)
    assert process.path.data_space == space
    assert [type(part).__name__ for part in (*process.parts["pair"].parts.values(), process.parts["place"])] == ["Flow", "CTMC", "Flow"]
    assert process.kinds == {"product", "drift", "jump", "geodesic drift"}
    for wrong in (Euclidean((2,)), ProductSpace(word=Categorical((2,), 3, mask=True))):
        with pytest.raises(gm.GenmatchError, match="the family"):
            gm.processes.get("product")(wrong)


def test_the_rate_matrix_of_a_product_is_the_kronecker_sum():
    one, two = gm.spaces.Categorical((1,), 2), gm.spaces.Categorical((1,), 3)
    space = ProductSpace(one=one, two=two)
    x = space.enumerate()
    assert torch.equal(space.index(x), torch.arange(6))
    q1, q2 = torch.rand(2, 2, generator=rng()), torch.rand(3, 3, generator=rng())
    rates = [q - torch.diag(q.diagonal()) for q in (q1, q2)]
    parts = {}
    for (name, value), q in zip(x.items(), rates, strict=True):
        flow = q.T[value[:, 0]]
        parts[name] = gm.generators.Jump(flow.sum(-1, keepdim=True), gm.generators.Categorical(flow.log().unsqueeze(1)))
    whole = [q - torch.diag(q.sum(0)) for q in rates]
    exact = torch.kron(whole[0].contiguous(), torch.eye(3)) + torch.kron(torch.eye(2), whole[1].contiguous())
    torch.testing.assert_close(KroneckerSum(**parts).dense(space).float(), exact)


def rng():
    return torch.Generator().manual_seed(0)


def test_products_nest():
    nested = gm.Product(outer=gm.Product(place=JOINT.parts["place"], word=JOINT.parts["word"]), label=gm.CTMC(gm.paths.Mixture((1,), vocab_size=2)))
    data = {"outer": DATA, "label": torch.tensor([[0], [1]])}
    x = gm.sample(nested, gm.oracle(nested, data), 100, steps=32, seed=0)
    assert float(((x["label"][:, 0] == 1) == (x["outer"]["place"][:, 0] > 0)).double().mean()) > 0.9
    assert nested.kinds == {"product", "drift", "jump"}


def test_abilities_and_start_are_those_of_the_parts():
    late = gm.Product(a=gm.Flow(gm.paths.Gaussian((2,)), prediction="noise"), b=JOINT.parts["word"])
    assert late.t_min == late.parts["a"].t_min > 0

    class NoTransition(type(JOINT.parts["word"])):
        def supports(self, ability):
            return ability != "transition"

    assert not gm.Product(a=JOINT.parts["place"], b=NoTransition(JOINT.parts["word"].path)).supports("transition")
    assert "image: VE" in gm.Product(image=gm.Flow(gm.paths.Gaussian((2,), schedule=gm.schedules.VE()))).caveats["data"]


def test_wrong_parts_are_refused():
    with pytest.raises(gm.GenmatchError, match="at least one part"):
        gm.Product()
    with pytest.raises(gm.GenmatchError, match="must be processes"):
        gm.Product(a=gm.paths.Gaussian((2,)))
    with pytest.raises(gm.GenmatchError, match="must be paths"):
        gm.paths.Product(a=3)
    with pytest.raises(gm.GenmatchError, match="keys \\['place', 'word'\\]"):
        JOINT.path.sample({"place": torch.zeros(1, 2)}, torch.zeros(1))
    assert ProductSpace(a=Euclidean((1,)), b=Categorical((1,), 2)).cardinality == float("inf")


def test_solvers_that_add_vectors_do_not_fit_products_of_like_parts():
    flows = gm.Product(a=JOINT.parts["place"], b=JOINT.parts["place"])
    chains = gm.Product(a=JOINT.parts["word"], b=JOINT.parts["word"])
    assert gm.solvers.available(flows) == gm.solvers.available(chains) == ["exact", "euler"]
    with pytest.raises(gm.GenmatchError, match="Product has product too"):
        gm.sample(flows, gm.oracle(flows, {"a": DATA["place"], "b": DATA["place"]}), 2, solver="heun")
