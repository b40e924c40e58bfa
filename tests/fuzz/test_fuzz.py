"""No damaged input ends in anything but its parser's own error (short form of `make fuzz`)."""

from __future__ import annotations

from pathlib import Path

from fuzz.run import Progress, fuzz, fuzz_target
from fuzz.targets import Target, all_targets

# Of all parsers together. Another seed than that of the command, so that both find their own.
_INPUTS, _SEED = 1_500, 7


def test_no_damaged_input_ends_in_anything_but_its_own_error(tmp_path: Path) -> None:
    """Every parser gets its share of inputs; most of them are refused."""
    folder = tmp_path / "files"
    folder.mkdir()
    progress = fuzz(all_targets(folder), _SEED, _INPUTS, tmp_path / "fuzz")
    found = sorted((tmp_path / "fuzz").rglob("*.txt"))
    assert not found, found[0].read_text()
    done = sum(one.done for one in progress.values())
    assert done >= _INPUTS
    assert sum(one.refused for one in progress.values()) > done // 2
    assert all(one.refused for name, one in progress.items() if name not in _HARDLY_EVER)


# Parsers that accept nearly everything, or do not refuse by raising.
_HARDLY_EVER = {"ids of lists", "scoring requests"}


def test_what_is_found_is_kept_and_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Each input is given once, and that which breaks a parser lies in the folder."""
    given: list[bytes] = []

    def parse(data: bytes) -> None:
        given.append(data)
        if len(given) == 3:
            raise ZeroDivisionError("not a parser's own error")

    target = Target("broken", 1, [b"abcdefgh" * 8], parse, (ValueError,))
    fuzz([target], 0, 10, tmp_path)
    progress = fuzz([target], 0, 20, tmp_path)["broken"]
    assert (progress.done, progress.findings) == (20, [2])
    again: list[bytes] = []
    fuzz_target(
        Target("broken", 1, [b"abcdefgh" * 8], again.append, ()), 0, range(20), Progress(), tmp_path
    )
    assert given == again
    assert (tmp_path / "findings" / "broken-2.input").read_bytes() == given[2]
    assert "ZeroDivisionError" in (tmp_path / "findings" / "broken-2.txt").read_text()
