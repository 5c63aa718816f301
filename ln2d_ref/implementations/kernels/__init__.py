"""Fused LayerNorm2d kernels for NCHW, forward and backward, both semantics, in Triton and in CUDA; docs/kernels.md tells how they work."""
