"""DICOM -> Hounsfield slices on disk.

preparation   the whole of it: raw folder -> cache/      (cache: is it whole; tables: how others read it)
raw           which files there are, labels among them   (challenge_csv: Kaggle's tables)
grouping      files by series                            (pseudonyms: what they are called)
series        the files of a series -> its store         (notes, metadata: its rows; store: its slices)
selection     which series are axial head CT             (header_facts: what a header tells of its series)
formats       one file -> slices                         (which reader it is for)
dicom         of a DICOM file                            (elements, decoding: nothing in it is trusted)
nifti         of a NIfTI volume                          (nifti_header; volume_grid: where they lie)
pixel_data    bytes -> stored values
hounsfield    stored values -> Hounsfield units          (modality_table; windows: -> grey values)
orientation   slices -> one frame: nose up, left at right
geometry      the order of slices                        (neighbours: who is next to whom)
affine        where the stored slices lie, in mm
folds         patients -> folds
problems      all that can be wrong                      (report, pictures: what a person sees of it)
parallel      one function over many items
"""
