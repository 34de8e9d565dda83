"""What a run prepares: of garbage collection, here; seeds and precision are tested with the recipes."""

from __future__ import annotations

import gc

import pytest

from tlkit import runtime, startup


def test_what_imports_have_made_is_put_aside_once(monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(1))
    runtime._keep_imports.cache_clear()
    for seed in range(3):  # what the first run leaves behind is to be collected in the second
        runtime.prepare(seed, "float32")
    assert calls == [1]


@pytest.mark.parametrize("enabled", [True, False])
def test_while_imports_run_nothing_is_collected_and_afterwards_as_before(
    monkeypatch: pytest.MonkeyPatch, enabled: bool
):
    calls: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(gc.isenabled()))
    try:
        if not enabled:
            gc.disable()
        with startup._no_garbage_collection():
            assert not gc.isenabled()
        assert gc.isenabled() is enabled
        assert calls == [False]
    finally:
        gc.enable()
