r"""Where the world's airports are: points on the sphere, from a law with coasts, continents and empty oceans.

A place with latitude a and longitude b is the unit vector (cos a cos b, cos a sin b, sin a).

Source: airportsdata, https://github.com/mborsetti/airportsdata; it lists airports with an ICAO code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genmatch.data.dataset import DataSet, View
from genmatch.errors import GenmatchError
from genmatch.spaces import Euclidean, Sphere

_TRAIN, _TEST = 8000, 2000


def airports() -> DataSet:
    """Positions of 10,000 of the world's airports, as points on the sphere and as vectors in space."""
    try:
        import airportsdata
    except ImportError:
        raise GenmatchError("the airports come with airportsdata, which is not installed; run `pip install genmatch[data]`.") from None
    places = sorted({(place["lat"], place["lon"]) for place in airportsdata.load("ICAO").values()})
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[: _TRAIN + _TEST]
    points = unit_vectors(torch.tensor(places, dtype=torch.float64)[order]).float()
    sphere = View("sphere", Sphere(2), points[:_TRAIN], points[_TRAIN:], lambda x: x)
    vectors = View("vectors", Euclidean((3,)), points[:_TRAIN], points[_TRAIN:], lambda x: torch.nn.functional.normalize(x, dim=-1))
    return DataSet("airports", (sphere, vectors), _draw)


def unit_vectors(degrees: Tensor) -> Tensor:
    """Latitudes and longitudes in degrees, (B, 2), to unit vectors, (B, 3)."""
    latitude, longitude = (degrees * (math.pi / 180)).unbind(-1)
    return torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], -1)


def degrees(points: Tensor) -> Tensor:
    """Unit vectors, (B, 3), to latitudes in [-90, 90] and longitudes in [-180, 180], (B, 2); inverse of `unit_vectors`."""
    x, y, z = points.unbind(-1)
    return torch.stack([torch.atan2(z, torch.hypot(x, y)), torch.atan2(y, x)], -1) * (180 / math.pi)


def _draw(axes: Any, points: Tensor) -> None:
    """A map in which a degree of longitude is as wide as one of latitude."""
    latitude, longitude = degrees(points.cpu()).unbind(-1)
    axes.scatter(longitude.numpy(), latitude.numpy(), s=2, alpha=0.6, linewidths=0)
    axes.set(xlim=(-180, 180), ylim=(-90, 90), xticks=[], yticks=[], aspect="equal")
