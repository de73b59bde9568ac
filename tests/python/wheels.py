"""`make wheels` and what it made: what auditwheel says of each, the package from the wheel of this machine in an environment with numpy alone, the
library of the other processor under an emulator, the form of the one for macOS, which cannot be run here.

A part of `make test-all` (suite wheels), not of `make test`: it installs zig.
"""
import glob
import os
import platform
import re
import struct
import sys
import tempfile
import zipfile

import test_binding as binding

MACOS_MIN = (13, 0)
ID_DYLIB, LOAD_DYLIB, CODE_SIGNATURE, BUILD_VERSION = 0xD, 0xC, 0x1D, 0x32


def wheel(tag):
    found = glob.glob(os.path.join(binding.ROOT, f"build/wheels/sill_lm-*-py3-none-{tag}.whl"))
    return found[0] if len(found) == 1 else None


def audited(python, path):
    """The oldest C library that the wheel runs with must be the one that its name promises, or older."""
    status, out = binding.run(python, "-m", "auditwheel", "show", path)
    found = re.search(r'consistent with\s+the\s+following\s+platform\s+tag:\s+"manylinux_2_(\d+)_(\w+)"', out)
    promised = re.search(r"manylinux_2_(\d+)_(\w+)\.whl", path)
    good = status == 0 and found and int(found.group(1)) <= int(promised.group(1)) and found.group(2) == promised.group(2)
    binding.say(bool(good), f"auditwheel agrees with {os.path.basename(path)}", out)


def runs(python, packages, path):
    fresh, _ = binding.fresh_environment(python, packages)
    status, out = binding.run(python, "-m", "pip", "--python", fresh, "install", "--disable-pip-version-check", "--no-deps", "--no-index", path)
    binding.say(status == 0, "pip install of the wheel", out)
    status, out = binding.run(fresh, os.path.join(binding.HERE, "checks.py"), env={"SILL_CI": "", "PYTHONPATH": binding.HERE, "SILL_LIBRARY": ""})
    binding.say(status == 0 and out.count("PASS ") > 10, "the package from the wheel", out)


def loads_elsewhere(path, work):
    """libsill of the wheel for AArch64, and a model in it, loaded under the emulator."""
    with zipfile.ZipFile(path) as z:
        z.extract("sill/libsill.so", work)
    source, program = os.path.join(work, "load.c"), os.path.join(work, "load")
    with open(source, "w") as f:
        f.write("""#include <dlfcn.h>
#include <stdio.h>
#include "sill.h"
int main(int argc, char **argv) {
    void *lib = argc > 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!lib) return printf("%s\\n", dlerror()), 1;
    const char *(*version)(void) = (const char *(*)(void))dlsym(lib, "sill_version");
    sill_status (*load)(const char *, const sill_model_options *, sill_model **, sill_error *) =
        (sill_status (*)(const char *, const sill_model_options *, sill_model **, sill_error *))dlsym(lib, "sill_model_load");
    sill_model *m = NULL;
    sill_error err = {0};
    if (!version || !load || load(argv[2], NULL, &m, &err) != SILL_OK) return printf("%s\\n", err.msg), 1;
    return printf("%s\\n", version()), 0;
}
""")
    status, out = binding.run("aarch64-linux-gnu-gcc", "-I", os.path.join(binding.ROOT, "include"), source, "-o", program, "-ldl")
    if status:
        return binding.say(False, "a program that loads libsill for AArch64", out)
    status, out = binding.run("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu", "max", program, os.path.join(work, "sill/libsill.so"),
                              os.path.join(binding.ROOT, "tests/fixtures/stories260K/stories260K.gguf"))
    return binding.say(status == 0 and re.match(r"\d+\.\d+\.\d+\n$", out), "libsill for AArch64 loads a model under an emulator", out)


def form_for_macos(path):
    """A signed dylib for arm64 and macOS 13, which needs libSystem alone."""
    with zipfile.ZipFile(path) as z:
        data = z.read("sill/libsill.dylib")
    magic, cpu, _, kind, n = struct.unpack_from("<5I", data)
    wrong = [] if (magic, cpu, kind) == (0xFEEDFACF, 0x0100000C, 6) else [f"magic {magic:#x}, processor {cpu:#x}, kind {kind}"]
    at, seen, libraries = 32, set(), []
    for _ in range(n):
        command, size = struct.unpack_from("<II", data, at)
        seen.add(command)
        if command == LOAD_DYLIB:
            libraries.append(data[at + struct.unpack_from("<I", data, at + 8)[0]:at + size].split(b"\0")[0].decode())
        if command == BUILD_VERSION:
            system, oldest = struct.unpack_from("<II", data, at + 8)
            if system != 1 or (oldest >> 16, oldest >> 8 & 255) != MACOS_MIN:
                wrong.append(f"system {system}, at least {oldest:#x}")
        at += size
    wrong += [f"no load command {c:#x}" for c in (ID_DYLIB, CODE_SIGNATURE, BUILD_VERSION) if c not in seen]
    if libraries != ["/usr/lib/libSystem.B.dylib"]:
        wrong.append(f"needs {libraries}")
    binding.say(not wrong, "the form of libsill for macOS (not run)", "; ".join(wrong))


def main():
    python, packages = binding.find_python()
    if python is None:
        return binding.say(False, "wheels", "no build/venv with numpy and pip; tools/deps.sh --test")
    status, out = binding.run("make", "wheels", cwd=binding.ROOT)
    binding.say(status == 0, "make wheels", out)
    if status:
        return None
    linux = {m: wheel(f"manylinux_2_28_{m}") for m in ("x86_64", "aarch64")}
    mac = wheel("macosx_13_0_arm64")
    binding.say(all(linux.values()) and mac, "one wheel each for x86-64, AArch64 and macOS")
    for path in linux.values():
        audited(python, path)
    runs(python, packages, linux[platform.machine()])
    with tempfile.TemporaryDirectory() as work:
        if platform.machine() != "aarch64":
            loads_elsewhere(linux["aarch64"], work)
    form_for_macos(mac)
    return None


if __name__ == "__main__":
    main()
    binding.work.cleanup()
    sys.exit(binding.failed)
