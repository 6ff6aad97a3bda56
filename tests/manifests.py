"""Manifests of runs that never were."""

from __future__ import annotations

from typing import Any

from vqabench.results import Manifest


def make_manifest(**changes: Any) -> Manifest:
    """Give the manifest of a finished run of UpDn, with its changes."""
    fields: dict[str, Any] = {
        "dataset": "d",
        "backbone": "updn",
        "objective": "ce",
        "loss": "plain",
        "label": "",
        "seed": 0,
        "options": {"backbone": {"hidden": 8}},
        "distributions": {"plain": "vqabench"},
        "recipe": {"epochs": 3},
        "stages": [],
        "select": "last",
        "fingerprint": "f",
        "versions": {},
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
        "parameters": 1,
        "started": "2026-01-01T00:00:00+00:00",
        "status": "finished",
    }
    return Manifest(**(fields | changes))
