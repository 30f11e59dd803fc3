r"""Infilling: what is known stays

`clamp` holds any positions from start to end. A masked chain samples the rest from its conditional law, since a revealed token says all that it ever will:

$$
p\bigl(x_{\text{free}} \mid x_{\text{known}}\bigr) \quad\text{as the steps grow} .
$$

Four texts with two fixed pieces, and below each free position how sure the four draws are of it.
"""

import torch
from picture import BLACK, BLUE, claim, panels, save, size

import genmatch as gm
from genmatch.infilling import known_tokens
from genmatch.runs import load_run, packaged

N, STEPS, SHOWN = size(256, 32), size(64, 16), 4
PIECES = ["0:KING RICHARD", "24:my lord", "48:the world"]

run = load_run(packaged()["text"])
text = gm.data.get("text")
known, _ = known_tokens(text.read, 64, at=PIECES)
x = gm.sample(run.process, run.model, N, steps=STEPS, clamp=known, seed=2)
changed = sum(int((x[:, place] != token).sum()) for place, token in known.items())
claim("known characters that changed", changed, below=1)

counts = torch.stack([torch.bincount(column, minlength=run.process.space.vocab_size) for column in x.T]).double() / N
surest = counts.amax(1)  # the share of the commonest character at each position
claim("agreement at known positions, below certainty by", 1 - surest[list(known)].min(), below=1e-12)

figure, (above, below) = panels(1, 2, width=8.4, height=1.5, title="Infilling: what is known (black) stays, what is free (blue) is drawn to fit", sharex=True)
for row, line in enumerate(text.write(x[:SHOWN])):
    for place, character in enumerate(line):
        above.text(place, -row, character, family="monospace", fontsize=9, color=BLACK if place in known else BLUE, ha="center", va="center", parse_math=False)
above.set(xlim=(-1, 64), ylim=(0.5 - SHOWN, 0.5))
above.set_axis_off()
below.bar(range(64), surest.numpy(), color=[BLACK if place in known else BLUE for place in range(64)], width=0.8)
below.set(xlabel="position", ylabel="share of the\ncommonest", ylim=(0, 1.05))
save(figure)
