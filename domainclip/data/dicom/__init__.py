"""DICOM files: their pixels as a reader of them sees them, a few attributes, and what decodes them."""

from __future__ import annotations

from domainclip.data.dicom.decoders import DecoderRow, preflight
from domainclip.data.dicom.pixels import picture, pipeline
from domainclip.data.dicom.reading import burned_in, header, is_dicom

__all__ = ["DecoderRow", "burned_in", "header", "is_dicom", "picture", "pipeline", "preflight"]
