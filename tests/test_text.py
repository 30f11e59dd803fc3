"""Text: tokens and back without loss, fixed splits, figures that tell text from noise and from copies, and a report."""

import json
import math

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import genmatch as gm
from genmatch.cli import main
from genmatch.compare import Plan, compare
from genmatch.data.corpus import packaged, windows
from genmatch.data.text_figures import differences, distinct, figures, pairs, share_copied, share_known, token_entropy
from genmatch.data.tokenisers import BPE, TOKENISERS, Bytes, Vocabulary, characters, make_tokeniser, words
from genmatch.errors import GenmatchError

SPEECH = "To be, or not to be: that is the question.\nWhether 'tis nobler\tin the mind -- né à Elsinore?\r\n"


@pytest.mark.parametrize("name", ["characters", "bytes", "words"])
@given(text=st.text(max_size=60))
@settings(max_examples=50, deadline=None)
def test_any_text_comes_back(name, text):
    tokeniser = make_tokeniser(name, text or "x")
    tokens = tokeniser.encode(text)
    assert tokens.dtype == torch.int64
    assert tokeniser.decode(tokens) == text
    assert not len(tokens) or int(tokens.max()) < tokeniser.vocab_size


@pytest.mark.parametrize("name", ["characters", "bytes", "words"])
def test_the_packages_text_comes_back(name):
    text = packaged()
    tokeniser = make_tokeniser(name, text)
    assert tokeniser.decode(tokeniser.encode(text)) == text


def test_byte_pairs_come_back_and_are_fewer_than_bytes(tmp_path):
    pytest.importorskip("tokenizers")
    text = packaged()[:20_000]
    tokeniser = BPE.train(text, 400)
    assert tokeniser.vocab_size == 400
    assert len(tokeniser.encode(text)) < 0.6 * len(text)
    for sample in (text, SPEECH, "", "  two  spaces ", "ελληνικά"):
        assert tokeniser.decode(tokeniser.encode(sample)) == sample
    tokeniser.model.save(str(tmp_path / "bpe.json"))
    assert torch.equal(BPE(tmp_path / "bpe.json").encode(SPEECH), tokeniser.encode(SPEECH))
    with pytest.raises(GenmatchError, match="cannot be read as a tokeniser"):
        BPE(tmp_path / "nothing.json")
    with pytest.raises(GenmatchError, match="at least 256"):
        BPE.train(text, 100)


def test_byte_pairs_without_the_package_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(GenmatchError, match=r"genmatch\[text\]"):
        BPE.train("text", 300)


def test_words_keep_the_space_before_them():
    tokeniser = words(SPEECH)
    assert [tokeniser.pieces[i] for i in tokeniser.encode("To be, or not\n")] == ["To", " be", ",", " or", " not", "\n"]
    assert " be" in tokeniser.pieces
    assert words("a b a a b c", vocab_size=2).pieces == (" b", " a")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: characters("abc").encode("abxba"), "unknown character 'x' at position 2 .*has 3 of them"),
        (lambda: words("to be or").encode("to be and or"), "unknown word ' and' at position 5"),
        (lambda: characters("abc").decode([0, 3]), "from 0 to 2, got 3 at position 1 .the mask is not text"),
        (lambda: Bytes().decode([-1]), "from 0 to 255, got -1 at position 0"),
        (lambda: characters("abc").decode([0.5]), "integers"),
        (lambda: characters(b"abc"), "takes text, got bytes"),
        (lambda: Vocabulary("aba"), "'a' twice"),
        (lambda: Vocabulary(""), "got none"),
        (lambda: make_tokeniser("wrods", ""), "did you mean `words`"),
        (lambda: gm.data.text("missing.txt"), "cannot be read: No such file"),
        (lambda: gm.data.text(length=1_000_000), "too short"),
        (lambda: gm.data.text(held_out=1.5), r"`held_out` must be a number in \(0, 1\).*it is a share"),
        (lambda: gm.data.get("digits:8"), "`digits` takes no argument, got `8`"),
        (lambda: gm.data.get("digits:size=8"), "is given `size`, and has the options none"),
        (lambda: gm.data.get("text:tokenizer=words"), "is given `tokenizer`, and has the options tokeniser, length, held_out; write e.g."),
        (lambda: gm.data.get("text:tokeniser=word"), "unknown tokeniser `word`; did you mean `words`"),
        (lambda: gm.data.get("text:tokeniser=bpe-9"), "at least 256, one for each byte, got 9"),
        (lambda: gm.data.get("text:length=long"), "the option length of text:length=long must be of type int, such as 64, got 'long'"),
        (lambda: gm.data.get("text:length=8,length=9"), "given `length` twice"),
        (lambda: gm.data.get("text:missing.txt"), "cannot be read"),
        (lambda: gm.data.get("text:"), "ends with the colon"),
        (lambda: gm.data.get("/dev/null"), "pass `text:/dev/null` if it is text"),
        (lambda: gm.data.get("/dev"), "is a folder; make a data set of its images with `genmatch prepare /dev"),
        (lambda: gm.data.get("text:/dev/null"), "is empty"),
    ],
)
def test_wrong_requests_name_what_is_wrong(call, message):
    with pytest.raises(GenmatchError, match=message):
        call()


def test_bytes_that_are_no_text_are_marked():
    assert Bytes().decode([0xC3, 0x41]) == "\ufffdA"


def test_a_corpus_is_the_file_in_order_the_end_held_out(tmp_path):
    path = tmp_path / "speech.txt"
    path.write_text(SPEECH * 40, encoding="utf-8", newline="")
    data = gm.data.get(f"text:{path}")
    content = path.read_text(encoding="utf-8")
    view, code = data.views[0], characters(content)
    cut = round(0.9 * len(content))
    assert code.decode(view.train.flatten()) == content[: cut // 64 * 64]
    assert code.decode(view.test.flatten()) == content[cut:][: (len(content) - cut) // 64 * 64]
    assert view.space == gm.spaces.Categorical((64,), code.vocab_size)
    assert data.unit == "character"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(GenmatchError, match="not UTF-8 at byte 0"):
        gm.data.text(path)


@pytest.mark.parametrize("name", ["bytes", "words"])
def test_other_tokens_make_other_windows(name):
    data = gm.data.text(tokeniser=name, length=16)
    assert data.views[0].space.vocab_size == TOKENISERS[name](packaged()).vocab_size
    assert data.write(data.views[0].train[:1])[0].startswith("First Citizen:")
    assert data.unit == "token"
    assert data.features.of(data.test).isfinite().all()


def test_a_name_says_the_tokeniser_and_the_length(tmp_path):
    path = tmp_path / "a, b.txt"
    path.write_text(SPEECH * 40, encoding="utf-8")
    data = gm.data.get(f"text:{path},tokeniser=bytes,length=16")
    assert data.views[0].space == gm.spaces.Categorical((16,), 256)
    assert data.write(data.views[0].train[:1])[0].startswith(SPEECH[:8])
    assert gm.data.get(f"text:{path}").views[0].space.shape == (64,)
    assert gm.data.get("text:tokeniser=words,length=8").unit == "token"


def test_byte_pairs_of_a_size():
    pytest.importorskip("tokenizers")
    assert make_tokeniser("bpe-300", SPEECH * 10).vocab_size <= 300


def test_windows_drop_the_rest():
    assert windows(torch.arange(3), 5).shape == (0, 5)


def test_figures_tell_text_from_noise_and_from_copies():
    data = gm.data.text()
    view = data.views[0]
    rng = torch.Generator().manual_seed(0)
    noise = torch.randint(view.space.vocab_size, (300, 64), generator=rng)
    shuffled = view.train.flatten()[torch.randperm(view.train.numel(), generator=rng)][: 300 * 64].reshape(300, 64)
    rows = {"train": view.train[:300], "test": view.test[:300], "noise": noise, "shuffled": shuffled}
    found = {name: {figure.key: figure.of(points, None) for figure in data.figures} for name, points in rows.items()}
    assert found["train"]["copied"] == found["train"]["words"] == 1
    assert found["test"]["copied"] < 0.05
    assert 0.8 < found["test"]["words"] < 1
    assert found["noise"]["words"] < 0.2 > found["shuffled"]["words"]
    assert found["noise"]["entropy"] == pytest.approx(math.log2(62), abs=0.01)
    assert found["shuffled"]["entropy"] == pytest.approx(found["train"]["entropy"], abs=0.1)
    assert found["noise"]["distinct"] > 0.99 > 0.6 > found["test"]["distinct"]


def test_figures_by_hand():
    assert token_entropy(torch.zeros(2, 3, dtype=torch.int64)) == 0
    assert distinct(torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])) == 0.5
    assert share_known(["cut to be cut"], {"to"}) == 0.5
    assert share_known([""], {"to"}) == 0
    assert share_copied(["x" * 25, "short"], {"x" * 24}) == 1
    train = torch.tensor([[0, 1, 0, 1, 0, 2]])
    features = pairs(train, 2)
    assert sorted(features.of(torch.tensor([[0, 1, 0, 9, 9, 9]]))[0].tolist()) == [1, 1]
    a, b = torch.randint(3, (4, 5)), torch.randint(3, (6, 5))
    assert torch.equal(differences(a, b), (a.unsqueeze(1) != b).sum(-1).float())
    assert [figure.key for figure in figures(characters("ab"), "ab")] == ["entropy", "distinct", "words", "copied"]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "speech.txt"
    path.write_text(SPEECH * 40, encoding="utf-8")
    return path


def test_a_comparison_of_text_has_bits_with_their_kind(speech, tmp_path):
    plan = Plan(data=f"text:{speech}", processes=("mask", "uniform"), steps=3, batch_size=8, width=16, depth=1, nfe=(1,))
    comparison = compare(plan, tmp_path)
    found = {family.name: family.likelihood for family in comparison.families}
    assert {name: value["tight"] for name, value in found.items()} == {"mask": True, "uniform": False}
    assert abs(found["mask"]["bits"] - math.log2(gm.data.text(speech).views[0].space.vocab_size)) < 0.5  # hardly trained
    page = (tmp_path / "report.html").read_text()
    for piece in ("bits a character", "loose bound", "tight bound", "real words", "distinct 4-grams", "In full", f"{found['mask']['bits']:.3f}"):
        assert piece in page, piece
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["families"][0]["likelihood"] == found["mask"]
    assert set(saved["floor"]) >= {"entropy", "distinct", "words", "copied"}


def test_data_without_a_unit_has_no_likelihoods(tmp_path):
    plan = Plan(data="tests.plugins:blobs", processes=("diffusion",), steps=2, batch_size=8, width=16, depth=1, nfe=(1,))
    assert compare(plan, tmp_path).families[0].likelihood is None
    assert "Likelihood" not in (tmp_path / "report.html").read_text()


def test_a_run_on_text_writes_lines(speech, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments])

    small = ["--steps", 2, "--batch-size", 8, "--width", 16, "--depth", 1]
    assert run("train", "--process", "mask", "--data", f"text:{speech}", "--out", tmp_path / "run", *small).exit_code == 0
    result = run("sample", tmp_path / "run", "--n", 3, "--steps", 2, "--out", tmp_path / "x.txt")
    assert result.exit_code == 0, result.output
    assert [len(line) for line in (tmp_path / "x.txt").read_text(encoding="utf-8").splitlines()] == [64, 64, 64]
    assert run("sample", tmp_path / "run", "--n", 3, "--steps", 2, "--out", tmp_path / "x.png").exit_code == 0
