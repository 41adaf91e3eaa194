"""A run or a blend -> one page that a person reads.

page       the page itself            (page.html, page.css)
subject    what it is about
tables     scores, calibration        (resampling: their intervals; subgroups: by kind of slice; mistakes: as pictures)
figures    curves as SVG
"""
