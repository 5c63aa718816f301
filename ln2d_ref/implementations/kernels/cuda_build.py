"""Compiles the CUDA source to a shared library on first use: by nvcc for a GPU, or by a C++ compiler as an emulation for the CPU."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["SOURCES", "build", "cache_folder", "host_compiler", "nvcc"]

SOURCES = Path(__file__).parent / "cuda_source"
"""Folder of layer_norm_2d.cu, which has the launchers, and of the headers with the kernels."""
_COMMON = ("-std=c++17", "-shared")


def nvcc() -> str | None:
    """Path of nvcc: on PATH, or under CUDA_HOME."""
    found = shutil.which("nvcc")
    home = os.environ.get("CUDA_HOME")
    return found or (shutil.which("nvcc", path=str(Path(home) / "bin")) if home else None)


def host_compiler() -> str | None:
    """Path of a C++ compiler: $CXX, g++ or clang++."""
    return next((path for name in (os.environ.get("CXX"), "g++", "clang++") if name and (path := shutil.which(name))), None)


def cache_folder() -> Path:
    """Where libraries are kept: $LN2D_CACHE, or .ln2d/kernels of the checkout, or ~/.cache/ln2d_ref where there is none."""
    given = os.environ.get("LN2D_CACHE")
    if given:
        return Path(given)
    root = Path(__file__).parents[3]
    return root / ".ln2d" / "kernels" if (root / "pyproject.toml").is_file() else Path.home() / ".cache" / "ln2d_ref"


@cache
def build(architecture: str | None, sources: Path = SOURCES) -> Path:
    """Path of the library for a GPU's architecture, as "sm_90", or for the CPU where that is None; compiled unless it is there.

    Its name holds a hash of the sources, the command and the compiler's version, and it is put in place at once, so that processes which
    compile at the same time do no harm. RuntimeError, with the compiler's words, where it fails or there is no compiler.
    """
    compiler = host_compiler() if architecture is None else nvcc()
    if compiler is None:
        raise RuntimeError("no C++ compiler was found ($CXX, g++, clang++)" if architecture is None else "nvcc was not found")
    if architecture is None:
        flags = [*_COMMON, "-O2", "-fPIC", "-ffp-contract=fast", *(["-mfma"] if _has_fma() else [])]  # nvcc fuses too
        flags += os.environ.get("LN2D_CXXFLAGS", "").split()
    else:
        flags = [*_COMMON, "-O3", "-Xcompiler", "-fPIC", "-gencode", f"arch=compute_{architecture[3:]},code={architecture}"]
    language = ["-x", "c++"] if architecture is None else []
    release = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    digest = hashlib.sha256("\0".join([compiler, release, *flags]).encode())
    for path in sorted(sources.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = cache_folder()
    library = folder / f"layer_norm_2d_{architecture or 'cpu'}_{digest.hexdigest()[:16]}.so"
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / library.name
        command = [compiler, *flags, *language, str(sources / "layer_norm_2d.cu"), "-o", str(fresh)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        os.replace(fresh, library)
    return library


def _has_fma() -> bool:
    """Whether this x86 processor multiplies and adds in one; other compilers' targets need no asking."""
    path = Path("/proc/cpuinfo")
    return platform.machine() in ("x86_64", "AMD64") and path.is_file() and " fma " in path.read_text(encoding="utf-8")
