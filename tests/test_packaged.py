"""The run that comes with the package: small, loadable, and better than noise."""

import torch
from click.testing import CliRunner

import genmatch as gm
from genmatch import data
from genmatch.cli import main
from genmatch.runs import load_run, packaged


def test_it_is_small_and_says_how_it_was_made():
    folder = packaged()["text"]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6
    run = load_run(folder)
    assert run.settings.data == "text"
    assert run.model.time_free


def test_its_samples_have_more_real_words_than_noise():
    run = load_run(packaged()["text"])
    words = next(figure for figure in data.get("text").figures if figure.key == "words")
    samples = gm.sample(run.process, run.model, 32, steps=32, seed=0)
    noise = torch.randint(run.view.space.vocab_size, samples.shape, generator=torch.Generator().manual_seed(0))
    shuffled = samples.flatten()[torch.randperm(samples.numel(), generator=torch.Generator().manual_seed(0))].view_as(samples)
    shares = [words.of(points, None) for points in (samples, noise, shuffled)]
    assert shares[0] > 2 * max(shares[1:])


def test_it_knows_more_than_how_frequent_characters_are():
    run = load_run(packaged()["text"])
    shares = run.view.train.flatten().bincount(minlength=run.view.space.vocab_size).double()
    single = float(torch.special.entr(shares / shares.sum()).sum() / torch.tensor(2.0).log())
    bound = gm.elbo(run.process, run.model, run.view.test[:32], draws=8, seed=0)
    assert bound.bits_per_coordinate + 4 * bound.bits_error < single - 0.4


def test_the_command_line_finds_it_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["sample"], ["sample", "text"]):
        result = CliRunner().invoke(main, [*words, "--n", "2", "--steps", "4", "--out", "found.txt"])
        assert result.exit_code == 0, result.output
        lines = (tmp_path / "found.txt").read_text().splitlines()
        assert [len(line) for line in lines] == [64, 64]
    result = CliRunner().invoke(main, ["sample", "nowhere"])
    assert result.exit_code == 1
    assert "comes with the package: text" in result.output
