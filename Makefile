# sill - `make help` lists the targets.
SHELL := /bin/bash
config ?= release
CC ?= cc
BUILD ?= build/$(config)
UNAME_S := $(shell uname -s)
ARCH ?= $(shell $(CC) -dumpmachine | cut -d- -f1)

CFLAGS ?= -O2 -g
WARN = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wno-unknown-warning-option
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -D_DARWIN_C_SOURCE -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno $(WARN) -Iinclude -Isrc $(CFLAGS) $(EXTRA_CFLAGS)
ALL_LDFLAGS = $(LDFLAGS) $(EXTRA_LDFLAGS)
LIBS = -lm -lpthread

ifeq ($(config),debug)
CFLAGS = -O0 -g -DSILL_DEBUG
endif
ifeq ($(config),sanitize)
CFLAGS = -O1 -g -DSILL_DEBUG -fno-omit-frame-pointer
EXTRA_CFLAGS += -fsanitize=address,undefined -fno-sanitize-recover=undefined
EXTRA_LDFLAGS += -fsanitize=address,undefined
endif
ifeq ($(config),tsan)
CFLAGS = -O1 -g -DSILL_DEBUG
EXTRA_CFLAGS += -fsanitize=thread
EXTRA_LDFLAGS += -fsanitize=thread
endif
ifneq ($(WERROR),)
WARN += -Werror
endif

# ---- sources: every src/*/*.c; bodies for one instruction set are named isa_<name>.c and picked whole.
ISA_x86_64 = avx2 avx512 avx512vnni
ISA_aarch64 = neon neon_dotprod neon_i8mm
ISA_arm64 = $(ISA_aarch64)
ISA = $(ISA_$(ARCH))
ISA_FLAGS_avx2 = -mavx2 -mfma -mf16c
ISA_FLAGS_avx512 = -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512
ISA_FLAGS_avx512vnni = $(ISA_FLAGS_avx512) -mavx512vnni -mavx512bf16 -mavx512vbmi
ISA_FLAGS_neon = -march=armv8-a
ISA_FLAGS_neon_dotprod = -march=armv8.2-a+dotprod+fp16
ISA_FLAGS_neon_i8mm = -march=armv8.2-a+dotprod+fp16+i8mm+bf16

SRC := $(filter-out src/backend/cpu/isa_%.c,$(wildcard src/*/*.c src/*/*/*.c)) $(wildcard $(ISA:%=src/backend/cpu/isa_%.c))
OBJ := $(SRC:%.c=$(BUILD)/%.o)
CLI_SRC := $(wildcard cli/*.c)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/%.o)
TEST_SRC := $(wildcard tests/*/test_*.c)
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/%)
LIBSILL = $(BUILD)/libsill.a

.PHONY: all lib cli tests test clean help
all: lib cli
lib: $(LIBSILL)
cli: $(BUILD)/sill
tests: $(TEST_BIN)

help:
	@echo "make            build libsill and sill into $(BUILD)"
	@echo "make test       build and run the tests"
	@echo "config=release|debug|sanitize|tsan; BUILD=dir; CC=clang; WERROR=1"

$(BUILD)/src/backend/cpu/isa_%.o: src/backend/cpu/isa_%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ISA_FLAGS_$*) -MMD -MP -c $< -o $@
$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(LIBSILL): $(OBJ)
	@mkdir -p $(@D)
	rm -f $@ && $(AR) rcs $@ $(OBJ)

$(BUILD)/sill: $(CLI_OBJ) $(LIBSILL)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(CLI_OBJ) $(LIBSILL) $(CLI_LIBS) $(LIBS)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(LIBSILL)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $(LIBSILL) $(LIBS)
$(BUILD)/tests/%.o: tests/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -c $< -o $@
.PRECIOUS: $(BUILD)/tests/%.o

# make test AREAS="tokenizer format" runs some areas only.
test: all tests
	@BUILD=$(BUILD) tests/run.sh $(AREAS)

clean:
	rm -rf build

-include $(OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TEST_BIN:=.d)
