"""DICOM files: their pixels as a reader of them sees them, a few attributes, and what decodes them."""
