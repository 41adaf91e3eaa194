"""DICOM -> Hounsfield slices on disk."""
