//! Command lines that use every command and every option, with the output each must have. `{…}` stands for values known only
//! at run time. Other tests cover what an option does in detail; these prove that every option is accepted and used.

/// One command line.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Arguments of `keysweep`, without those that all lines of the group share.
    pub typed: &'static str,
    /// Expected exit code.
    pub code: i32,
    /// Part of its output or error.
    pub says: &'static str,
}

/// Returns a line that must succeed.
const fn good(typed: &'static str, says: &'static str) -> Line {
    Line { typed, code: 0, says }
}

/// `scan` and `estimate`. `{locked}` requires a password, `{watched}` is behind a Sentinel.
pub const SCANS: &[Line] = &[
    good(
        "scan {server} --pace gentle --max-cpu 50 --max-slice 300 --keys-per-second 1000000 --reclaims-per-second 1000000 \
         --parallel 3 --timeout 60s --reconnect-timeout 10s --json",
        "\"outcome\":\"done\"",
    ),
    good("scan --socket {socket} --allow-clock-skew", "keys reclaimed"),
    good("estimate --socket {socket} --output csv", "address,source,keys"),
    Line { typed: "scan {replica} --no-follow", code: 1, says: "is a replica, where a scan reclaims nothing" },
    good("scan {locked} --user default --password-file {password} --dry-run", "verdict"),
    good("scan {locked} --password-stdin", "keys reclaimed"),
    good("scan {tls} --cacert {ca} --cert {cert} --key {cert_key} --sni cache.example", "keys reclaimed"),
    good(
        "scan {watched} --sentinel-user default --sentinel-password-file {password} --sentinel-tls off \
         --address-map 127.0.0.1=localhost --json",
        "\"address\":\"localhost:",
    ),
    good(
        "estimate {replica} --method replica --pace fast --slices 50 --count 20 --no-reclaim --json",
        "\"method\":\"replica\"",
    ),
    good("estimate {locked} --user default --password-file {password}", "too small to matter"),
    good("estimate {locked} --password-stdin --method sample", "too small to matter"),
    good("estimate {tls} --cacert {ca} --cert {cert} --key {cert_key} --sni cache.example", "too small to matter"),
    good(
        "estimate {watched} --sentinel-user default --sentinel-password-file {password} --sentinel-tls same \
         --address-map 127.0.0.1=localhost",
        "(localhost:",
    ),
    good("survey {server} {replica} --below 5 --no-reclaim --sort name --json", "\"code\":\"pointless\""),
    good("survey {locked} --user default --password-file {password} --output csv", "name,address,keys"),
    good("survey {locked} --password-stdin", "too few to matter"),
    good("survey --socket {socket}", "pointless"),
    good("survey --inventory {inventory} --label env=test", "carts 127.0.0.1:"),
    good("survey {tls} --cacert {ca} --cert {cert} --key {cert_key} --sni cache.example", "too few to matter"),
    good(
        "survey {watched} --sentinel-user default --sentinel-password-file {password} --sentinel-tls same \
         --address-map 127.0.0.1=localhost",
        "localhost:",
    ),
    Line { typed: "estimate --rdb {password} --method rdb", code: 2, says: "not an RDB file" },
    good(
        "hold {server} --below 8 --level advise --max-effort 9 --max-hz 30 --max-added-stall 0.5 --max-added-cpu 2 \
         --interval 1s --settle-floor 15s --timeout 1s --data-dir {data}",
        "measuring",
    ),
    good("hold --socket {socket} --timeout 1s --data-dir {data}", "measuring"),
    good("hold {locked} --user default --password-file {password} --timeout 1s --data-dir {data}", "measuring"),
    good("hold {locked} --password-stdin --timeout 1s --data-dir {data}", "measuring"),
    good(
        "hold {tls} --cacert {ca} --cert {cert} --key {cert_key} --sni cache.example --timeout 1s --data-dir {data}",
        "measuring",
    ),
    good(
        "hold {watched} --sentinel-user default --sentinel-password-file {password} --sentinel-tls same \
         --address-map 127.0.0.1=localhost --timeout 1s --data-dir {data}",
        "localhost:",
    ),
    good("restore --all --data-dir {data}", "nothing to restore"),
    good("restore --all --inventory {inventory} --data-dir {data}", "nothing to restore"),
    good("restore --socket {socket} --file {data}/restore.json --forget", "nothing to restore"),
    good("restore --socket {socket} --file {data}/restore.json --forget-all", "nothing to restore"),
    good("restore {locked} --user default --password-file {password} --data-dir {data}", "nothing to restore"),
    good("restore {locked} --password-stdin --data-dir {data}", "nothing to restore"),
    good(
        "restore {tls} --cacert {ca} --cert {cert} --key {cert_key} --sni cache.example --data-dir {data}",
        "nothing to restore",
    ),
    good(
        "restore {watched} --sentinel-user default --sentinel-password-file {password} --sentinel-tls same \
         --address-map 127.0.0.1=localhost --data-dir {data}",
        "nothing to restore",
    ),
];

/// Options before every line of [`ADMIN`].
pub const STORE: &str =
    "--database {database} --config {config} --key-file {key} --allowed-targets 127.0.0.0/8 --new-database";

/// `admin`, run in this order.
pub const ADMIN: &[Line] = &[
    good("project add shop --id 0123456789abcdef0123456789abcdef", "0123456789abcdef"),
    good("project list --output csv", "shop"),
    good("user add ada --project shop --role operator --password-stdin", "id"),
    good("user grant ada --project shop --role admin", ""),
    good("user list --output json", "\"role\":\"admin\""),
    good("user passwd ada --none", ""),
    good("user list", "\"has_password\":false"),
    good("user passwd ada --password-stdin", ""),
    good("user list", "\"has_password\":true"),
    good("user disable ada", ""),
    good("user list", "\"disabled\":true"),
    good("user enable ada", ""),
    good("user list", "\"disabled\":false"),
    good("access-key add --user ada", "secret"),
    good("access-key disable {access}", ""),
    good("access-key list --output table", "\"disabled\":true"),
    good("access-key enable {access}", ""),
    good("access-key list", "\"disabled\":false"),
    good("access-key remove {access}", ""),
    good("access-key list", "[]"),
    good(
        "instance add cache {locked} --project shop --id 00112233445566778899aabbccddeeff --pace gentle --manage-lazyfree \
         --password-file {password} --window {window} --window-binds-manual",
        "00112233445566778899aabbccddeeff",
    ),
    good("instance list --project shop --output json", "\"pace\":\"gentle\""),
    good("instance pause cache --project shop", ""),
    good("instance list --project shop", "\"paused\":true"),
    good("instance resume cache --project shop", ""),
    good(
        "instance set cache --project shop --hold-level advise --hold-below 8 --hold-max-effort 9 --hold-max-hz 30 \
         --hold-max-added-stall 0.5 --hold-max-added-cpu 2 --hold-interval 30s --hold-settle-floor 90s",
        "\"hold\":\"advise\"",
    ),
    good("instance set cache --project shop --hold-level advise --hold-max-hz none", "\"max_hz\":null"),
    good("instance set cache --project shop --hold-level observe", "\"settle_floor_seconds\":90"),
    good("instance restore cache --project shop --forget", "\"restored\":\"0\""),
    good("instance restore cache --project shop --forget-all", "\"restored\":\"0\""),
    good("instance set cache --project shop --label env=prod --label tier=1", "\"tier\":\"1\""),
    good(
        "instance set cache --project shop --remove-label tier --pace fast --sampling off --window {window}",
        "\"labels\":{\"env\":\"prod\"}",
    ),
    good("instance list --project shop", "\"paused\":false"),
    good("instance remove cache --project shop", ""),
    good(
        "instance add piped {locked} --project shop --password-stdin --label env=prod --label team=web --sampling primary",
        "id",
    ),
    good("instance list --project shop --label team=web", "\"sampling\":\"primary\""),
    good("instance remove piped --project shop", ""),
    good(
        "instance add encrypted {tls} --project shop --cacert {ca} --cert {cert} --key {cert_key} --sni cache.example",
        "id",
    ),
    good("instance remove encrypted --project shop", ""),
    good(
        "instance add watched {watched} --project shop --sentinel-user default --sentinel-password-file {password} \
         --sentinel-tls same --address-map 127.0.0.1=localhost",
        "id",
    ),
    good("instance list --project shop", "\"primaries\":[\"localhost:"),
    good("instance remove watched --project shop", ""),
    good(
        "audit --project shop --since 24h --actor {cli} --kind instance --limit 1 --output json",
        "\"instance.remove\"",
    ),
    good("user revoke ada --project shop", ""),
    good("user remove ada", ""),
    good("user list", "[]"),
    good("project remove shop", ""),
    good("project list", "[]"),
    good("backup {backup}", "backup"),
    good("key rotate --to {next_key}", "new_key"),
];

/// Options after every line of [`REMOTE`].
pub const SERVICE: &str = "--endpoint {endpoint} --project shop --credentials {credentials} --ca-file {ca} --json";

/// `instance`, `autoscan` and `task`, run in this order.
pub const REMOTE: &[Line] = &[
    good("instance list", "\"name\":\"cache\""),
    good("instance list --output json", "\"last_task\":null"),
    good("instance list --label env=absent", "{\"instances\":[]}"),
    good("instance show cache", "\"name\":\"cache\""),
    good(
        "autoscan set cache --enable --first-scan-at 2099-01-01T02:00:00Z --interval 24h --timeout 48h --scan-keys-count 500",
        "\"scan_keys_count\":500",
    ),
    good("autoscan get cache", "\"enable_auto_scan\":true"),
    good("autoscan list --label env=prod --output json", "\"instance_name\":\"cache\""),
    good("autoscan set cache --below 5%", "\"below\":0.05"),
    good("autoscan set cache --disable", "\"enable_auto_scan\":false"),
    good("task create cache", "\"status\":\"waiting\""),
    good("task watch {id}", "\"status\":\"success\""),
    good("task cancel {id}", "\"status\":\"success\""),
    good("task create cache --wait", "\"status\":\"success\""),
    good("task show {id}", "\"keys_reclaimed\":"),
    good("task list cache --status success --limit 1 --offset 1", "\"count\":2"),
    good("scan --all --wait", "\"outcome\":\"created\""),
    good("scan --label env=prod --dry-run", "\"outcome\":\"planned\""),
    good("task list --status success --since 24h --limit 1", "\"instance_name\":\"cache\""),
    good("task list --label env=absent --output json", "{\"tasks\":[]}"),
    good("apply --file {inventory} --dry-run", "\"applied\":false"),
    good("apply --file {inventory} --yes --prune", "\"applied\":true"),
];

/// `serve` and `worker`, which run until they are stopped, with a part of their log.
pub const SERVICES: &[Line] = &[
    good(
        "serve --database {database} --config {config} --key-file {key} --allowed-targets 127.0.0.0/8 --new-database --listen 127.0.0.1:0 \
         --tls-cert {cert} --tls-key {cert_key} --no-auth --metrics-listen 127.0.0.1:0 --insecure-http --history-retention 5 --reply-memory 100 --concurrency 2 \
         --host-concurrency 1 --allow-clock-skew --public-url http://localhost:7080 --region eu --domain shop --trusted-proxies 127.0.0.1",
        "serving",
    ),
    good(
        "worker --database {database} --config {config} --key-file {key} --allowed-targets 127.0.0.0/8 --new-database \
         --metrics-listen 127.0.0.1:0 --insecure-http --history-retention 5 --reply-memory 100 --concurrency 2 --host-concurrency 1 \
         --allow-clock-skew",
        "working",
    ),
];

/// Commands that describe the command line.
pub const PAGES: &[Line] = &[
    good("openapi", "\"openapi\": \"3."),
    good("completions bash", "max-slice"),
    good("completions zsh", "max-slice"),
    good("completions fish", "max-slice"),
    good("completions elvish", "max-slice"),
    good("completions powershell", "max-slice"),
    good("man", ".TH keysweep 1"),
    good("man --dir {pages}", ""),
];

/// Lines covered by other tests, with their files.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("demo --once --keys 300000", "tests/cli/demo.rs"),
    (
        "init --database sqlite:d --config c --key-file k --allowed-targets r --new-database --project p --admin a --password-stdin --credentials f --url redis://h --instance i --server-password-file f",
        "tests/cli/init.rs",
    ),
    ("admin copy --to postgres://h/d", "tests/cli/data.rs"),
    ("admin user passwd ada --password-prompt", "tests/cli/command_line.rs"),
    ("admin user add ada --project p --role reader --password-prompt", "tests/cli/command_line.rs"),
];

/// Returns every line in full.
pub fn all() -> Vec<String> {
    let stored = ADMIN.iter().map(|line| admin(line.typed));
    let called = REMOTE.iter().map(|line| remote(line.typed));
    let whole = SCANS.iter().chain(SERVICES).chain(PAGES).map(|line| line.typed.to_owned());
    let elsewhere = ELSEWHERE.iter().map(|(typed, _)| match typed.strip_prefix("admin ") {
        // The options of `admin` are parsed before its subcommand.
        Some(typed) => admin(typed),
        None => (*typed).to_owned(),
    });
    stored.chain(called).chain(whole).chain(elsewhere).collect()
}

/// Returns a line of [`ADMIN`] in full.
pub fn admin(typed: &str) -> String {
    format!("admin {STORE} --json {typed}")
}

/// Returns a line of [`REMOTE`] in full.
pub fn remote(typed: &str) -> String {
    format!("{typed} {SERVICE}")
}
