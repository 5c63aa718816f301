"""Cases that ended the process: each is on disk while it is run, and what is left of one is told by the next process."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from .case import Case, summary
from .implementations.implementation import Implementation

try:
    import fcntl
except ImportError:  # no such locks on Windows, where nothing is kept
    fcntl = None  # type: ignore[assignment]

__all__ = ["Running", "crashes"]

_PREFIX = "running-"


class Running:
    """A file that holds the case which is being run; locked by this process, so that another sees whether it has ended."""

    def __init__(self, root: Path, implementation: Implementation, law: str) -> None:
        self._about = {"name": implementation.name, "source": implementation.source, "law": law}
        parts = (implementation.name, implementation.semantics, law)
        name = ".".join(re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-") for part in parts)
        self._path = root / f"{_PREFIX}{os.getpid()}.{name}"
        self._file: int | None = None

    def note(self, case: Case) -> None:
        """Put this case in the place of the one before."""
        if fcntl is None:
            return
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        text = json.dumps({**self._about, "case": case.to_dict()}).encode()
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))

    def close(self) -> None:
        """All cases have been run: nothing is left."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def crashes(root: Path, names: Collection[str]) -> list[str]:
    """A message for each case in whose course a process that judged one of these implementations ended; its case file is then kept."""
    if fcntl is None:
        return []
    messages = []
    for path in sorted(root.glob(f"{_PREFIX}*")):
        with suppress(OSError, ValueError, KeyError, TypeError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: the process is there
            left = json.load(file)
            if left["name"] in names:
                messages.append(_kept(root, path.name.partition(".")[2], left))
                path.unlink()
    return messages


def _kept(root: Path, name: str, left: dict[str, Any]) -> str:
    """Write the case file; what is known of it, and how to run it again."""
    case = Case.from_dict(left["case"])
    path = root / f"{name}.crash" / "case.json"
    path.parent.mkdir(exist_ok=True)
    case.save(path)
    again = f"check({left['source'] or left['name']!r}, Case.load({os.path.relpath(path)!r}), laws=({left['law']!r},))"
    return f"{left['name']}({summary(case)})\n  law        {left['law']}\n  reproduce  from ln2d_ref import Case, check; {again}"
