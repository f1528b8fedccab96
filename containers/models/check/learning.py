"""Checks of the model in training: gradients, learning, half precision, going on after an interruption."""

from __future__ import annotations

import math
import statistics

import torch
from torch import nn

from models.check.practice import RESUMED, Course, Practice
from models.check.report import BrokenPromiseError
from models.check.subject import CLASSES, Subject

STEPS, ENOUGH, PATIENCE = 60, 6, 16
"""Steps of learning: at most, before a halved loss will do, and before one that falls slowly will."""
SLOW = 0.8
"""A loss that has fallen to this share of itself has not done so by chance."""
GUESSED = 0.05
"""So near to what guessing gives, as a share of it, nothing has been learnt."""
GUESSING = math.log(CLASSES)
"""The loss of a model that does not look at the picture."""
LOTTERIES = 10
"""Steps, to meet a layer that is left out now and then."""
HALF_LIMIT = 65_504
"""The greatest number of fp16."""
FORWARDS = "forwards only: backwards, fp16 takes a CPU minutes for a model of this size"


def gradients(subject: Subject) -> str:
    """Check that every parameter learns from every batch, also from the smallest one."""
    smallest = Practice(subject)
    loss = smallest.loss(0, 2)
    loss.backward()  # type: ignore[no-untyped-call]
    _all_learn(_without(smallest.model))
    _is_finite(smallest.model, float(loss.detach()), 2)
    course = subject.once(Course)
    first = course.step()
    _all_learn(_without(course.practice.model))
    _is_finite(course.practice.model, first, course.practice.batch)
    _none_now_and_then(subject)
    frozen = sum(not each.requires_grad for each in smallest.model.parameters())
    return f"{frozen} parameters are frozen" if frozen else ""


def _is_finite(model: nn.Module, loss: float, count: int) -> None:
    bad = [
        name
        for name, each in model.named_parameters()
        if each.grad is not None and not each.grad.isfinite().all()
    ]
    if bad or not math.isfinite(loss):
        raise BrokenPromiseError(
            f"With a batch of {count} the {'gradient of ' + bad[0] if bad else 'loss'} is not finite.",
            "finite numbers from the first step on.",
            "look for a square root or a division at zero; add a small number inside it.",
        )


def _without(model: nn.Module) -> list[str]:
    return [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]


def _all_learn(without: list[str]) -> None:
    if without:
        raise BrokenPromiseError(
            f"{', '.join(without[:5])}{' and more' if len(without) > 5 else ''}: no gradient.",
            "a gradient for each of them in every step: GPUs that train together wait for it.",
            "remove what forward does not use, or freeze it: parameter.requires_grad = False. See whether "
            ".detach() or torch.no_grad() cuts them off. What is left out at random (stochastic depth) is "
            "multiplied by zero, not passed over.",
        )


def _none_now_and_then(subject: Subject) -> None:
    """Look for layers that are left out at random; for a large model without numbers, which costs little.

    What has no gradient in any of the steps is a matter of that device: real steps have met it.
    """
    device = torch.device("meta" if subject.large else "cpu")
    model, images = subject.fresh().train().to(device), subject.batch[:2].to(device)
    found: list[list[str]] = []
    for seed in range(LOTTERIES):
        model.zero_grad(set_to_none=True)
        torch.manual_seed(seed)
        try:
            model(images.clone()).sum().backward()
        except Exception:
            if subject.large:  # it looks at numbers, say; the real steps of `learns` must do
                return
            raise
        found.append(_without(model))
    always = set.intersection(*map(set, found))
    for without in found:
        _all_learn([name for name in without if name not in always])


def learns(subject: Subject) -> str:
    """Check that a few dozen steps halve the loss on four kinds of picture that are easy to tell apart.

    A model that is made for small learning rates, as those with weights beside their file are, or has little
    to learn with takes longer: a loss that falls clearly is enough, and the note says so.
    """
    course = subject.once(Course)
    losses, rate = course.losses, f"at a learning rate of {course.practice.rate:g}"
    while len(losses) < STEPS:
        course.step()
        _all_learn(_without(course.practice.model))  # a layer may be left out now and then
        if not math.isfinite(losses[-1]):
            raise BrokenPromiseError(
                f"The loss is {losses[-1]} after {len(losses)} steps, {rate}.",
                "finite numbers all the way.",
                "try a tenth of the learning rate, PREFERENCES = Preferences(learning_rate=…), and look for "
                "what divides by what it learns.",
            )
        first, last = _ends(losses)
        if len(losses) >= ENOUGH and last < min(first / 2, SLOW * GUESSING):
            return f"{_course(losses)} in {len(losses)} steps"
        if len(losses) >= PATIENCE and last < SLOW * min(first, GUESSING):
            break
    first, last = _ends(losses)
    said = f"{_course(losses)} in {len(losses)} steps"
    guesses = abs(last / GUESSING - 1) < GUESSED
    if last < first * SLOW and not guesses:
        return f"slowly, {said} {rate}"
    raise BrokenPromiseError(
        f"The loss went {said} of {course.practice.batch} pictures, {rate}"
        + (f": guessing gives {GUESSING:.2f}." if guesses else "."),
        "half of it: discs and stripes are easy to tell apart.",
        "try PREFERENCES = Preferences(learning_rate=…) with a tenth of it or ten times it; see whether "
        "augment leaves the pictures recognisable, whether gradients reach the first layer, and whether "
        "something normalises over too few images.",
    )


def _ends(losses: list[float]) -> tuple[float, float]:
    return statistics.fmean(losses[:2]), statistics.fmean(losses[-4:])


def _course(losses: list[float]) -> str:
    return "from {:.2f} to {:.2f}".format(*_ends(losses))


def half_precision(subject: Subject) -> str:
    """Check the limits of fp16 and a few images under autocast with a scaled loss, as on a V100."""
    practice = Practice(subject, half=True)
    if subject.large:
        within_half(subject.once(Course).greatest)
        found = [float(practice.loss(0, 2).detach())]
    else:
        found = [practice.step(0, 2), float(practice.loss(1, 2).detach())]
    if not all(map(math.isfinite, found)):
        raise BrokenPromiseError(
            f"In half precision the loss is {found}.",
            "finite numbers: on V100 and T4 training computes in fp16 (up to 65,504).",
            "compute what grows large in float32, on x.float() inside torch.autocast(x.device.type, "
            "enabled=False).",
        )
    return FORWARDS if subject.large else ""


def within_half(greatest: dict[str, float]) -> None:
    """Check that no layer gives a number that fp16 cannot hold."""
    for name, number in greatest.items():
        if number > HALF_LIMIT:
            raise BrokenPromiseError(
                f"{name or 'the model'} gives numbers up to {number:.3g}.",
                f"at most {HALF_LIMIT:,}: V100 and T4 compute in fp16.",
                "keep what grows small: normalise it, or divide before and not after.",
            )


def resumes(subject: Subject) -> str:
    """Check that an interrupted training ends with the very weights of one that was not."""
    course = subject.once(Course)
    while len(course.losses) < 2 * RESUMED:
        course.step()
    second = Practice(subject, seed=99)
    second.go_on(course.kept)
    for step in range(RESUMED, 2 * RESUMED):
        second.step(step)
    found = second.model.state_dict()
    other = [name for name, value in course.weights.items() if not torch.equal(value, found[name])]
    if other:
        raise BrokenPromiseError(
            f"After {RESUMED} steps, a checkpoint and {RESUMED} more, {other[0]} is not what it is after "
            f"{2 * RESUMED} steps at once.",
            "the same weights: a spot instance may be taken away at any time.",
            "keep what changes in training in buffers (persistent ones), and draw random numbers from torch "
            "only: the loop seeds it before each step.",
        )
    return ""
