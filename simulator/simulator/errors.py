"""What can go wrong for reasons that the person at the keyboard can mend.

UserError            one line for the screen: what is wrong and what to do about it; exit code 2
"""


class UserError(Exception):
    """Its text is one line that names the thing at fault and says what to do."""
