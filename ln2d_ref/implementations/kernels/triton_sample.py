"""Triton kernels for `sample` semantics where one sample takes several programs, since N may be 1.

A sample is n = C·P contiguous values, in which element i has channel i // P. The affine's index is i // STEP: STEP is P for a shape of
(C,), and 1 for (C, H, W).
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["sample_input_gradient", "sample_merge", "sample_normalise", "sample_row_sums", "sample_statistics", "sample_weighted_sums"]


@triton.jit
def sample_statistics(x, part_mean, part_squares, n, x_n, splits, chunk, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and sum of squared deviations of one chunk of one sample, merged from tiles of BLOCK values (Chan, Golub & LeVeque 1983)."""
    program = tl.cast(tl.program_id(0), tl.int64)
    start = x + program // splits * x_n
    base = program % splits * chunk
    length = tl.minimum(n - base, chunk)
    centre = tl.zeros((1,), ACC)
    squares = tl.zeros((1,), ACC)
    for first in range(0, chunk, BLOCK):
        if first < length:
            places = first + tl.arange(0, BLOCK)
            mask = places < length
            values = tl.load(start + base + places, mask=mask, other=0).to(ACC)
            before = tl.cast(first, ACC)
            count = tl.cast(tl.minimum(length - first, BLOCK), ACC)
            own = tl.sum(values, 0) / count
            d = tl.where(mask, values - own, 0)
            delta = own - centre
            share = count / (before + count)
            centre += delta * share
            squares += tl.sum(d * d, 0) + delta * delta * (before * share)
    one = tl.arange(0, 1)
    tl.store(part_mean + program + one, centre)
    tl.store(part_squares + program + one, squares)


@triton.jit
def sample_merge(part_mean, part_squares, mean, rstd, n, splits, chunk, eps: tl.float64, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """mean and rstd of one sample from those of its chunks: Σ count·mean / n, then Σ (squares + count·(mean - its own)²) / n."""
    sample = tl.cast(tl.program_id(0), tl.int64)
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), ACC)
    for first in range(0, splits, BLOCK):
        s = first + lanes
        count = tl.where(s < splits, tl.minimum(n - tl.cast(s, tl.int64) * chunk, chunk), 0).to(ACC)
        total += count * tl.load(part_mean + sample * splits + s, mask=s < splits, other=0)
    centre = tl.sum(total, 0) / n
    total = tl.zeros((BLOCK,), ACC)
    for first in range(0, splits, BLOCK):
        s = first + lanes
        count = tl.where(s < splits, tl.minimum(n - tl.cast(s, tl.int64) * chunk, chunk), 0).to(ACC)
        own = tl.load(part_mean + sample * splits + s, mask=s < splits, other=0)
        d = tl.where(s < splits, own - centre, 0)
        total += count * d * d + tl.load(part_squares + sample * splits + s, mask=s < splits, other=0)
    one = tl.arange(0, 1)
    variance = tl.sum(total, 0) / n + tl.zeros((1,), ACC)
    eps = (tl.zeros((1,), ACC) + eps).to(ACC)
    tl.store(mean + sample + one, centre + tl.zeros((1,), ACC))
    tl.store(rstd + sample + one, tl.rsqrt(variance + eps))


@triton.jit
def sample_normalise(
    x,
    weight,
    bias,
    y,
    mean,
    rstd,
    n,
    x_n,
    splits,
    STEP,
    ACC: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y of one tile of one sample."""
    program = tl.cast(tl.program_id(0), tl.int64)
    sample = program // splits
    places = program % splits * BLOCK + tl.arange(0, BLOCK)
    mask = places < n
    values = tl.load(x + sample * x_n + places, mask=mask, other=0).to(ACC)
    result = (values - tl.load(mean + sample)) * tl.load(rstd + sample)
    if HAS_WEIGHT:
        result *= tl.load(weight + places // STEP, mask=mask, other=0).to(ACC)
    if HAS_BIAS:
        result += tl.load(bias + places // STEP, mask=mask, other=0).to(ACC)
    tl.store(y + sample * n + places, result.to(y.dtype.element_ty), mask=mask)


@triton.jit
def sample_row_sums(
    dy,
    x,
    weight,
    mean,
    rstd,
    sums_dy,
    sums_dyx,
    C,
    P,
    rows_all,
    dy_n,
    x_n,
    splits,
    chunk,
    ACC: tl.constexpr,
    WEIGHTED: tl.constexpr,
    READ_X: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Σ dy and Σ dy·x̂ along chunks of the pixels of BLOCK_R rows, of shape (splits, N·C); a row is one channel of one sample.

    WEIGHTED: dy is multiplied by a weight of shape (C, H, W) first.
    """
    program = tl.cast(tl.program_id(0), tl.int64)
    split = program % splits
    rows = program // splits * BLOCK_R + tl.arange(0, BLOCK_R)
    live = rows < rows_all
    sample, channel = rows // C, rows % C
    centre = tl.load(mean + sample, mask=live, other=0)[:, None]
    root = tl.load(rstd + sample, mask=live, other=0)[:, None]
    total = tl.zeros((BLOCK_R, BLOCK_P), ACC)
    total_x = tl.zeros((BLOCK_R, BLOCK_P), ACC)
    for first in range(0, chunk, BLOCK_P):
        inside = first + tl.arange(0, BLOCK_P)
        pixels = split * chunk + inside
        mask = live[:, None] & ((inside < chunk) & (pixels < P))[None, :]
        flat = channel[:, None] * P + pixels[None, :]
        g = tl.load(dy + sample[:, None] * dy_n + flat, mask=mask, other=0).to(ACC)
        if WEIGHTED:
            g = tl.where(mask, g * tl.load(weight + flat, mask=mask, other=0).to(ACC), 0)
        total += g
        if READ_X:
            values = tl.load(x + sample[:, None] * x_n + flat, mask=mask, other=0).to(ACC)
            total_x += tl.where(mask, g * ((values - centre) * root), 0)
    tl.store(sums_dy + split * rows_all + rows, tl.sum(total, 1), mask=live)
    if READ_X:
        tl.store(sums_dyx + split * rows_all + rows, tl.sum(total_x, 1), mask=live)


@triton.jit
def sample_weighted_sums(sums_dy, sums_dyx, weight, mean_g, mean_gx, C, n, ACC: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr):
    """mean(g) and mean(g·x̂) of one sample, from the sums of its rows, each times its channel's weight."""
    sample = tl.cast(tl.program_id(0), tl.int64)
    total = tl.zeros((BLOCK,), ACC)
    total_x = tl.zeros((BLOCK,), ACC)
    for first in range(0, C, BLOCK):
        channels = first + tl.arange(0, BLOCK)
        live = channels < C
        own = tl.load(sums_dy + sample * C + channels, mask=live, other=0)
        own_x = tl.load(sums_dyx + sample * C + channels, mask=live, other=0)
        if WEIGHTED:
            factor = tl.load(weight + channels, mask=live, other=0).to(ACC)
            own, own_x = tl.where(live, own * factor, 0), tl.where(live, own_x * factor, 0)
        total += own
        total_x += own_x
    one = tl.arange(0, 1)
    tl.store(mean_g + sample + one, tl.sum(total, 0) / n + tl.zeros((1,), ACC))
    tl.store(mean_gx + sample + one, tl.sum(total_x, 0) / n + tl.zeros((1,), ACC))


@triton.jit
def sample_input_gradient(
    dy,
    x,
    weight,
    mean,
    rstd,
    mean_g,
    mean_gx,
    dx,
    partial_dweight,
    partial_dbias,
    N,
    n,
    dy_n,
    x_n,
    tiles,
    samples,
    STEP,
    ACC: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    NEED_X: tl.constexpr,
    NEED_WEIGHT: tl.constexpr,
    NEED_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dx of one tile of `samples` samples, and the sums of dweight and dbias over them where those have shape (C, H, W)."""
    program = tl.cast(tl.program_id(0), tl.int64)
    part = program // tiles
    places = program % tiles * BLOCK + tl.arange(0, BLOCK)
    mask = places < n
    sum_dweight = tl.zeros((BLOCK,), ACC)
    sum_dbias = tl.zeros((BLOCK,), ACC)
    if HAS_WEIGHT and NEED_X:
        factor = tl.load(weight + places // STEP, mask=mask, other=0).to(ACC)
    for sample in range(part * samples, tl.minimum(part * samples + samples, N)):
        upstream = tl.load(dy + sample * dy_n + places, mask=mask, other=0).to(ACC)
        if NEED_X or NEED_WEIGHT:
            centre = tl.load(mean + sample)
            root = tl.load(rstd + sample)
            values = tl.load(x + sample * x_n + places, mask=mask, other=0).to(ACC)
            normalised = tl.where(mask, (values - centre) * root, 0)
            if NEED_X:
                g = upstream
                if HAS_WEIGHT:
                    g = upstream * factor
                own = tl.load(mean_g + sample)
                own_x = tl.load(mean_gx + sample)
                result = root * (g - own - normalised * own_x)
                tl.store(dx + sample * n + places, result.to(dx.dtype.element_ty), mask=mask)
            if NEED_WEIGHT:
                sum_dweight += upstream * normalised
        if NEED_BIAS:
            sum_dbias += upstream
    if NEED_WEIGHT:
        tl.store(partial_dweight + part * n + places, sum_dweight, mask=mask)
    if NEED_BIAS:
        tl.store(partial_dbias + part * n + places, sum_dbias, mask=mask)
