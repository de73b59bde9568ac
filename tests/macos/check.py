#!/usr/bin/env python3
"""`make macos` and what it made; and tools/check_macho.py itself, which must find each of the faults that are put in here.

A part of `make test-all` (suite macos), not of `make test`: it installs zig.
"""
import os
import re
import struct
import subprocess
import sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.path.insert(0, "tools")
import check_macho as macho  # noqa: E402

STUB, MIN, PROGRAM = "build/zig/ziglang/lib/libc/darwin/libSystem.tbd", "13.0", "build/macos/sill"
failed = 0


def report(good, name, why=""):
    global failed
    print("PASS" if good else "FAIL", name if good or not why else f"{name}: {why}")
    failed += not good


def why_not(data):
    try:
        macho.check(data, STUB, MIN)
        return ""
    except (macho.Wrong, struct.error, UnicodeDecodeError) as e:
        return str(e)


def changed(data, at, form, *values):
    out = bytearray(data)
    struct.pack_into(form, out, at, *values)
    return bytes(out)


def place(data, cmd, nth=0):
    """Where a load command of a program is."""
    at = 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == cmd:
            if not nth:
                return at
            nth -= 1
        at += size
    raise KeyError(hex(cmd))


def segment(data, name):
    n = 0
    while macho.text(data[place(data, macho.SEGMENT_64, n) + 8:][:16]) != name:
        n += 1
    return place(data, macho.SEGMENT_64, n)


def faults(arm):
    """Name, changed arm64 program, words that the complaint must have."""
    lib, build, main = place(arm, macho.LOAD_DYLIB), place(arm, macho.BUILD_VERSION), place(arm, macho.MAIN)
    const, code, link, data = (segment(arm, n) for n in ("__DATA_CONST", "__TEXT", "__LINKEDIT", "__DATA"))
    at, size = struct.unpack_from("<II", arm, place(arm, macho.CODE_SIGNATURE) + 8)
    info = struct.unpack_from("<10I", arm, place(arm, macho.DYLD_INFO_ONLY) + 8)
    flags = struct.unpack_from("<I", arm, 24)[0]
    name = arm.index(b"_mmap\0", struct.unpack_from("<I", arm, place(arm, macho.SYMTAB) + 16)[0])
    half = struct.unpack_from("<Q", arm, code + 48)[0] // 2
    yield "not position independent", changed(arm, 24, "<I", flags & ~0x200000), "position independent"
    yield "another library", arm.replace(b"/usr/lib/libSystem.B.dylib", b"/usr/lib/libSystem.X.dylib"), "libSystem.X"
    yield "a newer compatibility version", changed(arm, lib + 20, "<I", 2 << 16), "compatibility"
    yield "a later system", changed(arm, build + 12, "<I", 14 << 16), "macOS 14.0"
    yield "another platform", changed(arm, build + 8, "<I", 2), "platform 2"
    yield "no UUID", changed(arm, place(arm, macho.UUID), "<I", macho.SOURCE_VERSION), "size"
    yield "a UUID of zeros", changed(arm, place(arm, macho.UUID) + 8, "<QQ", 0, 0), "LC_UUID"
    yield "an unknown load command", changed(arm, place(arm, macho.SOURCE_VERSION), "<I", 0x99), "0x99"
    yield "an entry point in data", changed(arm, main + 8, "<Q", struct.unpack_from("<Q", arm, data + 40)[0]), "entry point"
    yield "code that can be written", changed(arm, code + 60, "<I", 7), "__TEXT"
    yield "constants that stay writable", changed(arm, const + 68, "<I", 0), "SG_READ_ONLY"
    yield "a segment between pages", changed(arm, data + 40, "<Q", struct.unpack_from("<Q", arm, data + 40)[0] + 4096), "multiple of a page"
    yield "segments that overlap", changed(arm, const + 32, "<Q", 1 << 20), "overlap in memory"
    yield "a section outside of its segment", changed(arm, data + 72 + 40, "<Q", 1 << 30), "not inside"
    yield "thread-local variables that nobody sets up", changed(arm, 24, "<I", flags & ~0x800000), "does not announce"
    yield "a file that is cut off", arm[:-1], "__LINKEDIT"
    yield "a file that goes on", arm + bytes(16), "__LINKEDIT"
    yield "tables that overlap", changed(arm, place(arm, macho.DYLD_INFO_ONLY) + 16, "<I", info[0]), "overlaps"
    yield "a symbol that no Mac has", arm.replace(b"_mmap\0", b"_mnap\0"), "_mnap"
    yield "a symbol bound without being there", changed(arm, name, "<6s", b"_mlock"), "_mmap"
    yield "a fixup in code", changed(arm, info[2], "<B", 0x71), "not in data" # its first opcode names segment 1
    yield "a pointer out of the program", changed(arm, struct.unpack_from("<Q", arm, data + 40)[0], "<Q", 1 << 40), "outside of the program"
    yield "a byte of code", changed(arm, half, "<B", arm[half] ^ 1), "not the one that was signed"
    yield "the last byte before the signature", changed(arm, at - 1, "<B", arm[at - 1] ^ 1), "not the one that was signed"
    yield "a signature that covers less", changed(arm, at + arm[at:].index(b"\xfa\xde\x0c\x02") + 32, ">I", at - 16), "covers"
    yield "no signature", changed(arm, place(arm, macho.CODE_SIGNATURE), "<I", macho.DATA_IN_CODE), "twice"
    yield "another program as arm64", changed(arm, 4, "<I", 0x01000012), "processor"


def main():
    # Another make's options are not for this one.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "BUILD", "CC")}
    p = subprocess.run(["make", "macos"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in re.findall(r"^(?:PASS|FAIL) .*", p.stdout, re.M):
        print(line)
    report(p.returncode == 0, "make macos", p.stdout[-2000:])
    if p.returncode:
        return 1
    with open(PROGRAM, "rb") as f:
        data = f.read()
    parts, _ = macho.slices(data)
    arm = next(x for x in parts if macho.Program(x).arch == "arm64")

    with open("cli/main.c", encoding="utf-8") as f:
        commands = re.findall(r'^    \{"([a-z]+)", ', f.read(), re.M)
    report(len(commands) >= 10, "commands are found in cli/main.c", str(commands))
    for part in parts:
        arch = macho.Program(part).arch
        absent = [c for c in commands if f"\0{c}\0".encode() not in part]
        report(not absent, f"{arch}: every command is in the program", " ".join(absent))

    report(why_not(arm) == "", "the checker passes the program for arm64 alone", why_not(arm))
    for name, broken, words in faults(arm):
        why = why_not(broken)
        report(broken != arm and words in why, f"the checker finds {name}", f"said: {why or 'nothing'}")
    first, n = struct.unpack_from(">5I", data, 8), len(parts)
    for name, broken, words in (
            ("a program between pages", changed(data, 16, ">I", first[2] + 4), "multiple of a page"),
            ("programs of one processor", changed(data, 8 + 20, ">5I", *first), "overlap"),
            ("another processor's entry", changed(data, 12, ">I", first[1] + 1), "another processor"),
            ("bytes behind the last program", data + b"x", "behind the last")):
        why = why_not(broken)
        report(n == 2 and words in why, f"the checker finds {name}", f"said: {why or 'nothing'}")
    return 1 if failed else 0


sys.exit(main())
