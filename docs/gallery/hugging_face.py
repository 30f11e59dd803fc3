r"""A masked language model of Hugging Face: one law for each order of reading

Any masked language model is the posterior network of a masked chain. Reading a text in one order $\pi$ after another gives it a law,

$$
p_\pi(x) = \prod_k p\bigl(x_{\pi_k} \mid x_{\pi_1}, \dots, x_{\pi_{k-1}}, \text{masks}\bigr),
$$

and nothing makes the laws of two orders agree, since the model was trained on conditionals and not on a joint law. The chain reveals in random order: its law is the mean over
all orders. A BERT with random weights, three tokens of three kinds, everything listed.
"""

import itertools

import torch
from picture import BLUE, GREY, ORANGE, claim, panels, save, size
from transformers import BertConfig, BertForMaskedLM

import genmatch as gm

N, L, V = size(100_000, 4000), 3, 3

torch.manual_seed(1)
config = BertConfig(vocab_size=5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, initializer_range=0.4)
process, model, _ = gm.hf.masked_lm(BertForMaskedLM(config), length=L, mask_id=4, exclude=[0])
MASK = V  # ours is the state after the last token

words = torch.tensor(list(itertools.product(range(V), repeat=L)))


def law(order):
    """The probability of each text, if its positions are read in this order, (V^L,)."""
    x, total = torch.full_like(words, MASK), torch.zeros(len(words), dtype=torch.float64)
    for place in order:
        with torch.no_grad():
            said = model(x, torch.zeros(len(x)))[:, place].double().log_softmax(-1)
        total += said.gather(1, words[:, place : place + 1]).squeeze(1)
        x[:, place] = words[:, place]
    return total.exp()


model.eval()
laws = torch.stack([law(order) for order in itertools.permutations(range(L))])
mean = laws.mean(0)
claim("largest distance of the sum of a law from 1", (laws.sum(1) - 1).abs().max(), below=1e-6)
claim("largest total variation between two orders", torch.cdist(laws, laws, p=1).max() / 2, above=0.05)
x = gm.sample(process, model, N, solver="first-hitting", steps=1, seed=0)
drawn = torch.bincount(process.path.data_space.index(x), minlength=len(words)).double() / N
claim("total variation of the samples from the mean over orders", (drawn - mean).abs().sum() / 2, below=(len(words) / N) ** 0.5)
alone = gm.sample(process, model, N, solver="left-to-right", steps=L, seed=0)
read = torch.bincount(process.path.data_space.index(alone), minlength=len(words)).double() / N
claim("total variation of left-to-right from the law of its order", (read - laws[0]).abs().sum() / 2, below=(len(words) / N) ** 0.5)

figure, (axis,) = panels(1, width=7.6, height=3.2, title="A masked language model has a law for each order; random order samples their mean")
rank = mean.argsort(descending=True)
places = torch.arange(len(words))
for one in laws:
    axis.plot(places, one[rank], "_", color=GREY, markersize=8, label="each of six orders")
axis.plot(places, mean[rank], "_", color=BLUE, markersize=12, markeredgewidth=2.5, label="their mean")
axis.plot(places, drawn[rank], ".", color=ORANGE, markersize=5, label=f"{N} samples in random order")
handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
axis.legend(handles.values(), handles.keys(), frameon=False, fontsize=8)
axis.set(xlabel="text", ylabel="probability", xticks=places, xticklabels=["".join("abc"[v] for v in word) for word in words[rank]], ylim=(0, None))
axis.tick_params(axis="x", rotation=90, labelsize=7)
save(figure)
