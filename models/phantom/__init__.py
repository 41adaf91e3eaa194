"""Synthetic head CT: a patient in three dimensions -> slices -> DICOM files, with every trap of the real data.

study        a patient, cut into slices      (atlas: the template; anatomy, face, brain, bleeds: what a head is made of,
             as regions of points; scan, artefacts: how it is looked at; levels: where blood settles in it; dials: how
             wide all of it varies)
dicom        studies -> files in Kaggle's layout, or in others (layouts)
traps        what is wrong with real data, planted in a draft of those files (traps_*, draft, pixels, jpeg)
"""
