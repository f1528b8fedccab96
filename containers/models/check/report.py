"""What a check found, and how it is told."""

from __future__ import annotations

import textwrap
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import ContainerError

WIDTH = 100


class BrokenPromiseError(Exception):
    """The model's file does not do what the interface asks for; the arguments say it in words."""

    def __init__(self, found: str, expected: str, advice: str) -> None:
        super().__init__(f"{found} Expected: {expected} To do: {advice}")
        self.found = found
        self.expected = expected
        self.advice = advice


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Parameters
    ----------
    title
        What is to hold, as a sentence.
    kept
        Whether it does; None: it could not be checked, and `note` says why.
    note
        What is worth knowing although nothing is wrong.
    broken
        What is wrong, when something is.
    seconds
        That it took to find out.
    """

    title: str
    kept: bool | None
    note: str = ""
    broken: BrokenPromiseError | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return it as lines of text."""
        sign = {True: "✓", False: "✗", None: "–"}[self.kept]
        took = f" ({self.seconds:.0f} s)" if self.kept and self.seconds >= 1 else ""
        lines = [f"{sign} {self.title}{took}"]
        if self.note:
            lines += _indented("", self.note)
        if self.broken:
            lines += _indented("found:    ", self.broken.found)
            lines += _indented("expected: ", self.broken.expected)
            lines += _indented("to do:    ", self.broken.advice)
        return "\n".join(lines)


def _indented(word: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="    " + word, subsequent_indent=" " * (4 + len(word)),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


_OWN_TYPE = (
    "make no float32 tensor of your own in forward: use x.new_zeros(…), or register it as a buffer, which "
    "goes along when the model changes its precision."
)
_OWN_DEVICE = (
    'leave out .cuda() and device="cuda": the loop moves the model to the GPU, and what forward makes goes '
    "to the device of its input (device=x.device)."
)
_TOO_SMALL = (
    "take less away from a small shape.image_size, or say what size the model is made for: "
    "PREFERENCES = Preferences(image_size=…)."
)
_ADVICE = (
    (
        "view size is not compatible",
        "images come in channels_last order: use .flatten(1) or .reshape(…) in place of .view(…).",
    ),
    (
        "No module named",
        "the images have Python, torch, numpy, Pillow and safetensors: do without the module, or add it to "
        "requirements.in of containers/training and containers/inference and run `make lock`.",
    ),
    (
        "channels, but got",
        "the first layer must take shape.channels; images come as (n, channels, height, width).",
    ),
    ("mat1 and mat2 shapes", "pool to a fixed size before that layer (nn.AdaptiveAvgPool2d)."),
    ("must match the size", "derive every size from shape: classes, image_size and channels vary."),
    ("greater than actual input size", _TOO_SMALL),
    ("Output size is too small", _TOO_SMALL),
    (
        "Expected more than 1 value per channel",
        "batch normalisation sees one value per channel here: pool after it, use nn.LayerNorm, and leave "
        "track_running_stats on, or it fails for a single image in service.",
    ),
    ("CUDA", _OWN_DEVICE),
    ("NVIDIA driver", _OWN_DEVICE),
    ("does not require grad", "leave torch.no_grad(), inference_mode and .detach() out of forward."),
    ("before Module.__init__", "begin __init__ with super().__init__()."),
    ("ModelShape", "take shape.classes, shape.image_size and shape.channels: shape has nothing else."),
    ("'dict' object has no attribute", 'values is a dict: values["width"], for example.'),
    (
        "No such file",
        "leave the file out: nothing but the weights beside yours, <its name>.safetensors, comes along into "
        "the images, and the loop loads them itself.",
    ),
    ("same dtype", _OWN_TYPE),
    ("expected scalar type", _OWN_TYPE),
    ("should be the same", _OWN_TYPE),
)
"""Part of an error's text → what to do about it."""


def of_error(error: Exception, file: Path) -> BrokenPromiseError:
    """Return what an exception out of a model's file means."""
    if isinstance(error, BrokenPromiseError):
        return error
    text = str(error) or repr(error)
    if isinstance(error, ContainerError):
        return BrokenPromiseError(f"{text}.", "no error.", "what was found says what does not fit.")
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == file.name
    ]
    where = f" (line {frames[-1].lineno}: {frames[-1].line})" if frames else ""
    if isinstance(error, SyntaxError):
        where = f" (line {error.lineno})"
    advice = next(
        (advice for part, advice in _ADVICE if part in text),
        "mend that line." if where else "see what your model does differently from docs/own-model.md.",
    )
    return BrokenPromiseError(f"{type(error).__name__}: {text}{where}", "no error.", advice)


@dataclass(frozen=True)
class Check:
    """One thing that is to hold.

    Parameters
    ----------
    name
        What others name it by in `needs`.
    title
        What is to hold, as a sentence.
    run
        Looks; returns a note; raises `BrokenPromiseError`.
    needs
        Checks without which this one makes no sense.
    """

    name: str
    title: str
    run: Callable[[], str]
    needs: tuple[str, ...] = ()


def run(
    checks: Sequence[Check], file: Path, tell: Callable[[Finding], None], begin: Callable[[str], None]
) -> list[Finding]:
    """Run the checks in their order; tell the title of each as it begins, and each finding at once."""
    found: dict[str, Finding] = {}
    for check in checks:
        missing = [found[name] for name in check.needs if found[name].kept is not True]
        if missing:
            finding = Finding(check.title, None, f"not checked, since this does not hold: {missing[0].title}")
        else:
            begin(check.title)
            began = time.perf_counter()
            try:
                finding = Finding(check.title, True, check.run())
            except Exception as error:  # whatever a model's file raises is what we are here to tell
                finding = Finding(check.title, False, broken=of_error(error, file))
            finding = replace(finding, seconds=time.perf_counter() - began)
        found[check.name] = finding
        tell(finding)
    return list(found.values())
