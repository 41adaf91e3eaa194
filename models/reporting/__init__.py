"""A run or a blend -> one page that a person reads; studies -> their answers.

page           the page itself            (page.html, page.css; markup: of all pages)
subject        what it is about
tables         scores, calibration        (studies: as a whole; subgroups: by kind of slice; resampling: intervals)
certainty      whether the sure answers are the right ones, and where networks disagree
mistakes       the worst and the best, as pictures         (looks, tints: where the network looked)
external       answers to a published set -> tables on the screen
figures        curves as SVG                               (ends: what those of a series are called)
export         stored series -> volumes and pictures       (nifti)
predicting     your own head CT -> answers, or a drop folder of it        (answers: the folder of them)
answer_page    an answer -> page.html                      (answer.html; key_slices: its pictures)
releasing      runs -> a folder that travels           (release_facts: what is measured; hub: what others read)
card           what it is good for                     (card.html; card_fields, card_measured, card_text; traced)
dicom_objects  an answer -> a DICOM report and pictures    (dicom_sources: of which study; heat_volume: as NIfTI)
"""
