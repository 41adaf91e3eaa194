"""Synthetic head CT: a patient in three dimensions -> slices -> DICOM files, with every trap of the real data.

study        a patient, cut into slices      (anatomy, brain, bleeds: what it is made of)
dicom        studies -> files in Kaggle's layout, or in others (layouts)
traps        what is wrong with real data, planted in a draft of those files (traps_*, draft, pixels, jpeg)
"""
