"""Triton kernels on tiles of (channels × pixels): `channel` semantics, and `sample` semantics with few values a sample.

A column is a group: what is normalised together. Column j of M lies at (j // P)·stride_n + (j % P)·stride_p, and its row c of C at
c·stride_c from there, counted in INDEX: 64 bits where 32 do not hold a place. In `channel` semantics a column is a pixel; a small sample
is a column too, with stride_c = 1. Rows of weight and bias are c // STEP: STEP is H·W where a small sample's affine has shape (C,).
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["channel_backward", "channel_forward", "sum_rows"]


@triton.jit
def channel_forward(
    x,
    weight,
    bias,
    y,
    mean,
    rstd,
    eps: tl.float64,
    inverse: tl.float64,
    C,
    P,
    M,
    x_n,
    x_c,
    x_p,
    y_n,
    y_c,
    y_p,
    STEP,
    ACC: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    FITS: tl.constexpr,
    INDEX: tl.constexpr,
):
    """y, mean and rstd of BLOCK_P columns; inverse is 1 / C.

    FITS: C <= BLOCK_C, so that x is read once; else twice, its statistics merged tile by tile.
    """
    zero = tl.full((1,), 0, ACC)
    eps, inverse = (zero + eps).to(ACC), (zero + inverse).to(ACC)  # else every sum with them would be float64
    columns = tl.cast(tl.program_id(0), INDEX) * BLOCK_P + tl.arange(0, BLOCK_P)
    exist = columns < M
    image, pixel = columns // P, columns % P
    x_start = x + (image * x_n + pixel * x_p)[None, :]
    y_start = y + (image * y_n + pixel * y_p)[None, :]
    if FITS:
        rows = tl.arange(0, BLOCK_C)
        live = rows < C
        mask = live[:, None] & exist[None, :]
        values = tl.load(x_start + tl.cast(rows, INDEX)[:, None] * x_c, mask=mask, other=0).to(ACC)
        centre = tl.sum(values, 0) * inverse
        d = tl.where(mask, values - centre[None, :], 0)
        root = tl.rsqrt(tl.sum(d * d, 0) * inverse + eps)
        result = d * root[None, :]
        if HAS_WEIGHT:
            result *= tl.load(weight + rows // STEP, mask=live, other=0).to(ACC)[:, None]
        if HAS_BIAS:
            result += tl.load(bias + rows // STEP, mask=live, other=0).to(ACC)[:, None]
        tl.store(y_start + tl.cast(rows, INDEX)[:, None] * y_c, result.to(y.dtype.element_ty), mask=mask)
    else:
        centre = tl.zeros((BLOCK_P,), ACC)
        squares = tl.zeros((BLOCK_P,), ACC)
        for first in range(0, C, BLOCK_C):  # Chan, Golub & LeVeque 1983: merge each tile's own two-pass statistics
            rows = first + tl.arange(0, BLOCK_C)
            mask = (rows < C)[:, None] & exist[None, :]
            values = tl.load(x_start + tl.cast(rows, INDEX)[:, None] * x_c, mask=mask, other=0).to(ACC)
            before = tl.cast(first, ACC)
            count = tl.cast(tl.minimum(C - first, BLOCK_C), ACC)
            own = tl.sum(values, 0) / count
            d = tl.where(mask, values - own[None, :], 0)
            delta = own - centre
            share = count / (before + count)
            centre += delta * share
            squares += tl.sum(d * d, 0) + delta * delta * (before * share)
        root = tl.rsqrt(squares * inverse + eps)
        for first in range(0, C, BLOCK_C):
            rows = first + tl.arange(0, BLOCK_C)
            live = rows < C
            mask = live[:, None] & exist[None, :]
            values = tl.load(x_start + tl.cast(rows, INDEX)[:, None] * x_c, mask=mask, other=0).to(ACC)
            result = (values - centre[None, :]) * root[None, :]
            if HAS_WEIGHT:
                result *= tl.load(weight + rows // STEP, mask=live, other=0).to(ACC)[:, None]
            if HAS_BIAS:
                result += tl.load(bias + rows // STEP, mask=live, other=0).to(ACC)[:, None]
            tl.store(y_start + tl.cast(rows, INDEX)[:, None] * y_c, result.to(y.dtype.element_ty), mask=mask)
    tl.store(mean + columns, centre, mask=exist)
    tl.store(rstd + columns, root, mask=exist)


@triton.jit
def _terms(
    dy,
    x,
    weight,
    rows,
    C,
    exist,
    dy_start,
    x_start,
    dy_c,
    x_c,
    centre,
    root,
    STEP,
    ACC: tl.constexpr,
    READ_X: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    INDEX: tl.constexpr,
):
    """dy, x̂ and g = dy·weight of one tile; 0 where it has no element."""
    live = rows < C
    mask = live[:, None] & exist[None, :]
    upstream = tl.load(dy + dy_start[None, :] + tl.cast(rows, INDEX)[:, None] * dy_c, mask=mask, other=0).to(ACC)
    normalised = tl.zeros_like(upstream)
    if READ_X:
        values = tl.load(x + x_start[None, :] + tl.cast(rows, INDEX)[:, None] * x_c, mask=mask, other=0).to(ACC)
        normalised = tl.where(mask, (values - centre[None, :]) * root[None, :], 0)
    g = upstream
    if HAS_WEIGHT:
        g = tl.where(mask, upstream * tl.load(weight + rows // STEP, mask=live, other=0).to(ACC)[:, None], 0)
    return upstream, normalised, g, mask


@triton.jit
def channel_backward(
    dy,
    x,
    weight,
    mean,
    rstd,
    dx,
    partial_dweight,
    partial_dbias,
    inverse: tl.float64,
    C,
    P,
    M,
    tiles,
    dy_n,
    dy_c,
    dy_p,
    x_n,
    x_c,
    x_p,
    dx_n,
    dx_c,
    dx_p,
    STEP,
    ACC: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    NEED_X: tl.constexpr,
    NEED_WEIGHT: tl.constexpr,
    NEED_BIAS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    FITS: tl.constexpr,
    INDEX: tl.constexpr,
):
    """dx, and this program's row of the partial sums of dweight and dbias, of shape (programs, C).

    FITS: a program takes the tiles program, program + programs, …, reads x and dy once, and keeps its sums in registers.
    Else it takes one tile, over which it goes twice. inverse is 1 / C.
    """
    inverse = (tl.full((1,), 0, ACC) + inverse).to(ACC)
    program = tl.program_id(0)
    READ_X: tl.constexpr = NEED_X or NEED_WEIGHT
    if FITS:
        rows = tl.arange(0, BLOCK_C)
        sum_dweight = tl.zeros((BLOCK_C,), ACC)
        sum_dbias = tl.zeros((BLOCK_C,), ACC)
        for tile in range(program, tiles, tl.num_programs(0)):
            columns = tl.cast(tile, INDEX) * BLOCK_P + tl.arange(0, BLOCK_P)
            exist = columns < M
            image, pixel = columns // P, columns % P
            centre = tl.load(mean + columns, mask=exist, other=0)
            root = tl.load(rstd + columns, mask=exist, other=0)
            dy_start, x_start = image * dy_n + pixel * dy_p, image * x_n + pixel * x_p
            upstream, normalised, g, mask = _terms(
                dy, x, weight, rows, C, exist, dy_start, x_start, dy_c, x_c, centre, root, STEP, ACC, READ_X, HAS_WEIGHT and NEED_X, INDEX
            )
            if NEED_X:
                mean_g = tl.sum(g, 0) * inverse
                mean_gx = tl.sum(g * normalised, 0) * inverse
                result = root[None, :] * (g - mean_g[None, :] - normalised * mean_gx[None, :])
                # g - mean(g) is 0 for C = 1, but not where g's product is fused into the difference
                result = tl.where(C == 1, normalised, result)
                where = dx + (image * dx_n + pixel * dx_p)[None, :] + tl.cast(rows, INDEX)[:, None] * dx_c
                tl.store(where, result.to(dx.dtype.element_ty), mask=mask)
            if NEED_WEIGHT:
                sum_dweight += tl.sum(upstream * normalised, 1)
            if NEED_BIAS:
                sum_dbias += tl.sum(upstream, 1)
        place = tl.cast(program, tl.int64) * C + rows
        if NEED_WEIGHT:
            tl.store(partial_dweight + place, sum_dweight, mask=rows < C)
        if NEED_BIAS:
            tl.store(partial_dbias + place, sum_dbias, mask=rows < C)
    else:
        columns = tl.cast(program, INDEX) * BLOCK_P + tl.arange(0, BLOCK_P)
        exist = columns < M
        image, pixel = columns // P, columns % P
        centre = tl.load(mean + columns, mask=exist, other=0)
        root = tl.load(rstd + columns, mask=exist, other=0)
        dy_start, x_start = image * dy_n + pixel * dy_p, image * x_n + pixel * x_p
        mean_g = tl.zeros((BLOCK_P,), ACC)
        mean_gx = tl.zeros((BLOCK_P,), ACC)
        if NEED_X:
            for first in range(0, C, BLOCK_C):
                rows = first + tl.arange(0, BLOCK_C)
                upstream, normalised, g, mask = _terms(
                    dy, x, weight, rows, C, exist, dy_start, x_start, dy_c, x_c, centre, root, STEP, ACC, READ_X, HAS_WEIGHT, INDEX
                )
                mean_g += tl.sum(g, 0)
                mean_gx += tl.sum(g * normalised, 0)
            mean_g *= inverse
            mean_gx *= inverse
        for first in range(0, C, BLOCK_C):
            rows = first + tl.arange(0, BLOCK_C)
            upstream, normalised, g, mask = _terms(
                dy, x, weight, rows, C, exist, dy_start, x_start, dy_c, x_c, centre, root, STEP, ACC, READ_X, HAS_WEIGHT and NEED_X, INDEX
            )
            place = tl.cast(program, tl.int64) * C + rows
            if NEED_X:
                result = root[None, :] * (g - mean_g[None, :] - normalised * mean_gx[None, :])
                where = dx + (image * dx_n + pixel * dx_p)[None, :] + tl.cast(rows, INDEX)[:, None] * dx_c
                tl.store(where, result.to(dx.dtype.element_ty), mask=mask)
            if NEED_WEIGHT:
                tl.store(partial_dweight + place, tl.sum(upstream * normalised, 1), mask=rows < C)
            if NEED_BIAS:
                tl.store(partial_dbias + place, tl.sum(upstream, 1), mask=rows < C)


@triton.jit
def sum_rows(
    terms,
    result,
    R,
    K,
    chunk,
    chunks,
    stride_r,
    stride_k,
    ACC: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Sums over `chunk` rows each of an (R, K) matrix, of shape (chunks, K): always the same rows in the same order."""
    program = tl.cast(tl.program_id(0), tl.int64)
    part = program % chunks
    columns = program // chunks * BLOCK_K + tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_R, BLOCK_K), ACC)
    for first in range(0, chunk, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        places = part * chunk + rows
        mask = ((rows < chunk) & (places < R))[:, None] & (columns < K)[None, :]
        total += tl.load(terms + places[:, None] * stride_r + columns[None, :] * stride_k, mask=mask, other=0).to(ACC)
    tl.store(result + part * K + columns, tl.sum(total, 0).to(result.dtype.element_ty), mask=columns < K)
