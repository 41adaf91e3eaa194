"""Write synthetic head CT studies with hemorrhages, as DICOM files in the layout of the RSNA challenge's data.

    python models/make_phantom.py data/phantom --studies 120 --test-studies 20 --image-size 64

Needs nothing. Writes stage_2_train/, stage_2_test/, their tables, the answers of the test slices
(phantom_test_labels.csv) and a picture to look at (contact_sheet.png).

With --traps all (or truncated rle ...) also what is awkward in real data, and phantom_traps.csv that tells where.
"""

from models.common.cli import command
from models.phantom.dicom import write_phantom
from models.phantom.options import PhantomOptions

if __name__ == "__main__":
    command(lambda options: write_phantom(**vars(options)), PhantomOptions)
