# trivet: set-up, checks and tests. `make` alone leaves .venv/bin/{trivet,trivetd,trivet-runtime}.
#
# System packages come from the machine's own apt configuration, Python packages from its own pip
# configuration. Nothing here names a mirror.

SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin

# What the engine runs, and why. A reason is a comment to the shell: `\# ...`; a bare # would end the list for make.
RUN_PACKAGES := \
	qemu-system-x86  `\# the vm level; brings virtiofsd` \
	qemu-utils       `\# disk images of other formats, thin disks` \
	nftables         `\# published ports, masquerading` \
	erofs-utils      `\# an image as a VM's read-only drive` \
	e2fsprogs        `\# a VM's writable drive` \
	mmdebstrap       `\# pull bootstrap:debian/...` \
	iproute2         `\# a look at links and addresses when something is wrong` \
	qemu-utils ovmf  `\# disks and UEFI of machines with a system of their own` \
	swtpm            `\# their TPM` \
	fdisk dosfstools mtools grub-common `\# a disk that boots, made of a directory` \
	kmod             `\# loading a kernel module the host has but has not loaded` \
	ca-certificates  `\# registries over TLS`
# What building it needs.
BUILD_PACKAGES := \
	python3-venv     `\# the environment in .venv` \
	musl-tools       `\# the launcher and the guest agent are static` \
	linux-libc-dev   `\# the kernel's structures, for both` \
	gcc libc6-dev    `\# what musl-gcc is a wrapper of` \
	make             `\# this file`
# What the tests talk to.
TEST_PACKAGES := \
	busybox-static   `\# an image of one file` \
	docker-registry  `\# a registry that isn't ours` \
	skopeo           `\# a client of registries that isn't ours` \
	cpio lz4         `\# a look into what we packed` \
	openssl          `\# certificates for registries over TLS` \
	git              `\# repositories to ADD` \
	openssh-client   `\# an agent for RUN --mount=type=ssh` \
	etcd-server      `\# the store of several hosts` \
	faketime         `\# a build on another day` \
	genisoimage      `\# a CD to boot` \
	uidmap           `\# an ordinary user's containers with several ids` \
	bind9-dnsutils   `\# a client of name servers that isn't ours`
# Whom trivet is compared with and called by: for `make peers`, so that nobody gets another engine without asking.
PEER_PACKAGES := \
	docker.io        `\# a caller of trivet-runtime; what the Docker door has to answer like` \
	containerd       `\# another caller, and a snapshotter's contract` \
	docker-compose   `\# a client of the Docker door` \
	podman           `\# a caller of trivet-runtime, also an ordinary user's` \
	runc crun        `\# OCI runtimes: the conformance set has to hold for them, too` \
	criu             `\# one that is too old for kernels of today; tests fetch a newer one`

RUN_PACKAGES := $(shell echo $(RUN_PACKAGES))
BUILD_PACKAGES := $(shell echo $(BUILD_PACKAGES))
TEST_PACKAGES := $(shell echo $(TEST_PACKAGES))
PEER_PACKAGES := $(shell echo $(PEER_PACKAGES))
NATIVE := src/trivet/launch/native
FRONT := src/trivet/launch/bin/trivet-runtime
# two workers: while one waits for a guest to boot, the other has a processor
JOBS ?= 2
RUN_PYTEST := $(BIN)/python -m pytest
# What failed is asked once more, alone: limits of time that fit a quiet machine are met then, and a defect stays one.
AGAIN := (echo "· once more, alone, what failed"; $(RUN_PYTEST) tests --last-failed --last-failed-no-failures none)

.PHONY: peers clones identity reverts capacity all setup system bytecode native front demo test test-unified check fix bench gym reproduce clean try installer

all: setup

setup: system $(VENV)/.ready bytecode native front

system:
	@bash scripts/packages $(RUN_PACKAGES) $(BUILD_PACKAGES)

$(VENV)/.ready: pyproject.toml requirements.txt | native
	@echo "· Python environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/python -c 'import trivet, aiohttp, msgspec, pytest' && touch $@

# The command is started often; a machine may be set not to write byte code as it goes.
bytecode: $(VENV)/.ready
	@$(BIN)/python -m compileall -q src/trivet

native: system
	@$(MAKE) --silent --no-print-directory -C $(NATIVE)

# A wheel brings it along; an editable installation doesn't.
front: native $(VENV)/.ready
	@cmp -s $(FRONT) $(BIN)/trivet-runtime || install $(FRONT) $(BIN)/trivet-runtime

# dockerode, for tests/docker/test_node.py: only where npm is there, and never at run time
node: $(VENV)/.ready
	@if which npm >/dev/null; then install -D -m 644 tests/docker/node/package.json $(VENV)/node/package.json && \
		cd $(VENV)/node && npm install --silent --no-audit --no-fund --ignore-scripts; fi || echo "· no dockerode: its test is skipped"

## the main job, on real input: one service at three levels
demo: setup
	@$(BIN)/python -m demo.demo $(ARGS)

## a database that runs, cloned with its data: docs/snapshot.md
clones: setup
	@$(BIN)/python -m demo.clones $(ARGS)

## 36 of 32 promised, and nobody hurt: docs/capacity.md
capacity: setup
	@bash scripts/packages $(TEST_PACKAGES)
	@$(BIN)/python -m demo.overbooked $(ARGS)

## everything, as root
test: setup node
	@bash scripts/packages $(TEST_PACKAGES)
	$(RUN_PYTEST) tests -n $(JOBS) --dist worksteal --ignore tests/docker --ignore tests/gym $(ARGS) || $(AGAIN)
	@# by itself: a hierarchy of control groups that an attack makes is seen by every process of the machine
	$(RUN_PYTEST) tests/gym $(ARGS) || $(AGAIN)
	@# in one process: its last test asks whether all of the table was used
	$(RUN_PYTEST) tests/docker $(ARGS) || $(AGAIN)

## conformance set, contract of the levels and gym where control groups are version 2 only: in guests, under emulation
test-unified: setup
	@bash scripts/packages $(TEST_PACKAGES)
	TRIVET_UNIFIED="$(or $(ARGS),all)" $(RUN_PYTEST) tests/vm/test_unified.py -s

## a thousand machines, and no two of them alike: ten minutes on two idle processors
identity: setup
	@bash scripts/packages $(TEST_PACKAGES)
	TRIVET_FORKS=1000 $(RUN_PYTEST) tests/vm/test_identity.py -s

## Debian's own installer with a file of answers, emulated: minutes
installer: setup
	@bash scripts/packages $(TEST_PACKAGES)
	TRIVET_INSTALLER=1 $(RUN_PYTEST) tests/vm/test_installer.py -s

## a hundred times back to a snapshot with memory, checksums compared; and how long each snapshot stood still
reverts: setup
	@bash scripts/packages $(TEST_PACKAGES)
	TRIVET_REVERTS=100 $(RUN_PYTEST) tests/vm/test_revert.py -s

check: setup
	$(BIN)/ruff format --check src tests bench demo
	$(BIN)/ruff check src tests bench demo
	$(BIN)/mypy
	$(BIN)/lint-imports
	@echo "· the ten longest files"
	@git ls-files '*.py' '*.c' | xargs wc -l | sort -rn | sed -n '2,11p'

fix: setup
	$(BIN)/ruff check --fix src tests bench demo
	$(BIN)/ruff format src tests bench demo

## docker, podman, runc and others, for the tests and figures beside them; no daemon of theirs is started
peers:
	@bash scripts/packages $(PEER_PACKAGES)

## side by side with docker, podman, runc and crun where they are installed: `make peers`
bench: setup
	@$(BIN)/python -m bench.run $(ARGS)

## known ways out of containers, tried on trivet, docker, podman, runc and crun where they are installed: docs/gym.md
gym: setup
	@bash scripts/packages $(TEST_PACKAGES)
	@$(BIN)/python -m tests.gym $(ARGS)

## thirty Dockerfiles, each built in two surroundings: the same digest?
reproduce: setup
	@bash scripts/packages $(TEST_PACKAGES)
	@$(BIN)/python -m bench.reproduce $(ARGS)

clean:
	rm -rf build dist src/*.egg-info src/trivet/launch/bin .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
