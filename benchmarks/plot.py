"""python -m benchmarks.plot RESULT.json [EARLIER.json ...]: GB/s against size beside the copy's line, and the history of ratios.

Files are pytest-benchmark's, of --benchmark-json or --benchmark-save. Needs matplotlib (the extra `plot`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = ["draw", "kernels", "main", "read"]

_PANELS = (("forward", "float32"), ("backward", "float32"))


def main() -> None:
    """Draw a picture of the first file, and of the ratios in all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json", help="the newest first; others for the history")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.svg"), help="PNG, SVG or PDF (default benchmarks.svg)")
    options = parser.parse_args()
    try:
        results = [read(path) for path in options.results]
    except ValueError as error:
        parser.error(str(error))
    try:
        draw(results, options.output)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        sys.exit("benchmarks.plot needs matplotlib: pip install -e '.[plot]'")
    print(options.output)


def read(path: Path) -> dict[str, Any]:
    """One of pytest-benchmark's files; ValueError, naming it, where it is none or holds no benchmark of an implementation."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a result of pytest-benchmark: {error}") from None
    if not isinstance(result, dict) or not isinstance(result.get("benchmarks"), list):
        raise ValueError(f"{path} is not a result of pytest-benchmark: it has no list of benchmarks")
    if not kernels(result):
        raise ValueError(f"{path} holds no benchmark of an implementation; `pytest benchmarks --benchmark-json={path}` makes one")
    return result


def kernels(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What is kept of each benchmark of an implementation: its extra_info."""
    return [each["extra_info"] for each in result["benchmarks"] if "gb_per_s" in each.get("extra_info", {})]


def draw(results: list[dict[str, Any]], output: Path) -> None:
    """Two panels of rates, and one of ratios over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "ln2d_ref"  # the same file from the same data
    from matplotlib import pyplot, ticker

    figure, panels = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    infos = kernels(results[0])
    for panel, (direction, dtype) in zip(panels, _PANELS, strict=False):
        chosen = [info for info in infos if (info["direction"], info["dtype"], info["layout"]) == (direction, dtype, "contiguous")]
        for name, group in _grouped(chosen, "implementation"):
            points = sorted((info["size_bytes"] / 2**20, info["gb_per_s"]) for info in group)
            panel.plot(*zip(*points, strict=True), "o-", markersize=4, label=name)
        copies = sorted({info["size_bytes"] / 2**20: info["copy_gb_per_s"] for info in chosen}.items())
        if copies:
            panel.plot(*zip(*copies, strict=True), "k--", label="copy")
        panel.set(
            xscale="log", yscale="log", xlabel="size of x, MiB", ylabel="GB/s at the floor", title=f"{direction}, {dtype}, contiguous"
        )
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            axis.set_minor_locator(ticker.NullLocator())
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    history: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for result in sorted(results, key=lambda result: datetime.fromisoformat(result["datetime"])):
        when = f"{datetime.fromisoformat(result['datetime']):%Y-%m-%d\n%H:%M}"
        for name, group in _grouped(kernels(result), "implementation", "direction"):
            ratios = sorted(info["ratio"][0] for info in group)
            history[name].append((when, ratios[len(ratios) // 2]))
    for name, series in sorted(history.items(), key=lambda item: -item[1][-1][1]):
        panels[2].plot(*zip(*series, strict=True), "o-", markersize=4, label=f"{name} {series[-1][1]:.2f}")
    panels[2].axhline(1.0, color="k", linewidth=0.8)
    panels[2].set(yscale="log", ylabel="time over the yardstick's, median of shapes", title="history of ratios")
    panels[2].yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    panels[2].yaxis.set_minor_formatter(ticker.FormatStrFormatter("%g"))
    panels[2].tick_params(labelsize=7, which="both")
    panels[2].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(output, dpi=110, metadata={"Date": None} if output.suffix == ".svg" else None)


def _grouped(infos: Iterable[dict[str, Any]], *names: str) -> list[tuple[str, list[dict[str, Any]]]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for info in infos:
        groups[" ".join(info[name] for name in names)].append(info)
    return sorted(groups.items())


if __name__ == "__main__":
    main()
