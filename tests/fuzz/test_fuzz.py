"""Parsers refuse damaged input with their own errors only (short form of `make fuzz`)."""

from __future__ import annotations

from pathlib import Path

from fuzz.run import Progress, fuzz, fuzz_target
from fuzz.targets import Target, all_targets

# For all parsers together. The seed differs from the command's default, to cover other inputs.
_INPUTS, _SEED = 1_500, 7


def test_parsers_refuse_damaged_input_with_their_own_errors(tmp_path: Path) -> None:
    """Every parser gets its share of the inputs, most inputs are refused, and none is a finding."""
    folder = tmp_path / "files"
    folder.mkdir()
    progress = fuzz(all_targets(folder), _SEED, _INPUTS, tmp_path / "fuzz")
    found = sorted((tmp_path / "fuzz").rglob("*.txt"))
    assert not found, found[0].read_text()
    done = sum(one.done for one in progress.values())
    assert done >= _INPUTS
    assert sum(one.refused for one in progress.values()) > done // 2
    assert all(one.refused for name, one in progress.items() if name not in _RARELY_REFUSED)


# Parsers that accept nearly every input, or do not raise on refusal.
_RARELY_REFUSED = {"list ids", "scoring requests"}


def test_findings_are_stored_and_an_interrupted_run_resumes(tmp_path: Path) -> None:
    """Each input is parsed once, and the input that breaks a parser is stored in the folder."""
    parsed: list[bytes] = []

    def parse(data: bytes) -> None:
        parsed.append(data)
        if len(parsed) == 3:
            raise ZeroDivisionError("not a parser's own error")

    target = Target("broken", 1, [b"abcdefgh" * 8], parse, (ValueError,))
    fuzz([target], 0, 10, tmp_path)
    progress = fuzz([target], 0, 20, tmp_path)["broken"]
    assert (progress.done, progress.findings) == (20, [2])
    again: list[bytes] = []
    fuzz_target(
        Target("broken", 1, [b"abcdefgh" * 8], again.append, ()), 0, range(20), Progress(), tmp_path
    )
    assert parsed == again
    assert (tmp_path / "findings" / "broken-2.input").read_bytes() == parsed[2]
    assert "ZeroDivisionError" in (tmp_path / "findings" / "broken-2.txt").read_text()
