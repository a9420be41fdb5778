"""Make the PyTorch archives of this folder and of tests/fuzz/corpus/torch, with Python's standard library alone.

The pickles come from Python's own pickler, as in torch.save: stand-ins for torch's classes and functions have their
modules and names, and storages are persistent ids. The archive has the layout of torch's writer: entries stored, sizes
and checksums behind each, data on multiples of 64 bytes through an extra field 'FB', zip64 end records always.
    python3 tests/golden/torch/make.py
"""
import collections, io, os, pickle, struct, sys, types, zlib

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = os.path.join(HERE, "..", "..", "fuzz", "corpus", "torch")


# ---- stand-ins for torch ---------------------------------------------------------------------------------------------

def module(name):
    sys.modules[name] = types.ModuleType(name)
    return sys.modules[name]


torch, utils = module("torch"), module("torch._utils")
torch._utils = utils
for kind in "Float Half BFloat16 Double Long Int Short Char Byte Bool".split():
    setattr(torch, kind + "Storage", type(kind + "Storage", (), {"__module__": "torch"}))
for name in "_rebuild_tensor_v2", "_rebuild_parameter":
    function = types.FunctionType((lambda: None).__code__, {}, name)
    function.__module__, function.__qualname__ = "torch._utils", name
    setattr(utils, name, function)


class Storage:
    def __init__(self, kind, code, values):
        self.kind, self.n = getattr(torch, kind + "Storage"), len(values)
        self.bytes = struct.pack("<%d%s" % (len(values), code), *values)


class Tensor:
    def __init__(self, storage, shape, offset=0, strides=None):
        self.storage, self.shape, self.offset = storage, tuple(shape), offset
        if strides is None:
            strides, step = [], 1
            for n in reversed(self.shape):
                strides.insert(0, step)
                step *= n
        self.strides = tuple(strides)

    def __reduce_ex__(self, protocol):
        return utils._rebuild_tensor_v2, (self.storage, self.offset, self.shape, self.strides, False,
                                          collections.OrderedDict())


class Parameter(Tensor):
    def __reduce_ex__(self, protocol):
        data = Tensor(self.storage, self.shape, self.offset, self.strides)
        return utils._rebuild_parameter, (data, True, collections.OrderedDict())


class StateDict(collections.OrderedDict):
    """An OrderedDict with _metadata, as module.state_dict() returns it."""


# ---- torch.save ------------------------------------------------------------------------------------------------------

def dump(value, protocol=2):
    storages = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if not isinstance(obj, Storage):
                return None
            if obj not in storages:
                storages.append(obj)
            return "storage", obj.kind, str(storages.index(obj)), "cpu", obj.n

    out = io.BytesIO()
    Pickler(out, protocol).dump(value)
    return out.getvalue(), [s.bytes for s in storages]


def archive(entries, folder="archive", method=0):
    out, central = bytearray(), bytearray()
    for name, data in entries:
        name = ("%s/%s" % (folder, name)).encode()
        packed = data
        if method == 8:
            squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = squeeze.compress(data) + squeeze.flush()
        at = len(out)
        start = at + 30 + len(name) + 4
        pad = -start % 64
        extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
        sizes = struct.pack("<III", zlib.crc32(data), len(packed), len(data))
        out += b"PK\3\4" + struct.pack("<HHHHHIIIHH", 0, 0x0808, method, 0, 0, 0, 0, 0, len(name), len(extra))
        out += name + extra + packed + b"PK\7\10" + sizes
        central += b"PK\1\2" + struct.pack("<HHHHHH", 0, 0, 0x0808, method, 0, 0) + sizes
        central += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, at) + name
    at, n = len(out), len(entries)
    end = at + len(central)
    out += central
    out += b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 0x031E, 45, 0, 0, n, n, len(central), at)
    out += b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    out += b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, n, n, len(central), at, 0)
    return bytes(out)


def entries(pickled, storages, recent=False):
    yield "data.pkl", pickled
    if recent:
        yield ".format_version", b"1"
        yield ".storage_alignment", b"64"
        yield "byteorder", b"little"
    for i, data in enumerate(storages):
        yield "data/%d" % i, data
    yield "version", b"3\n"
    if recent:
        yield ".data/serialization_id", b"0636067706083418567900000000000000000000"


def save(path, value, folder="archive", protocol=2, recent=False):
    with open(path, "wb") as f:
        f.write(archive(list(entries(*dump(value, protocol), recent)), folder))


# ---- the files -------------------------------------------------------------------------------------------------------

def medusa():
    """Two heads of one residual block, f32 and f16, as medusa_lm_head.pt names them; the second's output is shared."""
    state, weight = collections.OrderedDict(), Storage("Half", "e", [0.5 * i for i in range(32)])
    for head in range(2):
        first = Storage("Float", "f", [head + i / 16 for i in range(16)])
        state["%d.0.linear.weight" % head] = Tensor(first, (4, 4))
        state["%d.0.linear.bias" % head] = Tensor(Storage("Float", "f", [head, 1, 2, 3]), (4,))
        state["%d.1.weight" % head] = Tensor(weight, (8, 4))
    state._metadata = collections.OrderedDict([("", {"version": 1}), ("0", {"version": 1})])
    return state


def checkpoint():
    """A training checkpoint: tensors below "state_dict", bf16 (given as bits), i64 and bool, and much else."""
    fc = Storage("BFloat16", "H", [0x3F80 + i for i in range(24)])
    table = Storage("Long", "q", [0, 5, -3, 7])
    model = {
        "fc.weight": Tensor(fc, (3, 4), offset=12),
        "fc.row": Parameter(fc, (1, 4), offset=4, strides=(99, 1)),
        "d2t": Tensor(table, (4,)),
        "t2d": Tensor(Storage("Bool", "?", [True, False, True]), (3,)),
        "scale": Tensor(Storage("Double", "d", [0.125]), ()),
    }
    other = {"lr": 1e-3, "betas": (0.9, 0.999), "steps": [1, 2, 3], "big": -(1 << 40), "none": None, "yes": True}
    return {"epoch": 300000, "state_dict": model, "optimizer": other, 7: {"by number": Tensor(table, (2,), 2)}}


def pickled(name, data, storages=(b"\0" * 16,), **more):
    with open(os.path.join(CORPUS, name), "wb") as f:
        f.write(archive(list(entries(data, storages)), **more))


def text(s):
    return b"X" + struct.pack("<I", len(s)) + s


def tensor(n=4, shape=b"K\4\x85", strides=b"K\1\x85", offset=b"K\0", kind=b"Float"):
    return (b"ctorch._utils\n_rebuild_tensor_v2\n((" + text(b"storage") + b"ctorch\n" + kind + b"Storage\n" + text(b"0") +
            text(b"cpu") + b"J" + struct.pack("<i", n) + b"tQ" + offset + shape + strides +
            b"\x89ccollections\nOrderedDict\n)RtR.")[:-1]


def hostile():
    one = b"\x80\2}" + text(b"a")
    pickled("os_system.pt", b"\x80\2cos\nsystem\n" + text(b"touch pwned") + b"\x85R.")
    pickled("eval.pt", b"\x80\2}" + text(b"w") + b"cbuiltins\neval\n" + text(b"__import__('os')") + b"\x85Rs.")
    pickled("eval_stack_global.pt", b"\x80\4\x95\x1a\0\0\0\0\0\0\0\x8c\x08builtins\x94\x8c\4eval\x94\x93\x94\x8c\0011\x85R.")
    pickled("inst.pt", b"\x80\2(" + text(b"id") + b"ios\nsystem\n.")
    pickled("newobj.pt", b"\x80\2ccollections\nOrderedDict\n)\x81.")
    pickled("storage_called.pt", b"\x80\2ctorch\nFloatStorage\nK\1\x85R.")
    pickled("build_on_tensor.pt", one + tensor() + b"}bs.")
    pickled("list_in_itself.pt", b"\x80\2]q\0h\0a.")
    pickled("dict_in_itself.pt", b"\x80\2}q\0" + text(b"a") + b"h\0s.")
    pickled("dict_through_list.pt", b"\x80\2}q\0" + text(b"a") + b"]q\1h\0as.")
    laughs = b"\x80\2}(" + text(b"0") + b"}q\0" + text(b"t") + tensor() + b"s"
    for i in range(1, 40):
        laughs += text(b"%d" % i) + b"}q" + bytes([i]) + b"(" + text(b"a") + b"h" + bytes([i - 1])
        laughs += text(b"b") + b"h" + bytes([i - 1]) + b"u"
    pickled("laughs.pt", laughs + b"u.")
    pickled("marks.pt", b"\x80\2" + b"(" * 70000 + b".")
    pickled("nested.pt", b"\x80\2" + (b"}" + text(b"a")) * 40 + tensor() + b"s" * 40 + b".")
    pickled("nested_tuples.pt", b"\x80\2N" + b"\x85" * 5000 + b".")
    pickled("memo_far.pt", b"\x80\2}r\xff\xff\xff\x7f.")
    pickled("memo_missing.pt", b"\x80\2j\xff\xff\xff\xff.")
    pickled("long_text.pt", b"\x80\2X\xff\xff\xff\xffabc.")
    pickled("long_frame.pt", b"\x80\4\x95\xff\xff\xff\xff\xff\xff\xff\xff}.")
    pickled("long_number.pt", b"\x80\2\x8a\xff" + b"\1" * 255 + b".")
    pickled("size_huge.pt", one + tensor(shape=b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85") + b"s.")
    pickled("size_overflow.pt", one + tensor(shape=b"(" + b"J\xff\xff\xff\x7f" * 3 + b"K\4t",
                                             strides=b"(" + b"K\1" * 4 + b"t") + b"s.")
    pickled("size_negative.pt", one + tensor(shape=b"J\xff\xff\xff\xff\x85") + b"s.")
    pickled("count_negative.pt", one + tensor(n=-1) + b"s.")
    pickled("count_wrong.pt", one + tensor(n=5) + b"s.")
    pickled("offset_far.pt", one + tensor(offset=b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x3f") + b"s.")
    pickled("offset_negative.pt", one + tensor(offset=b"J\xfe\xff\xff\xff") + b"s.")
    pickled("transposed.pt", one + tensor(shape=b"K\2K\2\x86", strides=b"K\1K\2\x86") + b"s.")
    pickled("many_dimensions.pt", one + tensor(shape=b"(" + b"K\1" * 70 + b"t") + b"s.")
    pickled("twice.pt", b"\x80\2}(" + text(b"a") + tensor() + text(b"a") + tensor() + b"u.")
    pickled("compressed.pt", one + tensor() + b"s.", method=8)
    pickled("zip_bomb.pt", one + tensor(n=1 << 22, shape=b"J\0\0\x40\0\x85") + b"s.", [b"\0" * (1 << 24)], method=8)
    good = archive(list(entries(one + tensor() + b"s.", [b"\0" * 16])))
    central = good.index(b"PK\1\2")

    def patched(name, at, data):
        with open(os.path.join(CORPUS, name), "wb") as f:
            f.write(good[:at] + data + good[at + len(data):])

    second = good.index(b"PK\1\2", central + 1)
    patched("size_beyond.pt", second + 20, b"\xf0\xff\xff\x7f" * 2)
    patched("size_zip64_missing.pt", second + 20, b"\xff" * 8)
    patched("another_name.pt", second + 42, struct.pack("<I", 0))
    patched("directory_far.pt", good.index(b"PK\6\6") + 48, b"\xff" * 8)
    patched("entries_many.pt", good.index(b"PK\6\6") + 24, b"\xff" * 16)
    patched("locator_far.pt", good.index(b"PK\6\7") + 8, b"\xff" * 8)
    patched("encrypted.pt", second + 8, b"\x09\x08")
    inner = b"PK\3\4" + struct.pack("<HHHHHIIIHH", 0, 0x0808, 0, 0, 0, 0, 0, 0, 14, 0) + b"archive/data/1"
    good = archive(list(entries(one + tensor() + b"s.", [inner + b"\0" * 16, b"\0" * 16])))
    patched("overlap.pt", good.rindex(b"archive/data/1") - 4, struct.pack("<I", good.index(inner)))
    good = archive(list(entries(one + tensor() + b"s.", [b"\0" * 16])))
    for n in 3, 30, 200, len(good) // 2, len(good) - 60, len(good) - 1:
        with open(os.path.join(CORPUS, "cut_%d.pt" % n), "wb") as f:
            f.write(good[:n])
    with open(os.path.join(CORPUS, "legacy.pt"), "wb") as f:
        f.write(b"\x80\2\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\2M\xe9\3.")


def bare():
    """Pickles alone: the fuzz target puts them into an archive whose data/0 has 64 bytes."""
    views = collections.OrderedDict()
    numbers = Storage("Float", "f", [0] * 16)
    views["a"] = {"whole": Tensor(numbers, (2, 2, 2, 2)), "end": Parameter(numbers, (3,), 13), "n": [1, 2.5, "x"]}
    views["b"] = Tensor(numbers, (4, 1), 8)
    views._metadata = collections.OrderedDict([("", {"version": 1})])
    for name, value in ("views", views), ("medusa", medusa()), ("checkpoint", checkpoint()):
        for protocol in 2, 5:
            with open(os.path.join(CORPUS, "%s_%d.pkl" % (name, protocol)), "wb") as f:
                f.write(dump(value, protocol)[0])


if __name__ == "__main__":
    for folder in HERE, CORPUS:
        os.makedirs(folder, exist_ok=True)
        save(os.path.join(folder, "medusa.pt"), medusa())
        save(os.path.join(folder, "checkpoint.pt"), checkpoint(), "run", 4, recent=True)
    hostile()
    bare()
