"""What the processes say: each one's lines in a file of its own, and on the screen under its coloured name."""

from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from simulator.process import LineSink

# As the manifest's log driver: one file of this size, and the one before it.
_FILE_LIMIT_BYTES = 10 * 1024 * 1024
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red", "bright_cyan", "bright_green")
_NAME_WIDTH = 14


class Logbook:
    """`<folder>/<name>.log` for every name; with a console, each line is shown there too."""

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self.folder = folder
        self._console = console
        self._files: dict[str, TextIO] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def sink(self, name: str) -> LineSink:
        colour = _COLOURS[len(self._files) % len(_COLOURS)]
        self._open(name)

        def take(line: str) -> None:
            self._write(name, line)
            if self._console is not None:
                self._console.print(Text.assemble((f"{name:<{_NAME_WIDTH}} ", colour), line), soft_wrap=True)

        return take

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _open(self, name: str) -> None:
        if name in self._files:
            self._files[name].close()
        self._files[name] = self.path(name).open("a", buffering=1, encoding="utf-8")

    def _write(self, name: str, line: str) -> None:
        file = self._files[name]
        if file.closed:
            return
        file.write(line + "\n")
        if file.tell() > _FILE_LIMIT_BYTES:
            self.path(name).rename(self.folder / f"{name}.1.log")
            self._open(name)
