"""Tells what a file is by its first bytes, whatever its name says."""

from __future__ import annotations

from marquee_trainer.data.errors import RatingsError

HEAD_BYTES = 512
"""The bytes at the start of a file that tell its kind."""
PARQUET_MARK, ARROW_MARK = b"PAR1", b"ARROW1"

# Compressed files, with the names that fsspec gives to how they are compressed.
_COMPRESSIONS = {
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
}
_BZIP2, _BZIP2_BLOCK, _BZIP2_PLACE = b"BZh", b"1AY&SY", 4
_COPY = "write it as CSV, JSON lines or Parquet"
EXCEL = "in Excel, save the sheet as CSV UTF-8"
"""What can be done with a workbook."""
_UNPACK = "unpack it, and name the file or the folder in it"
# Other kinds: the place of a mark, the mark, what the file is, and what can be done.
_OTHERS = (
    (0, b"PK\x03\x04", "a zip archive or an Excel workbook", f"unpack it, or {EXCEL}"),
    (0, b"\xd0\xcf\x11\xe0", "an Excel workbook", EXCEL),
    (0, b"Obj\x01", "an Avro file", _COPY),
    (0, b"ORC", "an ORC file", _COPY),
    (0, b"\x89HDF", "an HDF5 file", _COPY),
    (0, b"\x80\x04\x95", "a pickle of Python, which is never loaded", _COPY),
    (0, b"\x80\x05\x95", "a pickle of Python, which is never loaded", _COPY),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"%PDF", "a PDF document", _COPY),
    (0, b"RDX", "a file of R", _COPY),
    (0, b"RDA", "a file of R", _COPY),
    (0, b"\x93NUMPY", "an array of NumPy", _COPY),
    (0, b"$FL2", "a file of SPSS", _COPY),
    (
        8,
        b"DUCK",
        "a DuckDB database",
        "in DuckDB, COPY (SELECT …) TO 'ratings.parquet', and name that file",
    ),
)
_PAGES = (b"<!doctype html", b"<html", b"<?xml")


def compression_of(head: bytes) -> str | None:
    """How a file is compressed, as fsspec names it; None if it is not.

    Args:
        head: Its first bytes.
    """
    if head.startswith(_BZIP2) and head[_BZIP2_PLACE:].startswith(_BZIP2_BLOCK):
        return "bz2"
    return next((name for mark, name in _COMPRESSIONS.items() if head.startswith(mark)), None)


def is_json(head: bytes) -> bool:
    """Whether a text begins as JSON objects do, one per line or in an array.

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
        RatingsError: It is of another known kind; the message says which, and what can be done.
    """
    for place, mark, kind, advice in _OTHERS:
        if head[place:].startswith(mark):
            raise RatingsError(f"{name}: this is {kind}, not a table of text; {advice}")
    if head.lstrip().lower().startswith(_PAGES):
        raise RatingsError(
            f"{name}: this is a web page, not a table; download the file that it links to"
        )
