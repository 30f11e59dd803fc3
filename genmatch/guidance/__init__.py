r"""Guidance: samples of a condition, by arithmetic on what a network says or on the rates of a process.

    classifier_free          u + w (c - u)                          a model, for every process
    classifier               p_t(x) p_t(c | x)^w                    a model, on Gaussian and mixture paths and products of them
    linear_observation       score + grad log p_t(y | x), y = A x1   a model, on Gaussian paths
    classifier_posterior     pi(v) p(c | x1_j = v, x)^w             a model, for tokens of any source
    classifier_rates         Q(y | x) [p_t(c | y) / p_t(c | x)]^w   a process, for tokens whose rates are a time reversal
    classifier_free_rates    Q_c^w Q_u^(1-w)                        a process and a model, for tokens

The first four make a model again, which samples as any other; the last two a process, whose generator is no longer affine in what
the network predicts. With the true p(c | x) and w = 1 the three with a classifier are exact; the two without are so at w = 1, the
conditional law, and at w = 0, the unconditional one. No other weight samples p_c^w p_u^(1-w): the law at each time is not the noised
version of that. An observation is exact for normal data.

Sources: "Classifier-Free Diffusion Guidance" (Ho & Salimans, 2022), https://arxiv.org/abs/2207.12598; "Unlocking Guidance for
Discrete State-Space Diffusion and Flow Models" (Nisonoff et al., 2025), https://arxiv.org/abs/2406.01572; "Simple Guidance
Mechanisms for Discrete Diffusion Models" (Schiff et al., 2025), https://arxiv.org/abs/2412.10193.
"""

from genmatch.guidance.free import classifier_free
from genmatch.guidance.observation import linear_observation
from genmatch.guidance.predictor import classifier, classifier_posterior
from genmatch.guidance.rates import classifier_free_rates, classifier_rates

__all__ = ["classifier", "classifier_free", "classifier_free_rates", "classifier_posterior", "classifier_rates", "linear_observation"]
