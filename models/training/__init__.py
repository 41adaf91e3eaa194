"""Slices -> the weights of a fold."""

import warnings

# What dependencies say to each other and a user cannot act on.
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
warnings.filterwarnings("ignore", message="ShiftScaleRotate is a special case of Affine transform")
