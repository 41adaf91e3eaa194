"""The facts and tools that every stage shares: labels, errors, configuration, command lines, folders, files, locks."""
