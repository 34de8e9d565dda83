"""What can go wrong that is not a bug: the command line prints these in one line, without a traceback."""


class InvalidInput(ValueError):
    """What the user gave cannot be used; the message says what was received, what is allowed and what to do.

    The command line exits with status 2.
    """


class Undecodable(InvalidInput):
    """A photo, sound or array that cannot be read; the message names it."""


class Unavailable(OSError):
    """Something outside the program is missing: a network, a server, room on a disk.

    The command line exits with status 1.
    """
