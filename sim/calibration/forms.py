"""All fitted forms."""

from __future__ import annotations

from sim.calibration.form import Form
from sim.calibration.forms_attention import DecodeForm, PrefillForm
from sim.calibration.forms_gemm import DenseForm, ExpertForm
from sim.calibration.forms_latent import LatentForm

FORMS: tuple[Form, ...] = (ExpertForm(), DenseForm(), DecodeForm(), PrefillForm())
"""One per op family that every calibrated GPU prices."""

OPTIONAL: tuple[Form, ...] = (LatentForm(),)
"""Families that a calibration may go without."""
