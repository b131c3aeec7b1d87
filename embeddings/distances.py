"""The two compiled formulas every stage shares: squared distances from one node to many, and a fast exponential."""

from __future__ import annotations

import numpy as np

from hiddenscope.embeddings.compiled import compiled

FAR = np.float32(3.0e38)  # beyond every squared distance; not infinity, which fast arithmetic may assume away


@compiled
def squared_distances(node, others, start, stop, out):  # type: ignore[no-untyped-def]
    """``out[j - start]`` = squared distance from ``node`` (feature,) to column j of ``others`` (feature, node).

    Differences are squared and summed directly: in float32 the usual |x|² + |y|² - 2xy would lose the small
    distances, which are the ones that matter.
    """
    count = stop - start
    features = len(node)
    for j in range(count if features < 4 else 0):
        out[j] = np.float32(0.0)
    feature = 0
    while feature + 4 <= features:  # four at a time: each sum is read and written a quarter as often
        a, b, c, d = (  # views spare a check of every index, which would bar vector code
            others[feature, start:stop],
            others[feature + 1, start:stop],
            others[feature + 2, start:stop],
            others[feature + 3, start:stop],
        )
        x, y, z, w = node[feature], node[feature + 1], node[feature + 2], node[feature + 3]
        if feature == 0:
            for j in range(count):
                p, q, r, s = a[j] - x, b[j] - y, c[j] - z, d[j] - w
                out[j] = p * p + q * q + r * r + s * s
        else:
            for j in range(count):
                p, q, r, s = a[j] - x, b[j] - y, c[j] - z, d[j] - w
                out[j] += p * p + q * q + r * r + s * s
        feature += 4
    if feature + 2 <= features:
        a, b = others[feature, start:stop], others[feature + 1, start:stop]
        x, y = node[feature], node[feature + 1]
        for j in range(count):
            p, q = a[j] - x, b[j] - y
            out[j] += p * p + q * q
        feature += 2
    if feature < features:
        a, x = others[feature, start:stop], node[feature]
        for j in range(count):
            p = a[j] - x
            out[j] += p * p


@compiled
def exponential(x):  # type: ignore[no-untyped-def]
    """exp(x) for float32 x in [-87, 0], in a form that compilers turn into vector code.

    2**n comes from the exponent bits and 2**f, 0 <= f < 1, from the minimax polynomial of degree 5 (relative error
    8e-8). With the rounding of x itself the relative error stays below 1e-6 for x >= -10, where kernels are cut off.
    """
    y = max(x * np.float32(1.4426950408889634), np.float32(-126.0))
    whole = np.floor(y)
    f = y - whole
    power = np.float32(1.877576609e-3)
    power = power * f + np.float32(8.989340252e-3)
    power = power * f + np.float32(5.582631792e-2)
    power = power * f + np.float32(2.401536171e-1)
    power = power * f + np.float32(6.931530732e-1)
    power = power * f + np.float32(9.999999251e-1)
    bits = np.int32((whole + np.float32(127.0)) * np.float32(8388608.0))
    return power * bits.view(np.float32)
