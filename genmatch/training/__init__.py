"""Training: one loop for every process, on one device or many, which goes on after any stop as if there had been none."""

from genmatch.training.loop import TrainResult, loss_on, train, validation_loss

__all__ = ["TrainResult", "loss_on", "train", "validation_loss"]
