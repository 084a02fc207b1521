"""All fitted forms."""

from __future__ import annotations

from sim.calibration.form import Form
from sim.calibration.forms_attention import DecodeForm, PrefillForm
from sim.calibration.forms_gemm import DenseForm, ExpertForm

FORMS: tuple[Form, ...] = (ExpertForm(), DenseForm(), DecodeForm(), PrefillForm())
"""One per op family."""
