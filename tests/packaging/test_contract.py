"""The committed code, the contract, and the last released contract keep in step."""

import shutil
from pathlib import Path

import pytest

GENERATED = "clients/python/trunkline/v1"
RELEASED = "protos/released/trunkline-v1.binpb"


@pytest.fixture
def generated(checkout: Path) -> Path:
    return checkout / GENERATED


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_committed_code_is_what_the_protos_say(make):
    done = make("proto-check")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ("go", "clients/go/trunkline/v1/message.pb.go"),
        ("node", "clients/typescript/src/v1/trunkline/v1/message.ts"),
    ],
)
def test_proto_check_looks_at_every_language(make, checkout, tool, name):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} not found")
    (checkout / name).write_text("edited")

    done = make("proto-check")

    assert done.returncode != 0
    assert f"{name} is not what protos/ say" in done.stderr


def test_proto_check_names_what_was_edited_by_hand(make, generated):
    (generated / "message_pb2.pyi").write_text("edited")
    (generated / "extra_pb2.py").touch()

    done = make("proto-check")

    assert done.returncode != 0
    assert f"{GENERATED}/message_pb2.pyi" in done.stderr
    assert f"{GENERATED}/extra_pb2.py" in done.stderr


def test_proto_replaces_what_is_stale_and_keeps_the_module_that_is_not_generated(make, generated):
    wanted = contents(generated)
    (generated / "message_pb2.pyi").write_text("edited")
    (generated / "extra_pb2.py").touch()

    done = make("proto")

    assert done.returncode == 0
    assert contents(generated) == wanted
    assert "__init__.py" in wanted


def test_proto_that_fails_leaves_the_old_code(make, checkout, generated):
    wanted = contents(generated)
    (checkout / "protos/trunkline/v1/message.proto").write_text('syntax = "proto3"; nonsense')

    done = make("proto")

    assert done.returncode != 0
    assert contents(generated) == wanted
    assert [path.name for path in generated.parent.iterdir()] == ["v1"]


def test_contract_is_well_formed_and_compatible_with_its_last_release(make):
    done = make("lint-contract")

    assert done.returncode == 0, done.stdout + done.stderr


def test_contract_that_lost_a_field_number_is_refused(make, checkout):
    proto = checkout / "protos/trunkline/v1/message.proto"
    proto.write_text(proto.read_text().replace("Role role = 1;", "Role role = 1000;"))
    make("proto")

    done = make("lint-contract")

    assert done.returncode != 0
    assert 'Previously present field "1"' in done.stdout


def test_missing_image_of_the_last_release_is_a_failure(make, checkout):
    (checkout / RELEASED).unlink()

    done = make("lint-contract")

    assert done.returncode != 0
    assert RELEASED in done.stdout + done.stderr
