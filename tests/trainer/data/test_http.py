"""Ratings are read from web servers, and errors name the address without its secrets."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.source import load_ratings
from toy.rating_formats import PLAIN, read_back
from toy.ratings_files import GROUPLENS, ROWS, frame_of, zipped

ITEMS = "item,title,director\nb1,A,Reyes\nb2,B,\n"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without logging; the response for `broken.csv` is truncated."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a request."""
        if not self.path.startswith("/broken.csv"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(PLAIN.encode())
        self.close_connection = True
        return None

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a web server for `tmp_path`."""
    handler = partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz", "r.parquet", "r.jsonl"])
def test_files_of_ratings_are_read_from_a_web_server(
    name: str, server: str, tmp_path: Path
) -> None:
    """Files may be compressed, and a query in the URL is omitted from the recorded source."""
    (tmp_path / "r.csv").write_text(PLAIN)
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(PLAIN.encode()))
    frame_of(ROWS).write_parquet(tmp_path / "r.parquet")
    frame_of(ROWS).write_ndjson(tmp_path / "r.jsonl")
    (tmp_path / "i.csv").write_text(ITEMS)
    options = ReadOptions(items=f"{server}/i.csv")
    dataset = load_ratings(f"{server}/{name}?token=secret", options=options).dataset
    assert sorted(read_back(dataset)) == sorted(ROWS)
    assert dataset.source == f"{server}/{name}"
    assert dataset.attributes == {"director": ["Reyes", ""]}


def test_a_zip_file_of_grouplens_is_read_from_a_web_server(server: str, tmp_path: Path) -> None:
    """The titles are read along with the ratings."""
    zipped({f"ml/{name}": text for name, text in GROUPLENS.items()})(tmp_path)
    dataset = load_ratings(f"{server}/data.zip").dataset
    assert (dataset.source, dataset.catalogue.title(0)) == ("grouplens:data", "The Matrix")


@pytest.mark.parametrize("name", ["missing.csv", "missing.zip", "broken.csv"])
def test_a_failed_download_is_reported_in_one_line(name: str, server: str) -> None:
    """The error names the address without user, password and query."""
    url = server.replace("://", "://ann:secret@")
    with pytest.raises(RatingsError) as caught:
        load_ratings(f"{url}/{name}?token=secret")
    assert str(caught.value).startswith(f"{server}/{name}")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_an_error() -> None:
    """Nothing listens at the address."""
    with pytest.raises(RatingsError, match=r"http://127\.0\.0\.1:9/r\.csv"):
        load_ratings("http://127.0.0.1:9/r.csv")
