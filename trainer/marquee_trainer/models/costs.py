USEFULNESS = ()


def estimated_seconds(name, matrix): ...
