"""TrainError: the data or an option cannot give a model. Its text is one line that says what to do."""


class TrainError(Exception):
    pass
