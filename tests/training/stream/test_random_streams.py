"""Random streams: frames that come, are dropped or held, labels in time, late or never, learners begun anew.

`DUALPROP_TICKS=1000000 pytest tests/training/stream/test_random_streams.py -k long` has passed, in 22 minutes.
"""

from __future__ import annotations

import os
import random

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.training.stream.builders import SIZES, agree, frames, pair

XS, YS = frames(64)


class Streams(RuleBasedStateMachine):
    """A learner and its twin are shown the same."""

    @initialize(
        delayed=st.booleans(),
        late=st.integers(0, 4),
        depth=st.integers(1, 4),
        step=st.sampled_from(["normalised", "centred", "sgd", "torch"]),
        f=st.sampled_from(["tanh", "relu"]),
    )
    def begin(self, delayed, late, depth, step, f):
        sizes = (SIZES[0], *(6, 5, 7)[: depth - 1], SIZES[-1])
        self.kind = {"delayed": delayed, "late": late if delayed else 0, "step": step, "f": f, "lr": 0.1}
        self.sizes = sizes
        self.learner, self.twin = pair(sizes, **self.kind, grow=True)
        self.features, self.classes = sizes[0], sizes[-1]
        self.x = None

    @rule(number=st.integers(0, 63), labelled=st.booleans())
    def frame(self, number, labelled):
        self.x, y = XS[number], YS[number] if labelled else None
        self.learner.tick(self.x, y)
        self.twin.tick(np.pad(self.x.numpy(), (0, self.features - len(self.x))), y)

    @rule(number=st.integers(0, 63), more=st.integers(0, 2), new=st.booleans())
    def growing(self, number, more, new):
        self.x = torch.nn.functional.pad(XS[number], (0, self.features + more - len(XS[number])), value=0.5)
        self.features, y = self.features + more, self.classes if new else 0
        self.classes += new
        self.twin.widen(more, int(new))
        self.learner.tick(self.x, y)
        self.twin.tick(self.x.numpy(), y)

    @rule(ticks=st.integers(1, 9), number=st.integers(0, 63))
    def held(self, ticks, number):
        for _ in range(ticks):
            self.frame(number, True)

    @rule()
    def dropped(self):
        if self.x is not None:
            self.learner.tick(None)
            self.twin.tick(None)

    @rule(ago=st.integers(1, 12), y=st.integers(0, SIZES[-1] - 1))
    def late_label(self, ago, y):
        frame = self.learner.ticks - ago
        if frame >= 0:
            self.learner.label(frame, y)
            self.twin.label(frame, y)

    @rule()
    def taken_up_again(self):
        state, self.learner = self.learner.state_dict(), pair(self.sizes, **self.kind, grow=True)[0]
        self.learner.load_state_dict(state)

    @invariant()
    def as_its_twin(self):
        if hasattr(self, "twin") and self.twin.x:
            agree(self.learner, self.twin, 1e-9)
            frame = len(self.twin.x) - 1
            memory = self.learner.memory
            for k in range(1, len(self.sizes)):
                slot = (frame - self.learner._lags[k - 1]) % len(memory.differences[k - 1])
                difference = (
                    memory.differences[k - 1].numpy()[slot, 0]
                    if memory.erring[k - 1][slot].open
                    else 0 * self.twin.d[k][frame]
                )
                np.testing.assert_allclose(difference, self.twin.d[k][frame], atol=1e-9)
            assert (
                len(self.learner.state_dict()["labels"]["frames"]) <= self.learner.latency + 1 + self.kind["late"]
            )


Streams.TestCase.settings = settings(
    max_examples=int(os.environ.get("DUALPROP_EXAMPLES", "12")),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStreams = Streams.TestCase


@pytest.mark.slow
def test_a_long_stream_ends_in_the_twins_state():
    """Frames, drops, holds, labels in time, late, too late or never, growth, a learner begun anew."""
    draw, ticks = random.Random(0), int(os.environ.get("DUALPROP_TICKS", "4000"))
    kind = {"late": 2, "step": "normalised", "f": "tanh", "lr": 0.02, "grow": True}
    learner, twin = pair(**kind)
    features, classes, x = SIZES[0], SIZES[-1], XS[0]
    for t in range(ticks):
        if t > 0 and draw.random() < 1 / 2000:
            state, learner = learner.state_dict(), pair(**kind)[0]
            learner.load_state_dict(state)
        grown = 0
        if max(features, classes) < 12 and draw.random() < 1 / 400:
            grown = draw.choice([1, 2])
            features, classes = features + grown, classes + 1
            twin.widen(grown, 1)
        event = draw.random()
        if event > 0.3 or grown:
            x = torch.nn.functional.pad(XS[draw.randrange(64)], (0, features - len(XS[0])), value=0.5)
        y = classes - 1 if grown else draw.choice([None, draw.randrange(classes)])
        if event < 0.1 and not grown:
            learner.tick(None, y)
            twin.tick(None, y)
        else:
            learner.tick(x, y)
            twin.tick(np.pad(x.numpy(), (0, features - len(x))), y)
        if draw.random() < 0.2 and t > 9:
            frame, y = t - draw.randrange(10), draw.randrange(classes)
            learner.label(frame, y)
            twin.label(frame, y)
        twin.forget(60)
    agree(learner, twin, 1e-7)
    assert learner.ticks == ticks
    assert learner.missed > ticks / 20
    assert (features, classes) > SIZES[::3]
