"""Converts columns of a table to ratings and timestamps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from marquee_core.arrays import Bool, Float32
from marquee_trainer.data.chunked import ChunkedArray
from marquee_trainer.data.plain_columns import Categories, categories

# Numbers from these on are nano-, micro- or milliseconds rather than seconds.
_UNITS = (
    (10**17, 10**9, "nanoseconds"),
    (10**14, 10**6, "microseconds"),
    (10**11, 10**3, "milliseconds"),
)
# Number of values at the start of a column from which the unit is detected.
_SAMPLE = 10_000
_DAY_NUMBERS = (19_000_101, 21_001_231)  # dates written as one number, such as 20240131
# Excel's numbers of days from 1954 to 2119.
_EXCEL_DAYS = (20_000, 80_000)
_FIRST_SECONDS = 10**8  # 1973; lower numbers are hardly ever times of ratings
_POSITIVE = ("up", "thumbs up", "thumbsup", "like", "liked", "yes", "true", "positive", "👍")
_NEGATIVE: tuple[str, ...] = (
    "down",
    "thumbs down",
    "thumbsdown",
    "dislike",
    "disliked",
    "no",
    "false",
)
_NEGATIVE += ("negative", "👎")
_WORDS = dict.fromkeys(_POSITIVE, 1.0) | dict.fromkeys(_NEGATIVE, 0.0)
_THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$"
_ISO_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
# Other formats; a column has one of them. Each is tried with and without a time of day.
_OTHER_FORMATS = {
    "%Y/%m/%d": "dates",
    "%d.%m.%Y": "dates",
    "%m/%d/%Y": "dates, month first",
    "%d/%m/%Y": "dates, day first",
    "%m %d, %Y": "dates",
    "%B %d, %Y": "dates",
    "%d %B %Y": "dates",
    "%d-%b-%Y": "dates",
}
_MONTH_FIRST, _DAY_FIRST = "%m/%d/%Y", "%d/%m/%Y"
_TIMES_OF_DAY = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p")
# As in e-mail and HTTP (RFC 5322): `Sun, 13 Sep 2020 14:26:40 GMT`, or with an offset.
_MAIL_FORMATS = ("%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S %z")
_ZONED_FORMAT = "%Y-%m-%d %H:%M:%S%.f%#z"


class Ratings(NamedTuple):
    """A converted column of ratings.

    Attributes:
        values: The ratings; NaN where a value is not a rating (float32, n).
        bad: True for values that are not ratings (bool, n); None if all are.
    """

    values: ChunkedArray[np.float32]
    bad: Bool | None


class Times(NamedTuple):
    """A converted column of times.

    Attributes:
        values: Seconds since 1970; 0 where a value is not a time (int32 or int64, n).
        bad: True for values that are not times (bool, n); None if all are.
        form: The format of the times, such as `seconds` or `dates`.
        note: A doubt about the times, in one sentence; empty if there is none.
    """

    values: ChunkedArray[np.int32] | ChunkedArray[np.int64]
    bad: Bool | None
    form: str
    note: str = ""


def parse_rating_column(column: pl.Series) -> Ratings:
    """Converts ratings: numbers, Booleans, or words such as `up` and `down`.

    If three digits follow every comma, commas separate thousands. Otherwise they are decimal
    commas, if no value has a decimal point.
    """
    if isinstance(column.dtype, pl.Enum) and not column.null_count():
        return _from_categories(categories(column))
    if column.dtype == pl.String:
        numbers = column.cast(pl.Float32, strict=False)
        if numbers.null_count():
            numbers = _from_words(column)
    else:
        numbers = column.cast(pl.Float32, strict=False)
    values: Float32 = numbers.fill_null(float("nan")).to_numpy()
    bad = ~np.isfinite(values)
    return Ratings(ChunkedArray([values]), bad if bad.any() else None)


def _from_categories(column: Categories) -> Ratings:
    """Converts each occurring text only once."""
    used = np.flatnonzero(column.counts)
    texts = pl.Series([column.texts[position] for position in used.tolist()], dtype=pl.String)
    table = np.full(len(column.texts), np.nan, dtype=np.float32)
    found = parse_rating_column(texts)
    table[used] = found.values.array
    values = ChunkedArray(column.chunks, table, used)
    return Ratings(values, None if found.bad is None else ~np.isfinite(values.array))


def _from_words(column: pl.Series) -> pl.Series:
    distinct = column.unique()
    text = distinct.fill_null("").str.strip_chars().str.to_lowercase()
    has_comma = text.str.contains(",", literal=True)
    if has_comma.any() and bool(text.filter(has_comma).str.contains(_THOUSANDS).all()):
        text = text.str.replace_all(",", "", literal=True)
    elif has_comma.any() and not text.str.contains(r"\d\.\d").any():
        text = text.str.replace(",", ".", literal=True)
    text = text.str.replace("−", "-", literal=True)
    numbers = text.cast(pl.Float32, strict=False)
    words = text.replace_strict(_WORDS, default=None, return_dtype=pl.Float32)
    return column.replace_strict(
        distinct, numbers.fill_null(words) if numbers.null_count() else numbers
    ).cast(pl.Float32)


def parse_time_column(column: pl.Series) -> Times | None:
    """Converts times: seconds or smaller units since 1970, dates, and ISO 8601 among others.

    Times without a zone are in UTC.

    Returns:
        The times; None if all values are missing.
    """
    if column.null_count() == len(column):
        return None
    if column.dtype == pl.String:
        numbers = column.cast(pl.Int64, strict=False)
        if numbers.null_count():
            column = column.str.strip_chars()
            numbers = column.cast(pl.Float64, strict=False)
        if numbers.null_count() * 2 > len(column):
            return _from_text(column)
        return _from_numbers(numbers)
    if column.dtype in (pl.Date, pl.Datetime) or isinstance(column.dtype, pl.Datetime):
        form = "dates" if column.dtype == pl.Date else "dates with time"
        return _times(column.cast(pl.Datetime("us")).dt.epoch("s"), form)
    return _from_numbers(column)


def _from_numbers(numbers: pl.Series) -> Times:
    if numbers.dtype.is_float():
        numbers = numbers.fill_nan(None)
    elif numbers.dtype.is_integer() and numbers.dtype != pl.Int32:
        # NumPy has no 128-bit integers; such large numbers are not times.
        numbers = numbers.cast(pl.Int64, strict=False)
    known = numbers.drop_nulls()
    low, high = _DAY_NUMBERS
    if len(known) and bool(known.is_between(low, high).all()):
        dates = numbers.cast(pl.Int64).cast(pl.String).str.to_date("%Y%m%d", strict=False)
        if dates.null_count() == numbers.null_count():
            return _times(dates.cast(pl.Datetime("us")).dt.epoch("s"), "dates as numbers")
    middle = float(np.median(np.abs(known.head(_SAMPLE).to_numpy()))) if len(known) else 0.0
    for least, divisor, unit in _UNITS:
        if middle >= least:
            return _times((numbers // divisor).cast(pl.Int64, strict=False), unit)
    if numbers.dtype.is_float():
        numbers = numbers.floor()
    is_short = numbers.dtype == pl.Int32
    found = _times(numbers if is_short else numbers.cast(pl.Int64, strict=False), "seconds")
    return found._replace(note=_doubt(known))


def _doubt(seconds: pl.Series) -> str:
    """A note on numbers that are read as seconds since 1970 but probably mean something else."""
    if not len(seconds):
        return ""
    if bool(seconds.is_between(*_EXCEL_DAYS).all()):
        low, high = np.quantile(seconds.to_numpy(), (0.0, 1.0)).tolist()
        return (
            f"the times {low:g} to {high:g} are read as seconds since 1970, but look like Excel's "
            "numbers of days; write them as dates, such as 2024-12-31"
        )
    zeros = int((seconds == 0).sum())
    if zeros and bool((seconds.filter(seconds != 0) >= _FIRST_SECONDS).all()):
        return (
            f"{zeros:,} of {len(seconds):,} times are 0, which means 1970-01-01; if they are "
            "unknown, leave them empty, and --on-missing skip leaves out their rows"
        )
    return ""


def _from_text(column: pl.Series) -> Times:
    text = column.str.replace("T", " ", literal=True)
    zoned = text.str.to_datetime(_ZONED_FORMAT, strict=False, time_unit="us", time_zone="UTC")
    iso = zoned.dt.replace_time_zone(None)
    for form in _ISO_FORMATS:
        if iso.null_count():
            iso = iso.fill_null(_parsed(text, form))
    best, name = iso, "ISO 8601"
    for form in _MAIL_FORMATS if best.null_count() else ():
        values = _parsed(column, form)
        if values.null_count() < best.null_count():
            best, name = values, "dates of e-mail"
    for date, description in _OTHER_FORMATS.items():
        for time_of_day in _TIMES_OF_DAY:
            if not best.null_count():
                break
            values = _parsed(column, date + time_of_day)
            if values.null_count() < best.null_count():
                best, name = values, description
    found = _times(best.dt.epoch("s"), name if best.null_count() < len(best) else "text")
    if name == _OTHER_FORMATS[_MONTH_FIRST] and not best.null_count():
        for time_of_day in _TIMES_OF_DAY:
            if not _parsed(column, _DAY_FIRST + time_of_day).null_count():
                note = (
                    "the dates can be read with the month or the day first, and are read with the "
                    "month first; if that is wrong, write them as 2024-12-31"
                )
                return found._replace(note=note)
    return found


def _parsed(text: pl.Series, form: str) -> pl.Series:
    if "%z" in form:
        zoned = text.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
        return zoned.dt.replace_time_zone(None)
    if "%M" in form:
        return text.str.to_datetime(form, strict=False, time_unit="us")
    return text.str.to_date(form, strict=False).cast(pl.Datetime("us"))


def _times(seconds: pl.Series, form: str) -> Times:
    if seconds.dtype != pl.Int32:
        seconds = seconds.cast(pl.Int64)
    if not seconds.null_count():
        return Times(ChunkedArray.of_series(seconds), None, form)
    known = ChunkedArray.of_series(seconds.fill_null(0))
    return Times(known, seconds.is_null().to_numpy(), form)
