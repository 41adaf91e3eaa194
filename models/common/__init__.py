"""What all stages share.

labels             the six labels, their order and their weights in the metric
channels, config   what a network sees, and what a run is: dataclasses, checked (recipe: how it learns)
options            the command lines of training and inference (cli: from a dataclass to a command line)
folders, files     where files lie, and how they are written and read back (prediction_files: one kind of them)
colours            of every picture
session, earlier    what a session may use up, and what earlier ones left      (steps: a session's, in a notebook)
locks, process     one process at a time; what a process sets for itself when it starts
errors             InputError: what a person can repair
"""
