r"""An image and its label, from one model

A `Product` moves each modality by a process of its own, and every head of the network sees the whole state:

$$
\mathcal L_t = \mathcal L_t^{\text{image}} + \mathcal L_t^{\text{label}}, \qquad \text{each driven by } \mathbb E[\,\cdot \mid X_t^{\text{image}}, X_t^{\text{label}}] .
$$

Trained once, it draws pairs, images of a label, and labels of an image, by what is clamped. Bold labels are not what the image shows.
"""

import torch
from picture import BLUE, ORANGE, claim, panels, save, size

import genmatch as gm

STEPS, N = size(1500, 60), size(400, 40)

view = gm.data.get("digits+label").view("image and label")
process = gm.Product(image=gm.Flow(gm.paths.Gaussian((1, 8, 8))), label=gm.CTMC(gm.paths.Mixture((1,), vocab_size=10)))
torch.manual_seed(0)
network = gm.nn.MLP(process.space, process.output_shape, width=size(256, 64), depth=3)
result = gm.train(process, network, view.train, steps=STEPS, lr=2e-3, seed=0)
model = result.model


def seen(images):
    """The label of the nearest training image, which is right for 98 % of test images."""
    return view.train["label"][torch.cdist(images.flatten(1), view.train["image"].flatten(1)).argmin(1)]


pairs = gm.sample(process, model, N, steps=32, seed=0)
wanted = torch.arange(N).unsqueeze(1) % 10
given_label = gm.sample(process, model, N, steps=32, seed=1, clamp={"label": wanted})
# Waiting costs masked tokens nothing: the label of an image is drawn once the image is clear.
test = {name: part[:N] for name, part in view.test.items()}
start, late = process.path.source(N, rng=torch.Generator().manual_seed(2)), torch.tensor([0.9, 1.0])
named = gm.simulate(process, model, start, late, clamp={"image": test["image"]}, rng=torch.Generator().manual_seed(2)).states[-1]
rows = {
    "pairs": (pairs["image"], pairs["label"], seen(pairs["image"])),
    "images of labels": (given_label["image"], given_label["label"], seen(given_label["image"])),
    "labels of images": (test["image"], named["label"], test["label"]),
}
claim("clamped labels that changed", (given_label["label"] != wanted).sum(), below=1)
claim("loss at the end, over that at the start", sum(result.losses[-20:]) / sum(result.losses[:20]), below=size(0.4, 0.9))
for name, (_, labels, truth) in size(rows, {}).items():  # a network that was hardly trained guesses
    claim(f"{name}: share that disagrees, of chance 0.9", (labels != truth).double().mean(), below=0.12)

figure, axes = panels(12, 3, width=0.72, height=0.95, title="One model draws pairs, images of a label (orange), and labels of an image (blue)")
for row, (name, (images, labels, truth)) in enumerate(rows.items()):
    for k in range(12):
        axis = axes[12 * row + k]
        axis.imshow(-images[k, 0].numpy(), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(int(labels[k]), fontsize=10, color=("black", ORANGE, BLUE)[row], fontweight="normal" if labels[k] == truth[k] else "bold")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    axes[12 * row].set_ylabel(name.replace(" of ", "\nof "), fontsize=8)
save(figure)
