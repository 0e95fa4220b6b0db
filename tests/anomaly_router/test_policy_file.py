"""The policy file: when it is taken, and what is in force while it cannot be."""

import os
from pathlib import Path

import pytest

from anomaly_router.policy_file import PolicyFile
from policy import compile_policy
from tests.anomaly_router.scores import POLICY

OTHER = POLICY.replace("name: test", "name: other")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def in_force(file: PolicyFile) -> str | None:
    return file.policy.name if file.policy else None


def problem(file: PolicyFile) -> str | None:
    return file.problem.code if file.problem else None


def test_the_first_policy_is_taken_at_once(path: Path) -> None:
    file = PolicyFile(path, None, None)
    assert (in_force(file), problem(file), file.text) == ("test", None, POLICY.encode())


def test_a_changed_file_is_taken_when_it_has_stood_for_one_look(path: Path) -> None:
    file = PolicyFile(path, None, None)
    path.write_text(OTHER)
    file.look()
    assert in_force(file) == "test"
    file.look()
    assert in_force(file) == "other"


def test_a_file_that_is_replaced_by_rename_with_the_same_size_and_time_is_noticed(path: Path) -> None:
    file = PolicyFile(path, None, None)
    stat, new = path.stat(), path.with_name("new")
    new.write_text(POLICY.replace("name: test", "name: rest"))
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    new.rename(path)
    file.look()
    file.look()
    assert in_force(file) == "rest"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "not_yaml"),
        (POLICY.partition("fields:")[0], "missing_key"),
        (POLICY.replace("keep", "mask"), "unsupported"),
    ],
)
def test_a_bad_file_is_refused_whole_and_the_policy_before_it_stays(path: Path, text: str, code: str) -> None:
    file = PolicyFile(path, None, None)
    path.write_text(text)
    file.look()
    file.look()
    assert (in_force(file), problem(file)) == ("test", code)
    path.write_text(OTHER)
    file.look()
    file.look()
    assert (in_force(file), problem(file)) == ("other", None)


def test_a_file_that_vanishes_leaves_the_policy_in_force(path: Path) -> None:
    file = PolicyFile(path, None, None)
    path.unlink()
    file.look()
    assert (in_force(file), problem(file)) == ("test", "not_found")


def test_no_file_is_no_policy_until_there_is_one(tmp_path: Path) -> None:
    file = PolicyFile(tmp_path / "policy.yaml", None, None)
    assert (in_force(file), problem(file)) == (None, "not_found")
    (tmp_path / "policy.yaml").write_text(POLICY)
    file.look()
    file.look()
    assert (in_force(file), problem(file)) == ("test", None)


def test_a_folder_in_its_place_is_reported_and_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").mkdir()
    assert problem(PolicyFile(tmp_path / "policy.yaml", None, None)) == "unreadable"


def test_a_restart_beside_a_damaged_file_goes_on_with_the_kept_text(path: Path) -> None:
    path.write_text("damaged: [")
    file = PolicyFile(path, None, POLICY.encode())
    file.look()
    assert (in_force(file), problem(file)) == ("test", "not_yaml")


def test_a_policy_that_the_pin_does_not_name_is_never_in_force(path: Path) -> None:
    pin = compile_policy(OTHER).hash
    assert in_force(PolicyFile(path, pin, POLICY.encode())) is None
    file = PolicyFile(path, None, None)
    file.configure(path, pin)
    assert (in_force(file), problem(file)) == (None, "not_pinned")
    path.write_text(OTHER)
    file.look()
    assert (in_force(file), problem(file)) == ("other", None)
    path.write_text(POLICY)
    file.look()
    assert (in_force(file), problem(file)) == ("other", "not_pinned")


def test_the_new_file_before_the_new_pin_changes_policy_without_a_pause(path: Path) -> None:
    file = PolicyFile(path, compile_policy(POLICY).hash.removeprefix("sha256:"), None)
    path.write_text(OTHER)
    file.look()
    assert (in_force(file), problem(file)) == ("test", "not_pinned")
    file.configure(path, compile_policy(OTHER).hash)
    assert (in_force(file), problem(file)) == ("other", None)
