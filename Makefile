# The commands of this repository. Each installs the tools that it needs.
.DEFAULT_GOAL := help
.PHONY: help demo test prepare soak check lint servers bench fuzz deb release

help: ## Lists these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Scans a temporary server full of stale keys (ARGS=--once: exits after the scan)
	@scripts/demo $(ARGS)

test: prepare ## Runs all tests, against real servers
	cargo test -q --doc --workspace
	cargo nextest run --workspace

prepare: servers ## Installs the servers and tools of the tests
	@scripts/toolchain cc nextest
	@scripts/python
	@scripts/browser
	@scripts/npm typescript workflows
	@scripts/promtool
	@scripts/packages curl

soak: prepare ## Runs the simulation 20,000 times, the replica test 100 times, ten times the API fuzzing, every connection fault at every point, and chaos (KEYSWEEP_CHAOS_MINUTES=30)
	@scripts/toolchain cc nextest
	KEYSWEEP_SOAK=10 KEYSWEEP_ROUNDS=100 cargo nextest run --workspace --profile soak -E 'test(/simulation|two_replicas/) or test(/^schemathesis::/)'
	cargo nextest run --workspace --profile soak --run-ignored only -E 'test(soak_)'

check: ## Runs the unit tests only, in less than a minute
	@scripts/toolchain cc nextest
	cargo nextest run --workspace --lib --bins

lint: ## Checks format, clippy, documentation, migrations, and the use, licences, sources and advisories of dependencies
	@scripts/toolchain cc deny machete
	cargo fmt --all --check
	scripts/migrations
	cargo machete
	cargo deny check bans licenses sources
	scripts/advisories
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --workspace

servers: ## Installs the pinned Redis, Valkey and PostgreSQL servers of the tests
	@scripts/servers
	@scripts/postgres

deb: ## Builds the Debian package into target/deb and installs it in a disposable chroot as a smoke test
	@scripts/toolchain cc deb nextest
	cargo build --release -p keysweep
	scripts/deb
	cargo nextest run -p keysweep --test cli -E 'test(/^package::/)' --success-output immediate

release: ## Builds tarballs against glibc 2.31, the Debian package and checksums into target/dist
	@scripts/toolchain cc deb zig
	@scripts/release

fuzz: ## Fuzzes the RESP reader (FUZZ_SECONDS=60)
	@scripts/toolchain cc fuzz
	cd crates/engine && cargo fuzz run --sanitizer none resp -- -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=65536

bench: servers ## Measures keysweep against today's alternatives (writes docs/benchmarks.md) and the cost of a large fleet (for docs/scaling.md)
	@scripts/toolchain cc
	cargo build --release -p keysweep -p keysweep-bench
	cargo run --release -q -p keysweep-bench
	cargo run --release -q -p keysweep-bench --bin keysweep-scale
