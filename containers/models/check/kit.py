"""The checks of a model's file, in an order in which later ones may rest upon earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from models.catalogue import Architecture
from models.check import answering, building, definition, keeping, learning
from models.check.report import Check, Finding, run
from models.check.subject import Subject, imported, laid_out
from models.check.watch import SideEffects
from models.interface import ModelShape, Values

DEFAULT_SHAPE = ModelShape(10, 32, 3)

OF_THE_MODEL: tuple[tuple[str, str, Callable[[Subject], str], tuple[str, ...]], ...] = (
    ("values", "It takes the values that were set", definition.values, ("hyperparameters",)),
    (
        "normalise",
        "normalise makes float32 of pixels, each image for itself",
        definition.normalise,
        ("values",),
    ),
    (
        "augment",
        "augment varies images by its noise, and by nothing else",
        definition.augment,
        ("normalise",),
    ),
    ("builds", "build gives a model with a head for every shape", building.builds, ("normalise",)),
    ("settings", "It can be built with every option and every lowest value", building.settings, ("builds",)),
    ("seeded", "A fresh model depends on torch's seed alone", building.seeded, ("builds",)),
    ("answers", "It answers batches of any size with finite logits", answering.answers, ("builds",)),
    ("repeats", "The same images get the same answer every time", answering.repeats, ("answers",)),
    ("alone", "An answer does not depend on the others of its batch", answering.alone, ("repeats",)),
    ("device", "Nothing in it is bound to the CPU", answering.other_device, ("answers", "augment")),
    (
        "gradients",
        "Every parameter gets a gradient from every batch",
        learning.gradients,
        ("answers", "augment"),
    ),
    ("learns", "It learns: the loss on drawn pictures falls", learning.learns, ("gradients",)),
    ("half", "It trains in half precision (fp16)", learning.half_precision, ("gradients",)),
    ("resumes", "An interrupted training ends as if it had not been", learning.resumes, ("gradients",)),
    ("kept", "Its artefact gives back the same model", keeping.kept, ("repeats",)),
    ("transfers", "Its weights can be carried over to other labels", keeping.transfers, ("repeats",)),
    ("begins", "Weights that lie beside the file fit the model", keeping.begins, ("builds",)),
    ("served", "The endpoint's server answers with it, in fp32 and fp16", keeping.served, ("kept",)),
    ("speed", "Its size and its speed can be measured", answering.speed, ("answers",)),
)
"""Name, what is to hold, how it is found out, and what must hold before."""


class _Kit:
    def __init__(self, file: Path, shape: ModelShape, given: Values) -> None:
        self._file = file
        self._shape = shape
        self._given = given
        self._imported: tuple[Architecture, SideEffects] | None = None
        self._subject: Subject | None = None

    def _import(self) -> str:
        self._imported = imported(self._file)
        return ""

    @property
    def _found(self) -> tuple[Architecture, SideEffects]:
        if self._imported is None:
            raise RuntimeError("a check of the table needs `imports` and does not say so")
        return self._imported

    def _of_model(self, look: Callable[[Subject], str]) -> str:
        if self._subject is None:
            architecture = self._found[0]
            shape, values = architecture.shape(self._shape), architecture.values(self._given)
            self._subject = Subject(self._file, architecture, shape, values)
        return look(self._subject)

    def checks(self) -> list[Check]:
        """Return the table of checks."""
        of_file: list[tuple[str, str, Callable[[], str], tuple[str, ...]]] = [
            ("name", "The file's name can be an architecture's", lambda: definition.name(self._file), ()),
            ("imports", "The file can be imported on its own", self._import, ("name",)),
            (
                "quiet",
                "Importing it does nothing but define",
                lambda: definition.side_effects(self._found[1]),
                ("imports",),
            ),
            (
                "members",
                "It has build(shape, values), and what is optional under its right name",
                lambda: definition.members(self._found[0]),
                ("imports",),
            ),
            (
                "hyperparameters",
                "What may be set about the model is well defined",
                lambda: definition.hyperparameters(self._found[0]),
                ("members",),
            ),
        ]
        return [
            *(Check(*each) for each in of_file),
            *(
                Check(name, title, partial(self._of_model, look), needs)
                for name, title, look, needs in OF_THE_MODEL
            ),
        ]


def _quietly(_: object) -> None:
    pass


def inspect(
    file: Path,
    shape: ModelShape = DEFAULT_SHAPE,
    given: Values | None = None,
    tell: Callable[[Finding], None] = _quietly,
    begin: Callable[[str], None] = _quietly,
) -> list[Finding]:
    """Check a file.

    Parameters
    ----------
    file
        Anywhere.
    shape
        To try the model with; what it prefers holds before it.
    given
        Hyperparameters that are not to have their defaults.
    tell
        Is told each finding as soon as it is there.
    begin
        Is told the title of each check that begins.
    """
    file = file.resolve()
    with laid_out(file):
        return run(_Kit(file, shape, given or {}).checks(), file, tell, begin)
