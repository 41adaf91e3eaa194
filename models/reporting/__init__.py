"""A run or a blend -> one page that a person reads.

page       the page itself            (page.html, page.css)
subject    what it is about
tables     scores, calibration        (subgroups: by kind of slice; mistakes: the worst, as pictures)
figures    curves as SVG
"""
