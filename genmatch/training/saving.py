"""When checkpoints are written, from which one a run goes on, and who does it among several processes."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from genmatch.errors import GenmatchError, positive_integer
from genmatch.training import checkpoints
from genmatch.training.engine import Engine
from genmatch.training.state import TrainState


class Saver:
    """The policy of a run's checkpoints; the first process writes them.

    Args:
        root: the folder; None writes nothing.
        every: steps between two.
        keep: how many stay.
        resume: whether to go on from what is there.

    Raises:
        GenmatchError: if an argument does not fit.
    """

    def __init__(self, root: Path | None, every: int, keep: int, resume: bool) -> None:
        if root is None and resume:
            raise GenmatchError("`resume` needs the folder to go on from; pass `checkpoint=folder`.")
        self.root, self.resume = root, resume
        self.every, self.keep = positive_integer(every, "every"), positive_integer(keep, "keep")
        self._saved = 0

    def begin(self, state: TrainState, together: Engine) -> None:
        """Prepares the folder, and loads the newest whole checkpoint if the run is to go on.

        Args:
            state: of the training; loaded in place.
            together: the processes of the run.

        Raises:
            GenmatchError: if the folder cannot be written to, holds checkpoints of another run, or none that is whole.
        """
        if self.root is None:
            return
        step, error = -1, None
        if together.is_first:
            try:
                step = self._find(self.root, state)
            except GenmatchError as caught:
                error = caught
        together.agree(error, "looking for a checkpoint")
        step = int(together.gather(torch.tensor(step))[0])
        if step >= 0 and not together.is_first:
            try:
                state.load(checkpoints.read(self.root / f"step-{step:08d}"))
            except GenmatchError as caught:
                error = caught
        together.agree(error, "reading the checkpoint")
        self._saved = state.step

    def due(self, state: TrainState) -> bool:
        """Whether this is a step after which to save."""
        return self.root is not None and (state.step % self.every == 0 or state.step == state.settings.steps)

    def save(self, state: TrainState, together: Engine) -> None:
        """Writes a checkpoint, unless there is one of this step.

        Args:
            state: of the training.
            together: the processes of the run.

        Raises:
            GenmatchError: if it cannot be written; those before it stay.
        """
        if self.root is None or state.step == self._saved:
            return
        together.save(self.root, state.step, state.files(), state.info(), keep=self.keep)
        self._saved = state.step

    @property
    def last(self) -> str:
        """What a message says of the last checkpoint."""
        if self.root is None:
            return "no checkpoint was asked for"
        return f"the last checkpoint is that of step {self._saved} in `{self.root}`" if self._saved else f"there is no checkpoint yet in `{self.root}`"

    def _find(self, root: Path, state: TrainState) -> int:
        checkpoints.prepare(root)
        if not self.resume:
            if checkpoints.folders(root):
                raise GenmatchError(f"`{root}` holds checkpoints of a run; pass resume=True to go on with it, or choose another folder.")
            return -1
        found, refused = checkpoints.newest(root)
        if refused and found:
            warnings.warn(f"going on from step {found.step}; refused: {' '.join(refused)}", stacklevel=2)
        if found is None:
            return -1
        state.load(found)
        return found.step
