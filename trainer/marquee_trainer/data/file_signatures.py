"""Determines the kind of a file by its first bytes, regardless of its name."""

from __future__ import annotations

from marquee_trainer.data.errors import RatingsError

HEAD_BYTES = 512
"""Number of bytes at the start of a file from which its kind is determined."""
PARQUET_MARK, ARROW_MARK = b"PAR1", b"ARROW1"

# Signatures of compressed files, with fsspec's names of the compression methods.
_COMPRESSIONS = {
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
}
_BZIP2, _BZIP2_BLOCK, _BZIP2_PLACE = b"BZh", b"1AY&SY", 4
_COPY = "write it as CSV, JSON lines or Parquet"
EXCEL = "in Excel, save the sheet as CSV UTF-8"
"""Advice for a workbook."""
_UNPACK = "unpack it, and name the file or the folder in it"
# Other kinds: the offset of a signature, the signature, the kind of the file, and advice.
_OTHERS = (
    (0, b"PK\x03\x04", "a zip archive or an Excel workbook", f"unpack it, or {EXCEL}"),
    (0, b"\xd0\xcf\x11\xe0", "an Excel workbook", EXCEL),
    (0, b"Obj\x01", "an Avro file", _COPY),
    (0, b"ORC", "an ORC file", _COPY),
    (0, b"\x89HDF", "an HDF5 file", _COPY),
    (0, b"\x80\x04\x95", "a Python pickle, which is never loaded", _COPY),
    (0, b"\x80\x05\x95", "a Python pickle, which is never loaded", _COPY),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"%PDF", "a PDF document", _COPY),
    (0, b"RDX", "an R data file", _COPY),
    (0, b"RDA", "an R data file", _COPY),
    (0, b"\x93NUMPY", "a NumPy array", _COPY),
    (0, b"$FL2", "an SPSS file", _COPY),
    (
        8,
        b"DUCK",
        "a DuckDB database",
        "in DuckDB, COPY (SELECT …) TO 'ratings.parquet', and name that file",
    ),
)
_PAGES = (b"<!doctype html", b"<html", b"<?xml")


def compression_of(head: bytes) -> str | None:
    """fsspec's name of the compression method; None if the file is not compressed.

    Args:
        head: Its first bytes.
    """
    if head.startswith(_BZIP2) and head[_BZIP2_PLACE:].startswith(_BZIP2_BLOCK):
        return "bz2"
    return next((name for mark, name in _COMPRESSIONS.items() if head.startswith(mark)), None)


def is_json(head: bytes) -> bool:
    """Whether a text starts like JSON objects, one per line or in an array.

    Args:
        head: Its first bytes.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").split()
    text = b"".join(start)
    return text.startswith((b'{"', b'[{"'))


def check_is_table(head: bytes, name: str) -> None:
    """Checks that a file may be text with columns.

    Args:
        head: Its first bytes, decompressed.
        name: Its name, for the error message.

    Raises:
        RatingsError: It is of another known kind; the message names it and says what to do.
    """
    for position, mark, kind, advice in _OTHERS:
        if head[position:].startswith(mark):
            raise RatingsError(f"{name}: this is {kind}, not a table of text; {advice}")
    if head.lstrip().lower().startswith(_PAGES):
        raise RatingsError(
            f"{name}: this is a web page, not a table; download the file that it links to"
        )
