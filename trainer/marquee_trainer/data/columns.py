"""Chooses the columns of a table that hold the user, the item, the rating and the time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marquee_trainer.data.errors import RatingsError

USER, ITEM, RATING, COUNT, TIME = "user", "item", "rating", "count", "time"
ROLES = (USER, ITEM, RATING, COUNT, TIME)
BY_ORDER = "found by their order; there is no header"
"""The basis of a choice of columns without names."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Common column names in lower case, without spaces and punctuation, in order of preference.
_COMMON_NAMES: Mapping[str, tuple[str, ...]] = {
    USER: _words(
        "userid user uid useruuid reviewerid reviewer customerid customer accountid account "
        "memberid member visitorid visitor profileid profile personid person clientid client "
        "readerid reader viewerid viewer listenerid listener playerid player subscriberid "
        "shopperid buyerid raterid rater householdkey sessionid session username userno userkey"
    ),
    ITEM: _words(
        "itemid item iid movieid movie filmid film parentasin asin productid product isbn bookid "
        "book trackid track songid song artistid artist albumid album articleid article "
        "showid show animeid anime gameid game jokeid joke recipeid recipe businessid business "
        "contentid content videoid video courseid course placeid place venueid venue newsid "
        "postid eventid sku stockcode objectid itemno itemkey itemname moviename "
        "filmname productname movietitle filmtitle title"
    ),
    RATING: _words(
        "rating ratings stars star score userrating bookrating starrating movierating "
        "reviewscore reviewrating overall rate vote value grade mark preference opinion feedback "
        "thumb thumbs liked like recommended isrecommended"
    ),
    COUNT: _words(
        "count plays playcount listens listencount views viewcount clicks clickcount purchases "
        "purchasecount quantity qty watches watchcount interactions frequency orders hours "
        "playtime hoursplayed weight"
    ),
    TIME: _words(
        "timestamp time ts unixtimestamp unixreviewtime datetime date createdat created ratedat "
        "reviewtime reviewdate ratingtimestamp ratingtime ratingdate eventtime eventtimestamp "
        "eventdate updatedat orderdate invoicedate purchasedate playedat watchedat viewedat "
        "listenedat when at"
    ),
}
# Words that indicate a column of ratings or times in a longer name, such as `My Score (of 10)`.
_INDICATIVE_WORDS: Mapping[str, frozenset[str]] = {
    TIME: frozenset(_words("date time timestamp datetime")),
    RATING: frozenset(_words("rating score stars")),
}
# Words that indicate a property of the item or the user rather than an action of the user.
_MISLEADING_WORDS = frozenset(
    _words(
        "average avg mean median total sum count number num no release released publication "
        "published birth joined signup registered imdb critic critics predicted zone running play"
    )
)
_MOST_UNUSED = 8  # number of unused columns that are listed
_MOST_LISTED = 20  # number of columns in an error message
_WIDE = 20  # number of columns from which on a table may be a matrix of users and items
_GREAT_NUMBER = re.compile(r"\d{8,}")
_PUNCTUATION = re.compile(r"[\W_]+")
_TYPE = re.compile(r":(?:token|float|int|str|string|long|double)(?:_seq)?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnChoice:
    """The position of each role's column in a table, counted from 0.

    Attributes:
        header: The names of all columns.
        positions: The position of each role that has a column.
        basis: How the columns were chosen: as specified, by their names or by their order.
    """

    header: tuple[str, ...]
    positions: Mapping[str, int]
    basis: str

    @property
    def names(self) -> dict[str, str]:
        """The name of each role's column."""
        return {role: self.header[index] for role, index in self.positions.items()}

    @property
    def unused(self) -> tuple[str, ...]:
        """The names of the columns that have no role."""
        used = set(self.positions.values())
        return tuple(name for index, name in enumerate(self.header) if name and index not in used)

    def unused_note(self) -> str:
        """A note on columns that are not used and how to use them; empty if all are used."""
        unused = self.unused
        if not unused:
            return ""
        names = ", ".join(unused[:_MOST_UNUSED])
        if len(unused) > _MOST_UNUSED:
            names += f" and {len(unused) - _MOST_UNUSED:,} more"
        if RATING in self.positions and TIME in self.positions:
            return f"columns not used: {names}"
        return (
            f"columns not used: {names}; name them with --columns user=…,item=…,{RATING}=…,{TIME}=…"
        )

    def __str__(self) -> str:
        parts = ", ".join(f"{role}={name}" for role, name in self.names.items())
        return f"{parts} ({self.basis})"


def parse_columns(text: str) -> dict[str, str]:
    """Parses `user=…,item=…,rating=…,time=…`: a column's name or position for each role.

    Raises:
        RatingsError: A part is malformed, a role is unknown or given twice, or the user or the item
            is missing.
    """
    given = parse_roles(text, ROLES, "--columns")
    if given and not {USER, ITEM} <= set(given):
        raise RatingsError("--columns must name the columns of user=… and item=…")
    return given


def parse_roles(text: str, roles: Sequence[str], option: str) -> dict[str, str]:
    """Parses `role=column,…`: a column's name or position for each of some roles.

    Args:
        text: The text.
        roles: The known roles.
        option: The option that holds the text, for error messages.

    Raises:
        RatingsError: A part is malformed, or a role is unknown or given twice.
    """
    given: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if role not in roles or not equals or not name or role in given:
            raise RatingsError(
                f"{option}: {part!r} is not one of {', '.join(f'{role}=…' for role in roles)}, "
                f"each at most once"
            )
        given[role] = name
    return given


def choose_columns(header: Sequence[str], given: Mapping[str, str], name: str) -> ColumnChoice:
    """Chooses the columns of a table.

    Args:
        header: The names of its columns.
        given: The name, or the position counted from 1, of each role's column; empty to recognise
            columns by common names.
        name: The table's name, for error messages.

    Raises:
        RatingsError: A given column does not exist, or the columns of user and item are not
            recognised.
    """
    if given:
        positions = {role: position_of(header, column, name) for role, column in given.items()}
        if len(set(positions.values())) < len(positions):
            raise RatingsError(f"{name}: --columns names a column twice")
        return ColumnChoice(tuple(header), positions, "as given")
    positions = recognise(header)
    missing = [role for role in (USER, ITEM) if role not in positions]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        hint = f"name {them} with --columns user=…,item=…[,rating=…][,time=…]"
        if ITEM in missing and len(header) > _WIDE:
            hint += "; a matrix with a column for each item must be written as one row per rating"
        raise RatingsError(
            f"{name}: no column is recognised as {' or '.join(f'the {role}' for role in missing)} "
            f"among {_listed(header)}; {hint}"
        )
    positions |= _recognise_by_words(header, positions)
    if RATING in positions:
        positions.pop(COUNT, None)
    return ColumnChoice(tuple(header), positions, "found by their names")


def columns_by_order(width: int, sample: Sequence[str]) -> ColumnChoice:
    """Assigns roles to the columns of a table without a header: user, item, rating and time.

    Args:
        width: The number of columns.
        sample: The values of one row. If there are three columns, a large number in the third is a
            time.
    """
    roles = [USER, ITEM, RATING, TIME]
    if width == len(roles) - 1 and _GREAT_NUMBER.match(sample[2].strip()):
        roles.remove(RATING)
    positions = dict(zip(roles, range(width), strict=False))
    header = tuple(str(index) for index in range(1, width + 1))
    return ColumnChoice(header, positions, BY_ORDER)


def recognise(header: Sequence[str]) -> dict[str, int]:
    """Recognises columns by common names; returns the position of each recognised role."""
    plain = [plain_name(name) for name in header]
    found: dict[str, int] = {}
    for role, names in _COMMON_NAMES.items():
        position = next((plain.index(name) for name in names if name in plain), None)
        if position is not None and position not in found.values():
            found[role] = position
    return found


def _recognise_by_words(header: Sequence[str], found: Mapping[str, int]) -> dict[str, int]:
    """Recognises missing columns of ratings and times by single words in longer names.

    A role with several matching columns stays unassigned, and so does the rating if there is a
    count.
    """
    words = [frozenset(_PUNCTUATION.sub(" ", name).lower().split()) for name in header]
    recognised: dict[str, int] = {}
    for role, indicative in _INDICATIVE_WORDS.items():
        taken = {*found.values(), *recognised.values()}
        indexes = [
            index
            for index, name in enumerate(words)
            if index not in taken and name & indicative and not name & _MISLEADING_WORDS
        ]
        wanted = role not in found and not (role == RATING and COUNT in found)
        if wanted and len(indexes) == 1:
            recognised[role] = indexes[0]
    return recognised


def plain_name(name: str) -> str:
    """Normalises a column's name: lower case, without spaces and punctuation.

    A type after a colon, as in `user_id:token` (RecBole's atomic files), is removed too.
    """
    return _PUNCTUATION.sub("", _TYPE.sub("", name)).lower()


def _listed(header: Sequence[str]) -> str:
    """Lists column names for a message; only the first ones if there are many."""
    shown = ", ".join(map(repr, header[:_MOST_LISTED])) or "no columns"
    more = len(header) - _MOST_LISTED
    return f"{shown} and {more:,} more" if more > 0 else shown


def position_of(header: Sequence[str], column: str, name: str) -> int:
    """The position of a column of a table, counted from 0.

    Args:
        header: The names of the columns.
        column: The column's name, or its position counted from 1.
        name: The table's name, for error messages.

    Raises:
        RatingsError: There is no such column.
    """
    for same in (str, str.casefold, plain_name):
        matches = [index for index, title in enumerate(header) if same(title) == same(column)]
        if len(matches) == 1:
            return matches[0]
    if column.isdecimal() and 1 <= int(column) <= len(header):
        return int(column) - 1
    raise RatingsError(f"{name}: there is no column {column!r}; the columns are {_listed(header)}")
