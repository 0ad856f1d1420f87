"""The one error that stands for a user's mistake."""


class InputError(ValueError):
    """Bad input: config, data, checkpoint or resources.

    The message is complete by itself: it names the file, key or row, says what was found and what
    was expected. Scripts print it without a traceback and end with status 1.
    """
