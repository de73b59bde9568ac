#!/usr/bin/env python3
"""Seeds of the fuzzers of torch.save's formats, small enough to be worth mutating: seed_torch.py archives|pickles DIR."""
import sys
import zipfile

what, out = sys.argv[1:3]
TENSOR = (b"ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\x10tQ"
          b"K\0K\4K\4\x86%s\x86\x89ccollections\nOrderedDict\n)RtR")
plain, turned = TENSOR % b"K\4K\1", TENSOR % b"K\1K\4"
pickles = {
    "plain": b"\x80\2}q\0X\1\0\0\0w" + plain + b"s.",
    "turned": b"\x80\2}q\0(X\1\0\0\0w" + turned + b"X\1\0\0\0v" + plain + b"u.",
    "ordered": b"\x80\2ccollections\nOrderedDict\n)R(X\1\0\0\0w" + plain + b"u}X\t\0\0\0_metadataccollections\nOrderedDict\n)Rsb.",
    "nanogpt": b"\x80\2}(X\5\0\0\0model}X\x1a\0\0\0_orig_mod.transformer.wte.w" + plain + b"sX\n\0\0\0model_args}("
               b"X\7\0\0\0n_layerK\1X\6\0\0\0n_headK\1X\6\0\0\0n_embdK\4X\n\0\0\0block_sizeK\4X\n\0\0\0vocab_sizeK\4X\4\0\0\0bias\x89uu.",
    "protocol4": b"\x80\4\x95\0\0\0\0\0\0\0\0}\x94\x8c\1w\x8c\5torch\x8c\x0cFloatStorage\x93\x94\x8a\1\xffG?\xf0\0\0\0\0\0\0]\x94h\0ae.",
}
for name, pickle in pickles.items():
    storage = (16).to_bytes(8, "little") + bytes(range(64))
    if what == "pickles":
        open(f"{out}/{name}", "wb").write(pickle + b"\x80\2]X\1\0\0\0000a." + storage)
    else:
        with zipfile.ZipFile(f"{out}/{name}", "w") as z:
            z.writestr("a/data.pkl", pickle)
            z.writestr("a/byteorder", "little")
            z.writestr("a/data/0", bytes(range(64)))
