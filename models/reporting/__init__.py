"""A run or a blend -> one page that a person reads; studies -> their answers.

page       the page itself            (page.html, page.css)
subject    what it is about
tables     scores, calibration        (studies: as a whole; subgroups: by kind of slice; resampling: intervals)
certainty  whether the sure answers are the right ones, and where networks disagree
mistakes   the worst and the best, as pictures     (looks: where the network looked)
figures    curves as SVG
predicting your own head CT -> answers, or a drop folder    (answers: the folder of them)
"""
