"""Signed releases: only releases signed with a trusted key are opened or promoted."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from marquee_core.errors import ArtifactError
from marquee_core.release.signing import KeyFileError, Signer, TrustedKeys, generate_key
from marquee_core.release.store import ReleaseStore
from marquee_services.commands.releases import releases
from toy.bare_release import make_release


def new_key(folder: Path, name: str) -> tuple[Signer, Path]:
    """Create a key, and return its signer and the file of its public key."""
    public, _ = generate_key(folder / name)
    return Signer.load(folder / name), public


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    return str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}-sig"


def test_a_signed_release_is_accepted(url: str, tmp_path: Path) -> None:
    """A store accepts it if it trusts the key, even among others, or if it has no trusted keys."""
    signer, public = new_key(tmp_path, "a")
    _, other = new_key(tmp_path, "b")
    both = tmp_path / "both.pem"
    both.write_text(other.read_text() + public.read_text())
    manifest = make_release(tmp_path / "made")
    ReleaseStore(url, signer=signer).publish(tmp_path / "made", manifest)
    assert ReleaseStore(url).manifest(manifest.release_id) == manifest
    trusting = ReleaseStore(url, trusted=TrustedKeys.load(both), signer=signer)
    assert trusting.promote(manifest.release_id).release_id == manifest.release_id


def test_unsigned_and_untrusted_releases_are_refused(url: str, tmp_path: Path) -> None:
    """They are neither promoted nor rolled back to, until a valid signature is added."""
    signer, public = new_key(tmp_path, "a")
    foreign, _ = new_key(tmp_path, "b")
    trusting = ReleaseStore(url, trusted=TrustedKeys.load(public))
    manifest = make_release(tmp_path / "made")
    plain = ReleaseStore(url)
    plain.publish(tmp_path / "made", manifest)
    with pytest.raises(ArtifactError, match="is not signed"):
        trusting.promote(manifest.release_id)
    plain.sign(manifest.release_id, foreign)
    with pytest.raises(ArtifactError, match="not signed by any of the trusted keys"):
        trusting.manifest(manifest.release_id)
    plain.sign(manifest.release_id, signer)
    assert trusting.manifest(manifest.release_id) == manifest
    assert ReleaseStore(url, trusted=TrustedKeys({})).trusted is not None


def test_a_manifest_changed_after_signing_is_refused(tmp_path: Path) -> None:
    """The manifest is refused even though it is valid and matches its files."""
    signer, public = new_key(tmp_path, "a")
    store = ReleaseStore(str(tmp_path / "store"), signer=signer)
    manifest = make_release(tmp_path / "made")
    store.publish(tmp_path / "made", manifest)
    path = tmp_path / "store" / "releases" / manifest.release_id / "manifest.json"
    path.write_text(path.read_text().replace('"test"', '"tost"'))
    assert store.manifest(manifest.release_id).data.source == "tost"
    store.trusted = TrustedKeys.load(public)
    with pytest.raises(ArtifactError, match="signature was changed"):
        store.manifest(manifest.release_id)


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_key_files_without_keys_are_refused(tmp_path: Path, content: str) -> None:
    """An empty file does not mean that every key is trusted."""
    path = tmp_path / "keys.pem"
    path.write_text(content)
    with pytest.raises(KeyFileError, match=r"keys\.pem"):
        TrustedKeys.load(path)
    with pytest.raises(KeyFileError, match=r"keys\.pem"):
        Signer.load(path)


def test_a_missing_key_file_is_named_once(tmp_path: Path) -> None:
    """The error is that of the file, not that its content is no key."""
    path = tmp_path / "nope.pem"
    for load in (Signer.load, TrustedKeys.load):
        with pytest.raises(KeyFileError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: No such file or directory"


def test_keys_are_created_and_used_from_the_command_line(tmp_path: Path) -> None:
    """Only the owner can read the private key, and no key is ever overwritten."""
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = make_release(tmp_path / "made")
    store.publish(tmp_path / "made", manifest)
    key = tmp_path / "key"

    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(releases, ["--store", store.url, *arguments])
        assert result.exit_code == status, result.output
        assert status == 0 or len(result.stderr.splitlines()) == 1
        return str(result.output)

    run("keygen", str(key))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    run("keygen", str(key), status=1)
    trust = ("--trusted-keys", f"{key}.pub")
    assert "is not signed" in run(*trust, "promote", manifest.release_id, status=1)
    run(*trust, "sign", manifest.release_id, "--signing-key", str(key))
    unsigned = run(*trust, "promote", "--force", manifest.release_id, status=1)
    assert "--signing-key" in unsigned
    assert store.production() is None
    run(*trust, "--signing-key", str(key), "promote", "--force", manifest.release_id)
    assert "no public key" in run("--trusted-keys", str(key), "list", status=1)


def test_only_a_signed_pointer_is_accepted(tmp_path: Path) -> None:
    """Write access to the store does not suffice to choose among the signed releases."""
    signer, public = new_key(tmp_path, "a")
    url = str(tmp_path / "store")
    keys = TrustedKeys.load(public)
    store = ReleaseStore(url, trusted=keys, signer=signer)
    ids = []
    for place in range(3):
        folder = tmp_path / f"made-{place}"
        manifest = make_release(folder, text=str(place))
        store.publish(folder, manifest)
        store.promote(manifest.release_id)
        ids.append(manifest.release_id)
    path = tmp_path / "store" / "production"
    signed = path.read_bytes()
    server = ReleaseStore(url, trusted=keys)
    found = server.production()
    assert found is not None
    assert found.release_id == ids[2]

    path.write_bytes(signed.replace(f'"release_id": "{ids[2]}"'.encode(), b'"release_id": "x"'))
    with pytest.raises(ArtifactError, match="signature was changed"):
        server.production()
    ReleaseStore(url).promote(ids[0])
    with pytest.raises(ArtifactError, match="is not signed"):
        server.production()
    # An earlier pointer was also signed; a server that has seen a later one refuses it.
    path.write_bytes((tmp_path / "store" / "audit" / "00000001.json").read_bytes())
    with pytest.raises(ArtifactError, match="older than one that was read before"):
        server.production()
    # A signed promotion repairs the pointer, and keeps nothing that is not signed.
    repaired = store.promote(ids[1])
    assert repaired.history == (ids[2], ids[1], ids[0])
    assert server.production() == repaired


def test_a_replayed_pointer_is_detected_after_a_restart(tmp_path: Path) -> None:
    """It is detected by what this machine has read before, and on a new machine by the audit."""
    signer, public = new_key(tmp_path, "a")
    url, state_folder = str(tmp_path / "store"), tmp_path / "state"
    keys = TrustedKeys.load(public)
    store = ReleaseStore(url, trusted=keys, signer=signer)
    path, files = tmp_path / "store" / "production", []
    for place in range(2):
        folder = tmp_path / f"made-{place}"
        manifest = make_release(folder, text=str(place))
        store.publish(folder, manifest)
        store.promote(manifest.release_id)
        files.append(path.read_bytes())
    ReleaseStore(url, trusted=keys, state_folder=state_folder).production()
    path.write_bytes(files[0])
    with pytest.raises(ArtifactError, match="older than the audit"):
        ReleaseStore(url, trusted=keys).production()
    for record in (tmp_path / "store" / "audit").iterdir():
        record.unlink()
    restarted = ReleaseStore(url, trusted=keys, state_folder=state_folder)
    with pytest.raises(ArtifactError, match="older than one that was read before"):
        restarted.production()
    path.write_bytes(files[1])
    assert restarted.production() is not None
