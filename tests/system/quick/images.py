"""Images that keep the contracts of the real ones and take no time: what they do is told by files.

`write` makes a folder that ``TRUTHLOOP_IMAGES`` can name. Jobs look into a folder of the test's own: while
``hold`` exists there a training waits, and ``outcome`` says what becomes of a run (`Fate`).
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

HERE = Path(__file__).parent


class Fate(StrEnum):
    """What becomes of a pipeline run."""

    SUCCEEDS = "succeeds"
    FAILS = "fails"
    TOO_BAD = "too-bad"


class Control:
    """What the quick jobs are told.

    Parameters
    ----------
    folder
        A folder that the jobs' processes can read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hold, self._outcome = folder / "hold", folder / "outcome"
        self.say(Fate.SUCCEEDS)

    def say(self, fate: Fate) -> None:
        """Say what becomes of the trainings that end from now on."""
        self._outcome.write_text(fate)

    def hold(self) -> None:
        """Let trainings wait."""
        self._hold.touch()

    def let_go(self) -> None:
        """Let trainings end."""
        self._hold.unlink(missing_ok=True)


def write(root: Path, control: Path) -> None:
    """Write both images below ``root``."""
    for name, program in (("training", "training.py"), ("inference", "inference.py")):
        (root / name).mkdir(parents=True)
        (root / name / program).write_text((HERE / program).read_text())
        (root / name / "Dockerfile").write_text(
            f"FROM python:3.13-slim\nENV CONTROL={control}\nWORKDIR /opt/program\n"
            f"COPY {name}/{program} /opt/program/{program}\n"
            f'ENTRYPOINT ["python", "-S", "-m", "{name}"]\n'
        )
