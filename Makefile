# The commands of this repository. Each installs what it needs and is missing.
.DEFAULT_GOAL := help
.PHONY: help demo test soak check lint servers bench fuzz deb

help: ## Lists these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Sweeps a throwaway server full of expired keys and shows it (ARGS=--once: ends by itself)
	@scripts/toolchain cc
	cargo build --release -p keysweep
	@server=$$(scripts/demo-server) && KEYSWEEP_DEMO_SERVER=$$server exec cargo run --release -q -p keysweep -- demo $(ARGS)

test: servers ## Runs all tests, against real servers
	@scripts/toolchain cc nextest
	@scripts/python
	@scripts/browser
	@scripts/promtool
	@scripts/packages curl
	cargo test -q --doc --workspace
	cargo nextest run --workspace

soak: servers ## Runs the simulation and the replicas' test ten times as long as make test does, and every fault at every point
	@scripts/toolchain cc nextest
	KEYSWEEP_SOAK=10 KEYSWEEP_ROUNDS=100 cargo nextest run --profile soak -p keysweep -E 'test(/simulation|two_replicas/)'
	cargo nextest run --profile soak -p keysweep-engine --run-ignored only -E 'test(soak_)'

check: ## Runs the unit tests only, in under a minute
	@scripts/toolchain cc nextest
	cargo nextest run --workspace --lib --bins

lint: ## Checks format, clippy, and the licences and sources of dependencies
	@scripts/toolchain cc deny
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny check bans licenses sources

servers: ## Installs the pinned Redis and Valkey servers that the tests run against
	@scripts/servers
	@scripts/postgres

deb: ## Builds the Debian package into target/deb, and tries it in a copy of this system
	@scripts/toolchain cc deb nextest
	cargo build --release -p keysweep
	rm -rf target/deb && mkdir -p target/deb/completions
	target/release/keysweep man --dir target/deb/man
	target/release/keysweep completions bash > target/deb/completions/keysweep
	target/release/keysweep completions zsh > target/deb/completions/_keysweep
	target/release/keysweep completions fish > target/deb/completions/keysweep.fish
	.cache/cargo-deb/bin/cargo-deb -p keysweep --no-build --no-strip --output target/deb/
	cargo nextest run -p keysweep --test package --success-output immediate

fuzz: ## Feeds the RESP reader bytes of every kind (FUZZ_SECONDS=60)
	@scripts/toolchain cc fuzz
	cd crates/engine && cargo fuzz run --sanitizer none resp -- -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=65536

bench: servers ## Measures keysweep against what people use today, into docs/benchmarks.md (see there for sizes), and what a large fleet costs, for docs/scaling.md
	@scripts/toolchain cc
	cargo build --release -p keysweep -p keysweep-bench
	cargo run --release -q -p keysweep-bench
	cargo run --release -q -p keysweep-bench --bin keysweep-scale
