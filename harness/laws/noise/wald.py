"""Whether contrasts of the rows differ from 0 by more than noise. Shapes: C contrasts, R rows, G shares."""

import numpy as np
from scipy import special

from harness.laws.forms import Array
from harness.laws.noise.noise import Components, Noise, Wild, sums
from harness.laws.noise.pairs import Paired


def p_value(noise: Noise, contrast_CR: Array, value_C: Array) -> float:
    """Of the hypothesis that the contrasts, whose values these are, are 0: F, over what the residuals say of shares."""
    weight_G, covariance_GCC, freedom = _covariances(noise, contrast_CR)
    solved_GC = np.linalg.solve(covariance_GCC, np.broadcast_to(value_C, (len(weight_G), len(value_C)))[..., None])
    ratio_G = (solved_GC[..., 0] @ value_C) / len(value_C)
    return float(weight_G @ special.fdtrc(len(value_C), freedom, np.maximum(ratio_G, 0.0)))


def covariance(noise: Noise, contrast_CR: Array) -> tuple[Array, float]:
    """Of the contrasts, (C, C), in the mean over what the residuals say of shares, and its degrees of freedom."""
    weight_G, covariance_GCC, freedom = _covariances(noise, contrast_CR)
    return np.tensordot(weight_G, covariance_GCC, 1), freedom


def _covariances(noise: Noise, contrast_CR: Array) -> tuple[Array, Array, float]:
    if isinstance(noise, Wild):
        score_CK = sums(contrast_CR * noise.residual_R, noise.cluster_R)
        return np.ones(1), (score_CK @ score_CK.T)[None], noise.freedom
    if isinstance(noise, Paired):
        covariance_GCC = noise.covariances(contrast_CR)
        return noise.weight_G, covariance_GCC * (noise.quadratic_G / noise.freedom)[:, None, None], noise.freedom
    assert isinstance(noise, Components)
    trunk_CK, freedom = sums(contrast_CR, noise.cluster_R), float(noise.freedom_J.sum())
    share_G, weight_G, scaled_G = (part_G[:, None, None] for part_G in noise.shares())
    covariance_GCC = share_G * (trunk_CK @ trunk_CK.T) + (1 - share_G) * (contrast_CR @ contrast_CR.T)
    return weight_G[:, 0, 0], covariance_GCC * scaled_G / freedom, freedom
