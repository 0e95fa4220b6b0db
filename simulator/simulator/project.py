"""Where the project lies on this machine, and the folders that the simulator makes in it."""

from pathlib import Path

from simulator.errors import UserError

_MARK = Path("simulator/azurite/package-lock.json")
DEFAULT_STATE = Path(".work/edge")


def find_root(start: Path | None = None) -> Path:
    """The project's root: the nearest folder, upwards from here or from this package, that holds the simulator.

    Raises UserError when there is none.
    """
    for origin in (start or Path.cwd(), Path(__file__).parent):
        for folder in (origin.resolve(), *origin.resolve().parents):
            if (folder / _MARK).is_file():
                return folder
    raise UserError("this is not inside the project's folder; change into the one with deployment.template.json")


def locate_state(state: Path) -> Path:
    """The default state folder lies in the project, wherever a command is run from; any other is taken as given."""
    return find_root() / state if state == DEFAULT_STATE else state
