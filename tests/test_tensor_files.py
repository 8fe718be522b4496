import pytest
import torch

from ifguide.errors import InputError
from ifguide.files.tensor_files import read_tensors, tensors_sha256, write_tensors
from ifguide.files.tensor_metadata import read_metadata


def some_tensors():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(2, 3, generator=generator)
    return {
        "matrix": shared,
        "same.memory": shared,
        "transposed": shared.T,
        "half": shared.to(torch.bfloat16),
        "wide": shared.double(),
        "count": torch.tensor(7.0, dtype=torch.float64),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
    }


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "factors.safetensors"
    write_tensors(path, some_tensors(), {"weights_sha256": "ab" * 32, "blocks": "12"})
    return path


def test_tensors_and_metadata_come_back_as_they_were(written):
    tensors, metadata = read_tensors(written)
    expected = some_tensors()
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert metadata == {"weights_sha256": "ab" * 32, "blocks": "12"} == read_metadata(written)


def test_metadata_that_was_read_can_be_written_again(written, tmp_path):
    tensors, metadata = read_tensors(written)
    again = tmp_path / "again.safetensors"
    changed = {**tensors, "matrix": tensors["matrix"] + 1}
    write_tensors(again, changed, metadata)
    assert torch.equal(read_tensors(again)[0]["matrix"], changed["matrix"])
    assert read_metadata(again) == metadata


def test_the_same_content_gives_the_same_bytes(written, tmp_path):
    _, metadata = read_tensors(written)
    for attempt in range(8):
        again = tmp_path / f"{attempt}.safetensors"
        write_tensors(again, some_tensors(), dict(reversed(metadata.items())) | {"a": "ä \\ \n"})
        first = tmp_path / "0.safetensors"
        assert again.read_bytes() == first.read_bytes()
    assert read_tensors(first)[1]["a"] == "ä \\ \n"


def test_every_flipped_bit_is_refused(written):
    path = written
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        for read in (read_tensors, read_metadata):
            with pytest.raises(InputError, match="factors.safetensors"):
                read(path)
    path.write_bytes(content)
    read_tensors(path)


def test_a_truncated_file_is_refused(written):
    path = written
    content = path.read_bytes()
    for length in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="damaged"):
            read_tensors(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="missing"):
        read_tensors(tmp_path / "none.safetensors")


def test_the_checksum_knows_names_types_and_shapes_but_not_order_or_layout():
    tensor = torch.arange(6, dtype=torch.float32)
    reference = tensors_sha256({"a": tensor, "b": tensor})
    assert tensors_sha256({"b": tensor, "a": tensor}) == reference
    assert tensors_sha256({"a": tensor, "c": tensor}) != reference
    assert tensors_sha256({"a": tensor, "b": tensor.view(2, 3)}) != reference
    assert tensors_sha256({"a": tensor, "b": tensor.view(torch.int32)}) != reference
    strided = tensor.repeat_interleave(2)[::2]
    assert tensors_sha256({"a": strided, "b": tensor}) == reference


def test_nothing_is_left_of_a_write_that_fails(tmp_path):
    with pytest.raises(Exception, match="str"):
        write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {"blocks": 12})
    assert list(tmp_path.iterdir()) == []
