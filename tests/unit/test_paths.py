"""Runtime and state folders: which ones, and which are refused."""

import os
import socket
from pathlib import Path

import pytest

from hostd import notify
from hostd.errors import HostError
from hostd.paths import Paths, lock_state, prepare, resolve


def test_flag_goes_before_environment_before_default() -> None:
    environ = {"PARTVISOR_RUNTIME_DIR": "/e/run", "PARTVISOR_STATE_DIR": "/e/state", "XDG_RUNTIME_DIR": "/x"}
    assert resolve("/f/run", "/f/state", environ) == Paths(Path("/f/run"), Path("/f/state"))
    assert resolve(None, None, environ) == Paths(Path("/e/run"), Path("/e/state"))
    assert resolve(None, None, {"XDG_RUNTIME_DIR": "/x", "XDG_STATE_HOME": "/s"}) == Paths(
        Path("/x/partvisor"), Path("/s/partvisor"))
    assert resolve("relative", None, {}).runtime == Path.cwd() / "relative"


def test_a_named_runtime_folder_brings_its_own_state() -> None:
    """Two hosts side by side must never share one resource database."""
    one, two = resolve("/a", None, {"XDG_STATE_HOME": "/s"}), resolve("/b", None, {"XDG_STATE_HOME": "/s"})
    assert one.state != two.state
    assert one.state == Path("/a/state")


def test_defaults_by_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert resolve(None, None, {}) == Paths(Path("/run/partvisor"), Path("/var/lib/partvisor"))
    assert resolve(None, None, {"XDG_RUNTIME_DIR": "relative"}).runtime == Path("/run/partvisor")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert resolve(None, None, {"HOME": "/home/u"}) == Paths(
        Path("/tmp/partvisor-1000"), Path("/home/u/.local/state/partvisor"))


def test_folders_are_made_for_the_owner_alone(runtime_dir: Path) -> None:
    paths = resolve(runtime_dir / "deep" / "er", None, {})
    prepare(paths)
    prepare(paths)
    assert paths.runtime.stat().st_mode & 0o777 == 0o700
    assert paths.state.stat().st_mode & 0o777 == 0o700


def test_folders_of_others_are_refused(runtime_dir: Path) -> None:
    """/tmp/partvisor-UID can be guessed, so somebody may have been there first."""
    target = runtime_dir / "target"
    target.mkdir(mode=0o700)
    link = runtime_dir / "link"
    link.symlink_to(target)
    with pytest.raises(HostError, match="links are not followed"):
        prepare(resolve(link, runtime_dir / "s", {}))
    shared = runtime_dir / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(HostError, match="others may write") as caught:
        prepare(resolve(shared, runtime_dir / "s", {}))
    assert caught.value.code == "denied"
    if os.geteuid() == 0:
        foreign = runtime_dir / "foreign"
        foreign.mkdir(mode=0o700)
        os.chown(foreign, 12345, 12345)
        with pytest.raises(HostError, match="belongs to uid 12345"):
            prepare(resolve(foreign, runtime_dir / "s", {}))
    file = runtime_dir / "file"
    file.write_text("")
    with pytest.raises(HostError, match="is not a folder"):
        prepare(resolve(file, runtime_dir / "s", {}))
    with pytest.raises(HostError, match="can not make"):
        prepare(resolve(file / "below", runtime_dir / "s", {}))


def test_a_path_too_long_for_a_socket_is_refused_with_a_cure() -> None:
    with pytest.raises(HostError, match="shorter --runtime-dir"):
        prepare(resolve("/tmp/" + "x" * 100, None, {}))


def test_a_state_folder_has_one_daemon(runtime_dir: Path) -> None:
    paths = resolve(runtime_dir / "r", None, {})
    prepare(paths)
    held = lock_state(paths)
    with pytest.raises(HostError, match="another hostd") as caught:
        lock_state(paths)
    assert caught.value.code == "conflict"
    os.close(held)
    os.close(lock_state(paths))


def test_readiness_reaches_the_service_manager(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.notify("READY=1")
    for address in (str(runtime_dir / "notify"), f"@partvisor-test-{os.getpid()}-notify"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("\0" + address[1:] if address[0] == "@" else address)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            assert notify.notify("READY=1", "STATUS=2 partitions")
            assert manager.recv(100) == b"READY=1\nSTATUS=2 partitions"
    assert not notify.notify("STOPPING=1"), "a manager that went away must not stop the host"
