# The front door. Meson and ninja do the work below; `make` alone gives build/tarnd, build/tarn and build/tarn-sim.
#
#   make run                  a mirror of two images on files under ./run, served over NBD, until Ctrl-C
#   make test                 all tests; make test-san: the same with sanitizers
#   make layers               arrows between the folders of src/ point down
#   make sim SEEDS=2000       so many simulated histories (or a range: SEEDS=100-200)
#   make soak MINUTES=30      planted mistakes, lives at random, power cuts, damaged metadata, Linux 6.1, SIGKILL over and over
#   make fuzz MINUTES=10      fuzzes every parser, so many minutes of CPU in all
#   make bench PART=cpu       measures, also against other servers; without PART everything, for most of an hour
#   make install DESTDIR= PREFIX=/usr/local
#   make deb                  a Debian package, in build
#   make format, check-format, clean
.PHONY: all deps-build deps-test run test test-san layers sim soak fuzz bench install deb format check-format clean
.DELETE_ON_ERROR:

OUT := build/out
SAN := build/san
PREFIX ?= /usr/local
SEEDS ?= 2000
MINUTES ?= 10
PROGRAMS := src/shell/tarnd src/shell/tarn sim/tarn-sim
SAN_OPTIONS := -Db_sanitize=address,undefined -Db_lundef=false -Dc_args=-fno-sanitize-recover=all

all: $(OUT)/build.ninja
	@ninja --quiet -C $(OUT)
	@for program in $(PROGRAMS); do ln -sfn out/$$program build/; done

$(OUT)/build.ninja:
	@command -v meson >/dev/null || { echo "make: meson is missing; tools/install-deps installs what is needed" >&2; exit 1; }
	@mkdir -p build
	@meson setup $(OUT) >build/setup.log 2>&1 || { cat build/setup.log; exit 1; }

$(SAN)/build.ninja:
	@mkdir -p build
	@meson setup $(SAN) $(SAN_OPTIONS) >build/setup-san.log 2>&1 || { cat build/setup-san.log; exit 1; }

deps-build:
	@tools/install-deps build
deps-test:
	@tools/install-deps test

# The parts that use the tree come after the packages: a second make, so that -j cannot turn them round.
run: deps-build
	@$(MAKE) --no-print-directory all
	@tools/demo

test: deps-test
	@tools/test-all

test-san: deps-test
	@tools/test-all --san

layers: all
	@tools/check-layers $(OUT)

sim: all
	@build/tarn-sim --seeds $(if $(findstring -,$(SEEDS)),$(SEEDS),1-$(SEEDS))

soak: deps-test
	@$(MAKE) --no-print-directory all
	@tools/plants --search
	@LINES=1-10000 $(OUT)/tests/unit/test_mirror_lines
	@tests/soak/run $(MINUTES)

fuzz: deps-test
	@tools/fuzz $(MINUTES)

bench: deps-test
	@$(MAKE) --no-print-directory all
	@bench/run $(if $(PART),--part $(PART))

install: all
	@meson configure $(OUT) -Dprefix=$(abspath $(PREFIX))
	@ninja --quiet -C $(OUT) >/dev/null
	@DESTDIR=$(abspath $(DESTDIR)) meson install --quiet -C $(OUT) --no-rebuild
	@echo "installed below $(abspath $(DESTDIR))$(abspath $(PREFIX))"

deb: deps-build
	@tools/install-deps package
	@tools/make-deb build

SOURCES = $(shell find src sim tests bench -name '*.[ch]' | sort)
format:
	@clang-format -i $(SOURCES)
check-format:
	@bad=$$(clang-format --dry-run $(SOURCES) 2>&1 | sed -n 's/^\([^: ]*\):[0-9]*:[0-9]*: warning.*/\1/p' | sort -u); \
	for file in $$bad; do echo "$$file: not as \`make format\` leaves it"; done; [ -z "$$bad" ]

clean:
	@rm -rf build
