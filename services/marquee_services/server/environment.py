"""Environment variables of libraries, which must be set before the libraries are imported."""

from __future__ import annotations

import os


def skip_keras() -> None:
    """Keeps TensorFlow from importing Keras, which serving does not need.

    With this setting TensorFlow tries to import the legacy Keras instead, and continues if that is
    not installed.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


def limit_blas_threads(threads: int) -> None:
    """Limits the threads of matrix products; has no effect once NumPy is imported."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


def silence_native_logs() -> None:
    """Turns off the log of gRPC's native library, which writes unescaped peer data to stderr.

    The environment variable `GRPC_VERBOSITY` can turn it on again. Must be called before gRPC is
    imported.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
