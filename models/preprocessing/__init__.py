"""Head CT files -> Hounsfield slices on disk.

preparation   the whole of it: raw folder -> cache/      (options; report, pictures: what a person sees of it)
raw           which files there are                      (archives, member_file: in a zip or tar; dicomdir)
survey        the first look at each of them             (cache, manifest: what is known already; drawn: if nobody is
                                                         shown; tables: for others)
grouping      files by patient, study and series         (pseudonyms: what they are called)
series        the files of a series -> its stores        (slices: one of them; store; notes, metadata: its rows)
copies, parts which files are one slice, and which slices are one series
selection     which series are axial head CT             (header_facts: what a header tells of its series)
truth         labels, and what is to be predicted        (challenge_csv: Kaggle's tables; own_labels)
formats       one file -> slices                         (which reader it is for)
dicom         of a DICOM file                            (elements, parser, decoding: nothing in it is trusted)
plain_header  the short way through a plain header       (beginning, large_pixels, frame_items: the odd ways)
nifti         of a NIfTI volume                          (nifti_header; volume_grid: where they lie)
pixel_data    bytes -> stored values
hounsfield    stored values -> Hounsfield units          (modality_table; windows: -> grey values)
orientation   slices -> one frame: nose up, left at right
geometry      the order of slices                        (neighbours: who is next to whom)
affine        where the stored slices lie, in mm
folds         patients -> folds
own_studies   files that somebody names -> studies, to be answered     (given: which files those are)
choice        which series of a study is judged
measures      what a series shows by its values alone
problems      all that can be wrong                      (reasons: why a file gives no slice)
shares        a part of all series, for a session of its own
parallel      one function over many items
"""
