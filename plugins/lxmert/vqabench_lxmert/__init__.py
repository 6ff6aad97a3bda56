"""LXMERT (Tan & Bansal 2019) for vqabench: a cross-modality transformer over word pieces and regions."""

from __future__ import annotations

from vqabench_lxmert.backbone import Lxmert

__all__ = ["Lxmert"]
