# sill - `make help` lists the targets. Needs GNU make 3.81 or later, so that macOS's own will do.
SHELL := /bin/bash
config ?= release
BUILD ?= build/$(config)
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
UNAME_S := $(shell uname -s)
# ZIG_TARGET=aarch64-macos.13.0 and the like: compiled with zig, whose package tools/deps.sh --cross puts into build/zig.
ifneq ($(ZIG_TARGET),)
ZIG ?= $(CURDIR)/build/zig/ziglang/zig
UNAME_S := $(if $(findstring macos,$(ZIG_TARGET)),Darwin,Linux)
ARCH = $(firstword $(subst -, ,$(ZIG_TARGET)))
CC = $(ZIG) cc -target $(ZIG_TARGET)
AR = $(ZIG) ar
ZIG_GLOBAL_CACHE_DIR ?= $(CURDIR)/build/zig/cache
export ZIG_GLOBAL_CACHE_DIR
endif
ifeq ($(origin CC),default)
CC = $(if $(filter fuzz,$(config)),clang,cc)
endif
ARCH ?= $(or $(shell $(CC) -dumpmachine 2>/dev/null | cut -d- -f1),$(shell uname -m))
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
VERSION := $(shell sed -n 's/^.define SILL_VERSION_STRING "\(.*\)"/\1/p' include/sill.h)
ABI := $(firstword $(subst ., ,$(VERSION)))

# ---- flags
CFLAGS ?= -O2 -g
WARN = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wno-unknown-warning-option
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -D_DARWIN_C_SOURCE -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno $(WARN) -Iinclude -Isrc -I$(BUILD) $(CFLAGS) $(EXTRA_CFLAGS)
ALL_LDFLAGS = $(LDFLAGS) $(EXTRA_LDFLAGS)
LIBS = -lm -lpthread
# Only the program needs SQLite (journals), zlib and zstd (compressed files). Where the target has no packages of them, they are
# compiled from their sources, which tools/deps.sh --cross puts into build/cross.
ifneq ($(ZIG_TARGET),)
CROSS_SRC ?= build/cross
endif
ifeq ($(UNAME_S)$(CROSS_SRC),Darwin)
BREW := $(shell brew --prefix 2>/dev/null)
endif
CROSS_C = $(foreach dir,sqlite zlib zstd/common zstd/compress zstd/decompress,$(wildcard $(CROSS_SRC)/$(dir)/*.c))
CROSS_OBJ = $(CROSS_C:$(CROSS_SRC)/%.c=$(BUILD)/cross/%.o)
CLI_CFLAGS = $(if $(CROSS_SRC),$(addprefix -I$(CROSS_SRC)/,sqlite zlib zstd),$(BREW:%=-I%/include))
CLI_LIBS = $(if $(CROSS_SRC),$(CROSS_OBJ),$(BREW:%=-L%/lib) -lsqlite3 -lz -lzstd)

ifneq ($(filter-out release debug sanitize tsan coverage fuzz,$(config)),)
$(error config=$(config) is not one of release, debug, sanitize, tsan, coverage, fuzz)
endif
ifeq ($(config),debug)
CFLAGS = -O0 -g -DSILL_DEBUG
endif
ifeq ($(config),sanitize)
CFLAGS = -O1 -g -DSILL_DEBUG -fno-omit-frame-pointer
SANITIZE = -fsanitize=address,undefined
EXTRA_CFLAGS += -fno-sanitize-recover=undefined
endif
ifeq ($(config),tsan)
CFLAGS = -O1 -g -DSILL_DEBUG
SANITIZE = -fsanitize=thread
endif
ifeq ($(config),coverage)
CFLAGS = -O1 -g -DSILL_DEBUG
SANITIZE = --coverage
endif
ifeq ($(config),fuzz)
CFLAGS = -O1 -g -DSILL_DEBUG -fno-omit-frame-pointer
SANITIZE = -fsanitize=fuzzer-no-link,address,undefined
EXTRA_CFLAGS += -fno-sanitize-recover=undefined
endif
EXTRA_CFLAGS += $(SANITIZE)
EXTRA_LDFLAGS += $(SANITIZE)
ifneq ($(WERROR),)
WARN += -Werror
endif

# ---- sources: every src/*/*.c; bodies for one instruction set are named isa_<name>.c and picked whole.
ISA_x86_64 = avx2 avx512 avx512vnni avx512bf16
ISA_aarch64 = neon neon_dotprod neon_i8mm
ISA_arm64 = $(ISA_aarch64)
ISA = scalar $(ISA_$(ARCH))
ISA_FLAGS_avx2 = -mavx2 -mfma -mf16c
ISA_FLAGS_avx512 = -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512
ISA_FLAGS_avx512vnni = $(ISA_FLAGS_avx512) -mavx512vnni
ISA_FLAGS_avx512bf16 = $(ISA_FLAGS_avx512vnni) -mavx512bf16
ISA_FLAGS_neon = -march=armv8-a
ISA_FLAGS_neon_dotprod = -march=armv8.2-a+dotprod+fp16
ISA_FLAGS_neon_i8mm = -march=armv8.2-a+dotprod+fp16+i8mm+bf16
ifneq ($(ZIG_TARGET),)
# The same in zig's words.
ISA_FLAGS_neon = -mcpu=generic
ISA_FLAGS_neon_dotprod = -mcpu=generic+v8_2a+dotprod+fullfp16
ISA_FLAGS_neon_i8mm = -mcpu=generic+v8_2a+dotprod+fullfp16+i8mm+bf16
endif

# The Metal backend: its kernels are embedded as one text, what others build on first.
METAL_FIRST = args.h args_mat.h args_vec.h common.metal dequant.metal
METAL_KERNELS = $(wildcard $(addprefix src/backend/metal/kernels/,$(METAL_FIRST))) \
    $(filter-out $(METAL_FIRST:%=src/backend/metal/kernels/%),$(sort $(wildcard src/backend/metal/kernels/*.metal)))
ALL_CFLAGS += -DSILL_METAL

SRC := $(filter-out src/backend/cpu/isa_%.c,$(wildcard src/*/*.c src/*/*/*.c)) $(wildcard $(ISA:%=src/backend/cpu/isa_%.c))
OBJ := $(SRC:%.c=$(BUILD)/%.o)
CLI_SRC := $(wildcard cli/*.c)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/%.o)
TEST_SRC := $(wildcard tests/*/test_*.c)
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/%)
# The fake Metal that the Metal backend is tested on (Linux).
FAKE_SRC := $(filter-out tests/fakemetal/test_%.c,$(wildcard tests/fakemetal/*.c))
FAKE_METAL := $(if $(filter Linux,$(UNAME_S)),$(BUILD)/libfakemetal.so)
CUDA_SRC := $(filter-out tests/metalcuda/test_%.c,$(wildcard tests/metalcuda/*.c))
BENCH_SRC := $(wildcard bench/*.c bench/*/*.c)
BENCH_BIN := $(BENCH_SRC:%.c=$(BUILD)/%)

LIBSILL = $(BUILD)/libsill.a
ifeq ($(UNAME_S),Darwin)
SHARED_NAME = libsill.$(VERSION).dylib
SHARED_ABI = libsill.$(ABI).dylib
SHARED_LINK = libsill.dylib
SHARED_FLAGS = -dynamiclib -install_name $(LIBDIR)/$(SHARED_ABI) -current_version $(VERSION) -compatibility_version $(ABI).0
else
SHARED_NAME = libsill.so.$(VERSION)
SHARED_ABI = libsill.so.$(ABI)
SHARED_LINK = libsill.so
SHARED_FLAGS = -shared -Wl,-soname,$(SHARED_ABI) $(if $(SANITIZE),,-Wl,--no-undefined)
endif
SHARED = $(BUILD)/$(SHARED_NAME)

# A compiler that is stopped may leave an empty object.
.DELETE_ON_ERROR:
.PHONY: all lib static shared cli tests metal-cuda bench-programs run test test-all lint model deps install uninstall bench dist macos wheels help clean FORCE
all: lib shared cli
lib: static
static: $(LIBSILL)
shared: $(SHARED)
cli: $(BUILD)/sill
tests: $(TEST_BIN) $(FAKE_METAL)
bench-programs: $(BENCH_BIN)

help:
	@echo "make               build libsill (static and shared) and sill into $(BUILD)"
	@echo "make run           install what is missing, build, fetch the default model, label examples/reviews.csv"
	@echo "make test          build and run the tests; AREAS=\"tokenizer format\" runs some areas only"
	@echo "make test-all      all suites: sanitizers, forced instruction sets, clang, aarch64, fuzzing, live parity"
	@echo "make metal-cuda    the Metal kernels on an NVIDIA GPU: their tests, whole models, compute-sanitizer (docs/GPU-TESTS.md)"
	@echo "make lint          the project's own source checks"
	@echo "make model         fetch the default model into the cache"
	@echo "make deps          install what building and running need"
	@echo "make bench         compare speed with llama.cpp and transformers (docs/SPEED.md)"
	@echo "make install       into PREFIX=$(PREFIX) (DESTDIR for packagers); make uninstall"
	@echo "make dist          source archive of HEAD in build/"
	@echo "make wheels        build/wheels: the Python package for Linux and Macs, compiled here with zig"
	@echo "make macos         build/macos/sill for Macs with either processor, compiled here with zig, and checked"
	@echo "make clean         remove build/"
	@echo "variables: config=release|debug|sanitize|tsan|coverage|fuzz  CC=gcc|clang  BUILD=dir  WERROR=1  JOBS=n  V=1"

# ---- compiling (V=1 shows the commands). The flags file changes when the compiler or its flags do, and everything depends on it.
Q = $(if $(V),,@)
SAY = @echo
FLAGS_TEXT = $(CC) $(filter-out -Werror,$(ALL_CFLAGS)) $(ALL_LDFLAGS) $(foreach i,$(ISA),$(ISA_FLAGS_$(i)))
$(BUILD)/flags: FORCE
	@mkdir -p $(@D) && echo '$(FLAGS_TEXT)' | cmp -s - $@ || echo '$(FLAGS_TEXT)' >$@
# The commit that `sill --version` shows; rewritten only when it changed.
$(BUILD)/build_info.h: FORCE
	@mkdir -p $(@D) && commit=$$(git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown) && \
	line="#define SILL_BUILD_COMMIT \"$$commit\"" && echo "$$line" | cmp -s - $@ || echo "$$line" >$@

# GNU make 3.81, which macOS has, takes the first pattern that fits: particular ones stand before general ones.
$(BUILD)/tests/%.o: tests/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) "  CC  $<"
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -c $< -o $@
$(BUILD)/metalcuda/%.o: tests/metalcuda/%.c $(wildcard tests/metalcuda/*.h tests/metalcuda/shim/*.h) tests/fakemetal/fake.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) "  CC  $<"
	$(Q)$(CC) -std=gnu11 -O2 -g -fPIC -fvisibility=hidden $(WARN) -Wno-missing-prototypes -DMETALCUDA_SHIM='"$(CURDIR)/tests/metalcuda/shim"' -c $< -o $@
# The fake Metal, always without sanitizers: its threads are fibers.
$(BUILD)/fakemetal/%.o: tests/fakemetal/%.c $(wildcard tests/fakemetal/*.h tests/fakemetal/shim/*.h) tests/fakemetal/translate.c tests/fakemetal/lint.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) "  CC  $<"
	$(Q)$(CC) -std=gnu11 -O2 -g -fPIC -fvisibility=hidden -fno-omit-frame-pointer $(WARN) -Wno-missing-prototypes -DFAKEMETAL_SHIM='"$(CURDIR)/tests/fakemetal/shim"' -c $< -o $@
$(BUILD)/src/backend/cpu/isa_%.o: src/backend/cpu/isa_%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) "  CC  $<"
	$(Q)$(CC) $(ALL_CFLAGS) $(ISA_FLAGS_$*) -MMD -MP -c $< -o $@
$(BUILD)/cli/%.o: cli/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) "  CC  $<"
	$(Q)$(CC) $(ALL_CFLAGS) $(CLI_CFLAGS) -MMD -MP -c $< -o $@
# Somebody else's code: its warnings are not ours. One thread uses SQLite, and it loads nothing.
CROSS_FLAGS_sqlite = -DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_ENABLE_LOCKING_STYLE=0
# zlib takes fdopen away from what it believes to be an old Mac.
CROSS_FLAGS_zlib = -Dfdopen=fdopen
CROSS_FLAGS_zstd = -DZSTD_DISABLE_ASM -DZSTD_LEGACY_SUPPORT=0
$(BUILD)/cross/%.o: $(CROSS_SRC)/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) "  CC  $<"
	$(Q)$(CC) -O2 -w $(CFLAGS) -std=gnu11 -fPIC $(CROSS_FLAGS_$(firstword $(subst /, ,$*))) -c $< -o $@
$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) "  CC  $<"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@
# What decides the bytes of packed weights: a copy that another program's packing kept is not taken (cpu_cache.c).
PACK_SRC = $(sort $(wildcard src/backend/backend.h src/backend/cpu/kernels.h src/backend/cpu/isa_*.c src/backend/cpu/simd_*.h \
    src/backend/cpu/mat* src/format/format.h src/format/types.c src/format/quant*))
$(BUILD)/pack_build.h: FORCE
	@mkdir -p $(@D) && line="#define SILL_PACK_BUILD \"$$(cat $(PACK_SRC) | cksum | tr ' ' '-')\"" && \
	echo "$$line" | cmp -s - $@ || echo "$$line" >$@
$(BUILD)/src/backend/cpu/cpu_cache.o: $(BUILD)/pack_build.h
# What a device's check holds for: it is run again when anything below src/backend changes (check/first_use.c).
CHECK_SRC = $(sort $(shell find src/backend -type f) src/format/format.h src/format/types.c src/format/quant.c)
$(BUILD)/check_build.h: FORCE
	@mkdir -p $(@D) && line="#define SILL_CHECK_BUILD \"$$(cat $(CHECK_SRC) | cksum | tr ' ' '-')\"" && \
	echo "$$line" | cmp -s - $@ || echo "$$line" >$@
$(BUILD)/src/backend/check/first_use.o: $(BUILD)/check_build.h
# The sample text as one string; its lines have no character that C reads otherwise but \ and ".
$(BUILD)/sample_text.h: examples/sample.txt
	@mkdir -p $(@D) && { echo 'static const char cli_sample_text[] ='; sed -e 's/[\"]/\\&/g' -e 's/.*/"&\\n"/' $<; echo ';'; } >$@
# The kernels' text: what only C needs of it (its include lines) is left out.
$(BUILD)/metal_source.h: $(METAL_KERNELS) Makefile
	@mkdir -p $(@D) && { echo 'static const char metal_source[] =' && \
	{ printf '#include <metal_stdlib>\n#include <metal_simdgroup_matrix>\nusing namespace metal;\n#pragma METAL fp contract(off)\n' && \
	cat $(METAL_KERNELS) | sed -e '/^#include "/d'; } | sed -e 's/[\\"]/\\&/g' -e 's/.*/"&\\n"/' && echo ';'; } >$@
$(BUILD)/src/backend/metal/pipelines.o $(BUILD)/tests/metal/test_mat.o: $(BUILD)/metal_source.h
$(CLI_OBJ): | $(BUILD)/build_info.h $(BUILD)/sample_text.h
$(BUILD)/cli/quantize.o: $(BUILD)/sample_text.h

$(LIBSILL): $(OBJ)
	@mkdir -p $(@D)
	$(SAY) "  AR  $@"
	$(Q)rm -f $@ && $(AR) rcs $@ $(OBJ)
# On macOS the library holds the place it is installed in: another PREFIX links it again.
$(BUILD)/shared_flags: FORCE
	@mkdir -p $(@D) && echo '$(SHARED_FLAGS)' | cmp -s - $@ || echo '$(SHARED_FLAGS)' >$@
$(SHARED): $(OBJ) $(BUILD)/shared_flags
	$(SAY) "  LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(SHARED_FLAGS) -o $@ $(OBJ) $(LIBS)
	$(Q)ln -sf $(SHARED_NAME) $(BUILD)/$(SHARED_ABI) && ln -sf $(SHARED_ABI) $(BUILD)/$(SHARED_LINK)

$(BUILD)/sill: $(CLI_OBJ) $(LIBSILL) $(filter %.o,$(CLI_LIBS))
	$(SAY) "  LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(CLI_OBJ) $(LIBSILL) $(CLI_LIBS) $(LIBS)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(LIBSILL)
	$(SAY) "  LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $(LIBSILL) $(LIBS)
$(BUILD)/bench/%: $(BUILD)/bench/%.o $(LIBSILL)
	$(SAY) "  LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $(LIBSILL) $(LIBS)
$(BUILD)/libfakemetal.so: $(FAKE_SRC:tests/fakemetal/%.c=$(BUILD)/fakemetal/%.o)
	$(SAY) "  LD  $@"
	$(Q)$(CC) -shared -Wl,-soname,libfakemetal.so -o $@ $^ -lm -lpthread -ldl
# The same kernels on an NVIDIA GPU: the fake Metal, whose dispatches go to CUDA's driver (docs/GPU-TESTS.md).
$(BUILD)/libmetalcuda.so: $(FAKE_SRC:tests/fakemetal/%.c=$(BUILD)/fakemetal/%.o) $(CUDA_SRC:tests/metalcuda/%.c=$(BUILD)/metalcuda/%.o)
	$(SAY) "  LD  $@"
	$(Q)$(CC) -shared -Wl,-soname,libmetalcuda.so -o $@ $^ -lm -lpthread -ldl
.SECONDARY: $(TEST_BIN:=.o) $(BENCH_BIN:=.o)

# ---- using
# A parallel build unless the caller's own -j is in force.
PARALLEL = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))
deps:
	@tools/deps.sh
model:
	@tools/fetch_model.sh
run:
	@tools/deps.sh
	@$(MAKE) $(PARALLEL) --no-print-directory cli
	@tools/fetch_model.sh
	@BUILD=$(BUILD) examples/run.sh

test:
	@$(MAKE) $(PARALLEL) --no-print-directory all tests
	@BUILD=$(BUILD) CC="$(CC)" CONFIG=$(config) tests/run.sh $(AREAS)
test-all:
	@tools/deps.sh --test
	@tools/test_all.sh
metal-cuda:
	@$(MAKE) $(PARALLEL) --no-print-directory cli shared tests $(BUILD)/libmetalcuda.so
	@BUILD=$(BUILD) tests/metalcuda/run.sh all
lint:
	@tools/lint.sh
bench:
	@tools/deps.sh --bench
	@$(MAKE) $(PARALLEL) --no-print-directory all bench-programs
	@BUILD=$(BUILD) bench/run.sh

# The dynamic linker's list of libraries, where there is one: without it a program linked with libsill does not start.
LDCONFIG = $(if $(DESTDIR)$(filter Darwin,$(UNAME_S)),,PATH="$$PATH:/sbin:/usr/sbin"; ! command -v ldconfig >/dev/null || ldconfig 2>/dev/null || true)
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 755 $(BUILD)/sill $(DESTDIR)$(PREFIX)/bin/sill
	install -m 644 include/sill.h $(DESTDIR)$(PREFIX)/include/sill.h
	install -m 644 $(LIBSILL) $(DESTDIR)$(LIBDIR)/libsill.a
	install -m 755 $(SHARED) $(DESTDIR)$(LIBDIR)/$(SHARED_NAME)
	ln -sf $(SHARED_NAME) $(DESTDIR)$(LIBDIR)/$(SHARED_ABI)
	ln -sf $(SHARED_ABI) $(DESTDIR)$(LIBDIR)/$(SHARED_LINK)
	printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$${prefix}/include' '' 'Name: sill' \
	    'Description: language models for people who analyse text' 'Version: $(VERSION)' \
	    'Libs: -L$${libdir} -lsill' 'Libs.private: $(LIBS)' 'Cflags: -I$${includedir}' \
	    >$(DESTDIR)$(LIBDIR)/pkgconfig/sill.pc
	$(LDCONFIG)
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/sill $(DESTDIR)$(PREFIX)/include/sill.h $(DESTDIR)$(LIBDIR)/pkgconfig/sill.pc \
	    $(addprefix $(DESTDIR)$(LIBDIR)/,libsill.a $(SHARED_NAME) $(SHARED_ABI) $(SHARED_LINK))
	$(LDCONFIG)

dist:
	@mkdir -p build && git archive --format=tar.gz --prefix=sill-$(VERSION)/ -o build/sill-$(VERSION).tar.gz HEAD && \
	echo build/sill-$(VERSION).tar.gz

MACOS_MIN = 13.0
macos:
	@tools/deps.sh --cross aarch64-macos.$(MACOS_MIN) x86_64-macos.$(MACOS_MIN)
	@$(MAKE) $(PARALLEL) --no-print-directory ZIG_TARGET=aarch64-macos.$(MACOS_MIN) BUILD=build/macos/arm64 WERROR=1 cli
	@$(MAKE) $(PARALLEL) --no-print-directory ZIG_TARGET=x86_64-macos.$(MACOS_MIN) BUILD=build/macos/x86_64 WERROR=1 cli
	@python3 tools/join_macho.py build/macos/sill build/macos/arm64/sill build/macos/x86_64/sill
	@python3 tools/check_macho.py --min $(MACOS_MIN) build/macos/sill

wheels:
	@tools/wheels.sh

clean:
	rm -rf build

-include $(OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TEST_BIN:=.d) $(BENCH_BIN:=.d)
