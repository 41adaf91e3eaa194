"""The error for what the person at the keyboard can repair."""


class InputError(ValueError):
    """A file, flag or folder that cannot be used; the message names it and says what to do.

    Scripts print the message alone, on one line; any other exception is a defect here, and keeps its traceback.
    """
