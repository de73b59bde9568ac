"""Builds the distribution sill-lm (PEP 517), needing nothing but Python, make and a C compiler.

`pip install ./python` from a clone: libsill is built by the clone's Makefile (its objects are taken where they are there), the
layouts of its structs are read from the clone's sill.h, and both go into a wheel "py3-none-PLATFORM", since nothing depends on
Python's own interface. A source distribution carries the library's sources along.

Environment: SILL_BUILD=DIR, the Makefile's BUILD, relative to the clone (build/release). SILL_LIBRARY_FILE=FILE, a shared library
that is there already, and SILL_WHEEL_PLATFORM=TAG, what it is for: so `make wheels` packs what was built for other systems.
"""
import base64
import hashlib
import io
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "backend"))
import abi  # noqa: E402

NAME, MODULE = "sill-lm", "sill"
EPOCH = (2020, 1, 1, 0, 0, 0)  # so that the same sources give the same bytes
SOURCES = ("Makefile", "LICENSE", "include", "src")


def root():
    """Where the library's sources are: the clone, or what a source distribution brought along."""
    for place in (HERE / "libsill", HERE.parent):
        if (place / "include" / "sill.h").is_file() and (place / "Makefile").is_file():
            return place
    raise RuntimeError("the sources of libsill (include/sill.h, Makefile) are neither beside nor in this directory; build from a clone")


def header():
    return (root() / "include" / "sill.h").read_text(encoding="utf-8")


def version():
    return re.search(r'SILL_VERSION_STRING "([^"]*)"', header()).group(1)


def project(key):
    """A string or list of [project]; the file is ours, and Python 3.9 has no reader of TOML."""
    text = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    value = re.search(rf"^{re.escape(key)} = (\[.*?\]|\".*?\")$", text, re.M | re.S).group(1)
    found = re.findall(r'"([^"]*)"', value)
    return found if value.startswith("[") else found[0]


def platform_tag():
    given = os.environ.get("SILL_WHEEL_PLATFORM")
    if given:
        return given
    tag = re.sub(r"[-.]", "_", sysconfig.get_platform())
    if sys.platform == "darwin":  # for this processor and this macOS, the oldest that the Makefile builds for
        tag = f"macosx_{'_'.join(platform.mac_ver()[0].split('.')[:1])}_0_{platform.machine()}"
    return tag


def library():
    """The shared library's bytes and its name in the package."""
    given = os.environ.get("SILL_LIBRARY_FILE")
    if given:
        return pathlib.Path(given).read_bytes(), "libsill.dylib" if given.endswith(".dylib") else "libsill.so"
    top, build = root(), os.environ.get("SILL_BUILD", "build/release")
    make = shutil.which("gmake") or shutil.which("make")
    if not make:
        raise RuntimeError("make is not installed; `tools/deps.sh` of the clone installs what building needs")
    jobs = [] if "-j" in os.environ.get("MAKEFLAGS", "") else [f"-j{os.cpu_count() or 2}"]
    subprocess.run([make, "-C", str(top), "--no-print-directory", *jobs, "shared", f"BUILD={build}"], check=True, stdout=sys.stderr)
    name = "libsill.dylib" if sys.platform == "darwin" else "libsill.so"
    return (top / build / name).resolve().read_bytes(), name


def metadata():
    lines = ["Metadata-Version: 2.4", f"Name: {NAME}", f"Version: {version()}", f"Summary: {project('description')}",
             f"Requires-Python: {project('requires-python')}", f"License-Expression: {project('license')}",
             f"Keywords: {','.join(project('keywords'))}"]
    lines += [f"Classifier: {c}" for c in project("classifiers")]
    lines += [f"Requires-Dist: {d}" for d in project("dependencies")]
    lines += ["Provides-Extra: tables", *[f'Requires-Dist: {d}; extra == "tables"' for d in project("tables")]]
    lines += ["Description-Content-Type: text/markdown", "", (HERE / "README.md").read_text(encoding="utf-8")]
    return "\n".join(lines)


def package():
    """The package's files without the library: name -> bytes."""
    files = {f"{MODULE}/{p.name}": p.read_bytes() for p in sorted((HERE / MODULE).iterdir())
             if p.suffix in (".py", ".typed") or p.name == "py.typed"}
    files[f"{MODULE}/_abi.py"] = abi.generate(header()).encode()
    return files


def wheel_text(tag):
    return f"Wheel-Version: 1.0\nGenerator: sill_build\nRoot-Is-Purelib: false\nTag: {tag}\n"


def write_wheel(directory, files, tag):
    info = f"sill_lm-{version()}.dist-info"
    files = {**files, f"{info}/METADATA": metadata().encode(), f"{info}/WHEEL": wheel_text(tag).encode(),
             f"{info}/licenses/LICENSE": (root() / "LICENSE").read_bytes()}
    record = ""
    name = f"sill_lm-{version()}-{tag}.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w", zipfile.ZIP_DEFLATED) as z:
        for path, data in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(data)}\n"
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.external_attr = (0o755 if "libsill" in path else 0o644) << 16
            z.writestr(entry, data, zipfile.ZIP_DEFLATED)
        z.writestr(zipfile.ZipInfo(f"{info}/RECORD", EPOCH), record + f"{info}/RECORD,,\n", zipfile.ZIP_DEFLATED)
    return name


# ---- PEP 517 and 660

def get_requires_for_build_wheel(config_settings=None):
    return []


get_requires_for_build_sdist = get_requires_for_build_editable = get_requires_for_build_wheel


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    data, name = library()
    return write_wheel(wheel_directory, {**package(), f"{MODULE}/{name}": data}, f"py3-none-{platform_tag()}")


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """The clone's own package on Python's path; library and layouts are put beside it (git ignores them)."""
    data, name = library()
    fresh = HERE / MODULE / f"{name}.new"  # beside it: a process may run on the old one
    fresh.write_bytes(data)
    os.replace(fresh, HERE / MODULE / name)
    (HERE / MODULE / "_abi.py").write_text(abi.generate(header()), encoding="utf-8")
    return write_wheel(wheel_directory, {"sill_lm.pth": f"{HERE}\n".encode()}, f"py3-none-{platform_tag()}")


def build_sdist(sdist_directory, config_settings=None):
    base = f"sill_lm-{version()}"
    with tarfile.open(os.path.join(sdist_directory, base + ".tar.gz"), "w:gz", format=tarfile.PAX_FORMAT) as tar:
        def add(name, data):
            member = tarfile.TarInfo(f"{base}/{name}")
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))

        add("PKG-INFO", metadata().encode())
        own = [HERE / "pyproject.toml", HERE / "README.md", *(p for d in ("backend", MODULE) for p in (HERE / d).iterdir())]
        for path in sorted(p for p in own if p.suffix in (".py", ".toml", ".md", ".typed") or p.name == "py.typed"):
            if path.name != "_abi.py":
                add(path.relative_to(HERE).as_posix(), path.read_bytes())
        top = root()
        for source in SOURCES:
            place = top / source
            for path in [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file()):
                add(f"libsill/{path.relative_to(top).as_posix()}", path.read_bytes())
    return base + ".tar.gz"
