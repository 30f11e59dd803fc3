"""Masked language models of Hugging Face, small and with random weights: translated without loss, and sampled as any model."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch

import genmatch as gm

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
try:
    transformers.BertForMaskedLM  # noqa: B018 (loads what the package puts off)
except ImportError as error:
    pytest.skip(f"transformers is installed and cannot load a model, e.g. for a torchvision of another torch: {error}", allow_module_level=True)

WORDS = ["[PAD]", "the", "[MASK]", "[UNK]", "cat", "sat", "[CLS]", "on", "mat", "[SEP]", "a", "dog"]
TEXT = ["the", "cat", "sat", "on", "mat", "a", "dog"]
CONFIG = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 32, "vocab_size": 12}


@pytest.fixture(scope="module")
def tokenizer():
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special)


def bert(**changes):
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**CONFIG | changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def roberta(**changes):
    torch.manual_seed(0)
    return transformers.RobertaForMaskedLM(transformers.RobertaConfig(**CONFIG | {"pad_token_id": 0} | changes)).eval()


def distilbert(**changes):
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=32, vocab_size=12, **changes)
    return transformers.DistilBertForMaskedLM(config).eval()


@pytest.mark.parametrize("make", [bert, roberta, distilbert])
def test_states_are_translated_and_logits_are_those_of_the_text(make, tokenizer):
    lm = make()
    process, model, tokeniser = gm.hf.masked_lm(lm, length=4, tokenizer=tokenizer)
    assert process.space == gm.spaces.Categorical((4,), 7, mask=True)
    x = torch.tensor([[0, 7, 2, 7], [7, 7, 7, 6]])
    numbers = tokenizer.convert_tokens_to_ids(["[CLS]", "the", "[MASK]", "sat", "[MASK]", "[SEP]"])
    logits = lm(input_ids=torch.tensor([numbers])).logits[:, 1:5][..., tokenizer.convert_tokens_to_ids(TEXT)]
    torch.testing.assert_close(model(x, torch.zeros(2))[:1], logits, atol=1e-5, rtol=1e-5)
    assert model.time_free
    assert tokeniser.decode(tokeniser.encode("the cat sat")) == "the cat sat"
    # The split gives the same, and a copy does not lean on the original.
    twin = copy.deepcopy(model)
    model.lm = None
    known = twin.features(x, torch.zeros(2))
    assert known.shape == (2, 4, 16)
    torch.testing.assert_close(twin.head(known.flatten(0, 1)).view(2, 4, 7), twin(x, torch.zeros(2)), atol=1e-5, rtol=1e-5)


def test_a_folder_is_loaded_with_its_tokenizer(tmp_path, tokenizer):
    lm = bert()
    lm.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    process, model, tokeniser = gm.hf.masked_lm(tmp_path, length=5)
    _, here, _ = gm.hf.masked_lm(lm, length=5, tokenizer=tokenizer)
    x = process.path.source(2)
    torch.testing.assert_close(model(x, torch.zeros(2)), here(x, torch.zeros(2)))
    words = [tokeniser.decode(row) for row in gm.sample(process, model, 3, steps=3, seed=0)]
    assert set(" ".join(words).split()) <= set(TEXT)
    for folder, message in ((tmp_path / "nothing", "holds no model"), (tmp_path / "bad", "cannot load")):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "config.json").write_text("{}")
        with pytest.raises(gm.GenmatchError, match=message):
            gm.hf.masked_lm(folder, length=5)


def test_every_sampler_infills_and_never_draws_a_special_token(tokenizer):
    process, model, tokeniser = gm.hf.masked_lm(bert(), length=6, tokenizer=tokenizer)
    clamp = dict(zip((0, 2), tokeniser.encode("the sat").tolist(), strict=True))
    names = gm.solvers.available(process)
    assert {"exact", "first-hitting", "confidence", "remdm"} <= set(names)
    for name in names:
        x = gm.sample(process, model, 3, steps=3, solver=name, seed=0, clamp=clamp)
        assert x[:, [0, 2]].tolist() == [[0, 2]] * 3, name
        assert tokeniser.decode(x[0]).split()[0] == "the"


def test_the_bound_is_that_of_the_same_network_written_out(tokenizer):
    process, model, tokeniser = gm.hf.masked_lm(bert(), length=4, tokenizer=tokenizer)
    x1 = tokeniser.encode("the cat sat on").unsqueeze(0)
    found = gm.elbo(process, model, x1, draws=4000, seed=0)
    exact = torch.stack([nats(model, x1, order) for order in itertools.permutations(range(4))]).mean()
    assert abs(found.mean - float(exact)) < 4 * found.mean_error < 0.2
    assert found.kind.startswith("tight upper bound")


def nats(model, x1, order):
    """-log probability of the tokens revealed in that order: its mean over orders is the bound."""
    x, total = torch.full_like(x1, model.ids.numel()), torch.zeros(())
    with torch.no_grad():
        for j in order:
            total = total - model(x, torch.zeros(1)).log_softmax(-1)[0, j, x1[0, j]]
            x[0, j] = x1[0, j]
    return total


def test_attention_masks_are_passed_on_and_hide_what_they_say(tokenizer):
    process, model, _ = gm.hf.masked_lm(bert(), length=4, tokenizer=tokenizer)
    x, mask = torch.tensor([[0, 7, 1, 2], [0, 7, 1, 5]]), torch.tensor([[1, 1, 1, 0]]).expand(2, 4)
    seen, hidden = model(x, torch.zeros(2)), model(x, torch.zeros(2), attention_mask=mask)
    assert not torch.allclose(seen[0, 1], seen[1, 1])
    torch.testing.assert_close(hidden[0, :3], hidden[1, :3])
    drawn = gm.sample(process, model, 2, steps=2, seed=0, condition={"attention_mask": mask})
    assert drawn.shape == (2, 4)


class Shifted(torch.nn.Module):
    """A module of no library: its logits at a position are its input there, as a model says of the next token."""

    def forward(self, input_ids):
        return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids, 6).float())


@pytest.mark.parametrize("prefix", [(), (4,)])
def test_logits_of_the_next_position_are_shifted(prefix):
    process, model, tokeniser = gm.hf.masked_lm(Shifted(), length=3, mask_id=5, exclude=[0], prefix=prefix, shift=True)
    assert tokeniser is None
    assert not hasattr(model, "features")
    assert process.space.vocab_size == 4
    # Our tokens are its 1 to 4: 0, 1, 2 are its 1, 2, 3.
    said = model(torch.tensor([[0, 1, 2]]), torch.zeros(1)).argmax(-1)[0].tolist()
    assert said == [3 if prefix else 0, 0, 1]


def test_a_model_that_does_more_after_its_embedding_is_not_split(tokenizer):
    class Capped(transformers.BertForMaskedLM):
        def forward(self, *arguments, **named):
            output = super().forward(*arguments, **named)
            output.logits = torch.tanh(output.logits)
            return output

    torch.manual_seed(0)
    lm = Capped(transformers.BertConfig(**CONFIG)).eval()
    _, model, _ = gm.hf.masked_lm(lm, length=3, tokenizer=tokenizer)
    assert not hasattr(model, "features")
    assert bool((model(torch.full((1, 3), 7), torch.zeros(1)).abs() <= 1).all())


def test_kept_and_excluded_tokens_and_rows_that_the_tokenizer_does_not_know(tokenizer):
    process, _, tokeniser = gm.hf.masked_lm(bert(vocab_size=20), length=3, tokenizer=tokenizer, keep=[9])
    assert process.space.vocab_size == 8
    assert tokeniser.decode(tokeniser.encode("cat [SEP]")) == "cat [SEP]"
    _, _, plain = gm.hf.masked_lm(bert(), length=3, tokenizer=tokenizer)
    with pytest.raises(gm.GenmatchError, match=r"token 1 of the text, '\[SEP\]', is special"):
        plain.encode("cat [SEP]")
    with pytest.raises(gm.GenmatchError, match=r"from 0 to 6, got 7 \(the mask\)"):
        plain.decode([7])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0, "mask_id": 5}, "`length` must be a positive integer"),
        ({"length": 3}, "which token is the mask is not known"),
        ({"length": 3, "mask_id": 5, "keep": [9]}, "from 0 to 5, got 9"),
        ({"length": 3, "mask_id": 5, "exclude": range(6)}, "none is left to draw"),
    ],
)
def test_a_wrong_request_is_named(arguments, message):
    with pytest.raises(gm.GenmatchError, match=message):
        gm.hf.masked_lm(Shifted(), **arguments)


class Unnamed(torch.nn.Module):
    def forward(self, input_ids):
        return input_ids


def test_a_module_without_logits_is_named():
    with pytest.raises(gm.GenmatchError, match=r"must return `.logits`"):
        gm.hf.masked_lm(Unnamed(), length=3, mask_id=5)


def test_without_transformers_a_folder_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(gm.GenmatchError, match=r"genmatch\[hf\]"):
        gm.hf.masked_lm(tmp_path, length=3)
