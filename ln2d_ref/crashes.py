"""Cases that were being judged when a process ended: each is on disk while it is run, and another process tells what is left of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from .case import Case, summary
from .implementations.implementation import Implementation
from .reproduction import checking, folder_name

try:
    import fcntl
except ImportError:  # no such locks on Windows, where nothing is kept
    fcntl = None  # type: ignore[assignment]

__all__ = ["Running", "crashes"]

_PREFIX = "running-"


class Running:
    """A file that holds the case which is being run; locked by this process, so that another sees whether it has ended."""

    def __init__(self, root: Path, implementation: Implementation, law: str) -> None:
        self._root = root
        self._about = {"name": implementation.name, "source": implementation.source, "semantics": implementation.semantics, "law": law}
        self._file: int | None = None
        self._path: str | None = None

    def note(self, case: Case) -> None:
        """Put this case in the place of the one before; nothing where the folder takes no file."""
        if fcntl is None:
            return
        text = json.dumps({**self._about, "case": case.to_dict()}).encode()
        with suppress(OSError):
            if self._file is None:
                self._root.mkdir(parents=True, exist_ok=True)
                self._file, self._path = tempfile.mkstemp(prefix=_PREFIX, dir=self._root)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            os.pwrite(self._file, text, 0)
            os.ftruncate(self._file, len(text))

    def close(self) -> None:
        """All cases have been run: nothing is left."""
        if self._file is not None and self._path is not None:
            os.ftruncate(self._file, 0)  # for a reader that has it open
            Path(self._path).unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def crashes(root: Path, names: Collection[str]) -> list[str]:
    """A message for each case that was being judged when a process ended, of implementations of these names or sources.

    Its case file is then kept in a folder of its own.
    """
    if fcntl is None:
        return []
    messages = []
    for path in sorted(root.glob(f"{_PREFIX}*")):
        with suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: the process is there
            try:
                left = json.load(file)
                if left["name"] in names or left["source"] in names:
                    messages.append(_kept(root, left))
                    path.unlink()
            except (ValueError, KeyError, TypeError):  # cut off, or of another release
                path.unlink()
    return messages


def _kept(root: Path, left: dict[str, Any]) -> str:
    """Write the case file; what is known of it, and how to run it again."""
    case = Case.from_dict(left["case"])
    parts = (left["name"], left["semantics"], left["law"])
    name = folder_name(*(part[-80:] for part in parts))
    numbered = (root / f"{name}.crash{number}" for number in count(1))
    folder = next(each for each in numbered if not each.exists())
    folder.mkdir()
    path = folder / "case.json"
    case.save(path)
    program = checking(left["source"] or left["name"], path, left["law"])
    return f"{left['name']}({summary(case)})\n  law        {left['law']}\n  reproduce  {program}"
