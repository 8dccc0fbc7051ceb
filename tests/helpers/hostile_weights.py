"""Weight files made to do harm: each must be refused, quickly and without much memory."""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

MANY = 100_000


class Call:
    """Pickles to a call, whose result then gets a state."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def dumped(value: Any, protocol: int = 2) -> bytes:
    """By Python's pickler that is written in Python: it pickles what NumPy would not."""
    stream = io.BytesIO()
    pickle._Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def array(shape: Any, dtype: Any, data: Any, *, fortran: bool = False) -> Call:
    """What an array pickles to, whatever of it is true."""
    make = (np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"))
    return Call(*make, (1, shape, dtype, fortran, data))


def one(value: Any) -> bytes:
    return dumped({"a": value})


def entry(value: bytes, key: bytes = text("a")) -> bytes:
    """A table of one entry, given as opcodes."""
    return b"\x80\x02}" + key + value + b"s."


def tensor(
    offset: int, size: tuple, stride: tuple, *, claims: int = 4, kind: str = "Float"
) -> bytes:
    """Opcodes of a tensor in the storage 0."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text("0") + text("cpu")
    storage += number(claims) + b"tQ"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(*size)
    return made + numbers(*stride) + b"\x89}tR"


def archive(
    content: bytes, *, method: int = zipfile.ZIP_STORED, storage: bytes = bytes(16)
) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/data/0", storage)
    return stream.getvalue()


def stream(content: bytes, *, keys: Any = ("0",), claims: int = 4) -> bytes:
    """A file of PyTorch before 1.6, with 16 bytes of numbers."""
    begin = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03." + dumped({})
    return begin + content + dumped(list(keys)) + claims.to_bytes(8, "little") + bytes(16)


def with_sizes(content: bytes, size: int) -> bytes:
    """A zip file whose table of contents says that the first entry is so long."""
    at = content.index(b"PK\x01\x02")
    return content[: at + 20] + struct.pack("<II", size, size) + content[at + 28 :]


def overlapping(count: int) -> bytes:
    """A zip file whose entries are all the same bytes, and a pickle that wants every one."""
    stream, size = io.BytesIO(), 1 << 20
    wanted = b"\x80\x02}("
    for index in range(count):
        made = tensor(0, (size // 4,), (1,), claims=size // 4).replace(
            text("0"), text(str(index)), 1
        )
        wanted += text(f"t{index}") + made
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", wanted + b"u.")
        file.writestr("archive/data/0", bytes(size))
        whole = file.getinfo("archive/data/0")
        for index in range(1, count):
            again = zipfile.ZipInfo(f"archive/data/{index}")
            again.header_offset = whole.header_offset
            again.file_size = again.compress_size = size
            again.CRC = whole.CRC
            file.filelist.append(again)
    return stream.getvalue()


HIDDEN = Call(
    np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
)
FLOAT = np.dtype("<f4")
F4 = dumped(FLOAT)[2:-1]
RECONSTRUCT = b"cnumpy._core.multiarray\n_reconstruct\n"
LATIN1 = b"c_codecs\nencode\n"
TREE = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))  # 2**60 tuples, if one counts

# name of the file → content, what is said of it
HOSTILE: dict[str, tuple[bytes, str]] = {
    "hidden_objects.pdparams": (one(array((2,), HIDDEN, b"A" * 16)), "not an array of numbers"),
    "fields.pdparams": (one(np.zeros(3, "f4,f4")), "not an array of numbers"),
    "objects.pdparams": (one(np.array([None], object)), "not an array of numbers"),
    "words.pdparams": (one(np.array(["a", "b"])), "not an array of numbers"),
    "bytes.pdparams": (one(np.array([b"a"])), "not an array of numbers"),
    "voids.pdparams": (one(np.zeros(3, "V4")), "not an array of numbers"),
    "longer.pdparams": (one(array((1 << 20,), FLOAT, b"ABCD")), "of 4,194,304 bytes is given 4"),
    "shorter.pdparams": (one(array((1,), FLOAT, b"ABCDEFGH")), "array of 4 bytes is given 8"),
    "negative.pdparams": (one(array((-1, -1), FLOAT, b"ABCD")), "a shape that no array has"),
    "overflow.pdparams": (one(array((1 << 62, 4, 1), FLOAT, b"ABCD")), "bytes is given 4"),
    "huge.pdparams": (one(array((1 << 100_000,), FLOAT, b"ABCD")), "a shape that no array has"),
    "many_sides.pdparams": (one(array((1,) * 1000, FLOAT, b"ABCD")), "a shape that no array has"),
    "no_tuple.pdparams": (one(array([1], FLOAT, b"ABCD")), "without dtype or shape"),
    "fractions.pdparams": (one(array((1.0,), FLOAT, b"ABCD")), "a shape that no array has"),
    "columns.pdparams": (
        one(array((2, 2), FLOAT, bytes(16), fortran=True)), "numpy.ascontiguousarray"
    ),
    "list_data.pdparams": (one(array((1,), FLOAT, [1])), "is given a list"),
    "ndarray.pdparams": (
        one(Call(np.ndarray, ((1 << 30,), FLOAT, b"ABCD", 0, (0,)))), "numpy.ndarray as a function"
    ),
    "other_state.pdparams": (one(Call(np.dtype, ("f4",), (3, "?", None))), "order of bytes"),
    "tree_key.pdparams": (entry(b"N", TREE), "a tuple where the name"),
    "tree_codec.pdparams": (entry(LATIN1 + text("a") + TREE + b"\x86R"), "refused|damaged"),
    "tree_dtype.pdparams": (entry(b"cnumpy\ndtype\n" + TREE + b"\x85R"), "is a _Dtype"),
    "long_key.pdparams": (entry(b"N", text("k" * 3_000_000)), "a str where the name"),
    "colliding_keys.pdparams": (
        b"\x80\x02}("
        + b"".join(b"\x8a\x0b" + (i * (2**61 - 1)).to_bytes(11, "little") + b"N"
                   for i in range(1, 20_000))
        + b"u.",
        "an int where the name|a int where the name",
    ),
    "deep.pdparams": (b"\x80\x02" + b"(" * 1_000_000, "nested more than 100 deep"),
    "deep_lists.pdparams": (b"\x80\x02" + b"]" * MANY + b"a" * (MANY - 1) + b".", "holds a list"),
    "deep_tuples.pdparams": (b"\x80\x02)" + b"\x85" * MANY + b".", "holds a tuple"),
    "steps.pdparams": (b"\x80\x02" + b"]" * 1_000_000 + b".", "more than 524,288 steps"),
    "memo.pdparams": (
        b"\x80\x02]" + b"".join(b"r" + struct.pack("<I", i << 12) for i in range(MANY)) + b".",
        "it remembers a value under the number",
    ),
    "memo_flood.pdparams": (b"\x80\x04]" + b"\x94" * 1_000_000 + b".", "more than 524,288 steps"),
    "no_memo.pdparams": (b"\x80\x02h\x05.", "never remembered"),
    "frame.pdparams": (b"\x80\x04\x95" + b"\xff" * 8 + b".", "damaged"),
    "length.pdparams": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.", "damaged"),
    "long.pdparams": (b"\x80\x02\x8b\xff\xff\xff\x7f\x01.", "damaged"),
    "digits.pdparams": (b"\x80\x02L" + b"9" * 3_000_000 + b"L\n.", "damaged"),
    "empty_stack.pdparams": (b"\x80\x020000.", "refused|damaged"),
    # One text of a megabyte, made to bytes again and again; one array, widened again and again.
    "copies.pdparams": (
        b"\x80\x02}(" + text("z") + LATIN1 + b"q\x03" + text("x" * 1_000_000) + text("latin1")
        + b"\x86q\x02R"
        + b"".join(text(f"{i}") + b"h\x03h\x02R" for i in range(5000)) + b"u.",
        "more than 4 times as long as the file",
    ),
    "widened.pdparams": (
        b"\x80\x02}(" + text("z") + dumped(np.zeros(500_000, np.uint16))[2:-1] + b"q\xff"
        + b"".join(text(f"{i}") + b"h\xff" for i in range(5000)) + b"u.",
        "more than 4 times as long as the file",
    ),
    "instance.pdparams": (b"\x80\x02(ios\nmkdir\n.", "refused.*INST"),
    "new_object.pdparams": (b"\x80\x02cnumpy\nndarray\n)\x81.", "refused.*NEWOBJ"),
    "persistent.pdparams": (entry(text("x") + b"Q"), "refused.*BINPERSID"),
    "codec.pdparams": (
        entry(LATIN1 + text("a") + text("rot13") + b"\x86R"), "refused.*another codec than latin1"
    ),
    "not_zip.pth": (b"PK\x03\x04" + bytes(100), "neither a zip file nor"),
    "old_claims.pth": (
        stream(entry(tensor(0, (4,), (1,), claims=1 << 40)), claims=1 << 40), "not as long as it"
    ),
    "old_negative.pth": (stream(entry(tensor(0, (4,), (1,), claims=-4))), "without kind"),
    "old_beyond.pth": (stream(entry(tensor(0, (1 << 40,), (0,)))), "reaches beyond"),
    "old_keys.pth": (stream(entry(tensor(0, (4,), (1,))), keys=["1"]), "damaged"),
    "old_call.pth": (stream(entry(b"cos\nmkdir\n" + text("x") + b"\x85R")), "refused.*mkdir"),
    "call.pth": (archive(entry(b"cos\nmkdir\n" + text("x") + b"\x85R")), "refused.*mkdir"),
    "disks.pth": (
        archive(entry(b"N"))[:-22] + b"PK\x06\x07" + b"\x01" * 16 + b"PK\x05\x06" + bytes(18),
        "multiple disks",
    ),
    "bomb.pth": (
        archive(b"\x80\x02" + b"]" * (1 << 26), method=zipfile.ZIP_DEFLATED), "is compressed"
    ),
    "beyond.pth": (archive(entry(tensor(0, (64,), (1,)))), "reaches beyond"),
    "stride.pth": (archive(entry(tensor(0, (2,), (1 << 40,)))), "reaches beyond"),
    "backwards.pth": (archive(entry(tensor(3, (4,), (-1,)))), "a shape that no array has"),
    "before.pth": (archive(entry(tensor(-1, (2,), (1,)))), "a shape that no array has"),
    "expanded.pth": (archive(entry(tensor(0, (1 << 40,), (0,)))), "reaches beyond"),
    "product.pth": (archive(entry(tensor(0, (1 << 62, 1 << 62), (0, 0)))), "reaches beyond"),
    "claims.pth": (archive(entry(tensor(0, (4,), (1,), claims=1 << 30))), "not as long as it says"),
    "other_kind.pth": (archive(entry(tensor(0, (4,), (1,), kind="Double"))), "not as long as"),
    "no_kind.pth": (archive(entry(tensor(0, (4,), (1,), kind="Quantized"))), "refused.*Quantized"),
    "array_storage.pth": (
        archive(entry(b"ctorch._utils\n_rebuild_tensor_v2\n(" + dumped(np.zeros((4, 4)))[2:-1]
                      + number(0) + numbers(64) + numbers(1) + b"\x89}tR")),
        "without storage",
    ),
    "tree_kind.pth": (
        archive(entry(b"(" + text("storage") + TREE + text("0") + text("cpu") + b"K\x04tQ")),
        "without kind",
    ),
    "sizes.pth": (with_sizes(archive(entry(b"N")), 1 << 30), "longer than the file|damaged"),
    "overlapping.pth": (overlapping(300), "longer than the file|[Oo]verlap"),
    "entries.pth": (b"", "table of contents is too long"),  # filled in by `write`
    "names.safetensors": (b"", "damaged"),
}  # fmt: skip


def write(folder: Path) -> list[Path]:
    """All of the files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", b"}.")
        first = file.filelist[0]
        for index in range(100):
            again = zipfile.ZipInfo(f"{index:060000}")
            again.header_offset, again.CRC = first.header_offset, first.CRC
            file.filelist.append(again)
    late = {"entries.pth": stream.getvalue()}
    header = b"{" + b" " * 12_000_000 + b"}"
    late["names.safetensors"] = struct.pack("<Q", len(header)) + header
    paths = []
    for name, (content, _) in HOSTILE.items():
        paths.append(folder / name)
        paths[-1].write_bytes(content or late[name])
    return paths
