"""DICOM files: rendering of pixels, selected attributes of headers, and the decoders that they need."""
