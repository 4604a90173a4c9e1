"""Proof against autograd: everything that hesskern computes, compared with PyTorch and with a third witness."""

from hesskern.validation.report import Row, ValidationReport
from hesskern.validation.validator import validate

__all__ = ["Row", "ValidationReport", "validate"]
