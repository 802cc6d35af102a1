"""`check`: a look at DATA before training."""

from __future__ import annotations

from plusx.doctor.folder import CheckReport, check

__all__ = ["CheckReport", "check"]
