"""Where a comparison measures: the features of one fixed classifier, or those that the data set names.

The classifier is trained on the real training images once for a comparison, with a fixed seed, and is the same for every
process in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from genmatch.data.dataset import DataSet, Features, whole
from genmatch.files import write_tensors
from genmatch.reprs import described


@dataclass(frozen=True)
class Measure:
    """What is seen of a batch of points.

    Attributes:
        features: (B, F), float64.
        probabilities: of the classes, (B, C), float64; None without a classifier.
    """

    features: Tensor
    probabilities: Tensor | None

    __repr__ = described


class Extractor:
    """Points to features: of a classifier trained on labelled images, or those of the data set.

    Attributes:
        features: of the data set.
        classifier: the network, or None.
        classified: what the classifier sees of the points.
        description: what the features are, for the report.
    """

    def __init__(
        self, features: Features, classifier: nn.Module | None = None, description: str | None = None, classified: Callable[[Tensor], Tensor] = whole
    ) -> None:
        self.features = features
        self.classifier = classifier
        self.description = description or features.description
        self.classified = classified

    def __call__(self, points: Tensor) -> Measure:
        """Features, and class probabilities where there is a classifier, of points (B, ...)."""
        if self.classifier is None:
            return Measure(self.features.of(points), None)
        with torch.no_grad():
            features, logits = self.classifier(self.classified(points))
        return Measure(features.double(), logits.double().softmax(-1))


class Classifier(nn.Module):
    """A small convolutional network; its last hidden layer is the feature space."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 64) -> None:
        super().__init__()
        channels = shape[0]
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(width),
            nn.Tanh(),
        )
        self.head = nn.Linear(width, classes)
        self.body(torch.zeros(1, *shape))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, width) and logits (B, C) of images (B, C, H, W)."""
        features = self.body(points)
        return features, self.head(features)


def make_extractor(data: DataSet, *, path: Path | None = None, epochs: int = 30, seed: int = 0) -> Extractor:
    """The classifier of a labelled data set of images, trained or loaded; the features that it names for other points.

    Args:
        data: the data set.
        path: where the classifier's weights are kept, so that figures measured later are measured by the same one.
        epochs: passes over the training images.
        seed: of the weights and the order of the images.
    """
    train, test = data.classified(data.train), data.classified(data.test)
    if data.labels is None or train.dim() != 4:
        return Extractor(data.features)
    labels, test_labels = data.labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Classifier(tuple(train.shape[1:]), int(labels.max()) + 1)
        if path is not None and path.exists():
            network.load_state_dict(load_file(path))
        else:
            _fit(network, train, labels, epochs)
    if path is not None:
        write_tensors(path, network.state_dict())
    network.eval()
    with torch.no_grad():
        accuracy = float((network(test)[1].argmax(-1) == test_labels).double().mean())
    description = f"64 features of a classifier trained on the real training images ({accuracy:.1%} right on the test images)"
    return Extractor(data.features, network, description, data.classified)


def _fit(network: Classifier, images: Tensor, labels: Tensor, epochs: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            loss = nn.functional.cross_entropy(network(images[rows])[1], labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
