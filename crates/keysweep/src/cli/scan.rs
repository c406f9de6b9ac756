//! `keysweep scan`: one scan in the foreground, without a store, or scans of many instances by their service.

mod fleet;

use std::time::Duration;

use clap::Args;
use keysweep_engine::{Check, Failure, FailureKind, Limits, Options, Preset, Stop, Target, Verdict, check, sweep};

use self::fleet::FleetArgs;
use super::{
    Exit,
    login::{Login, with_options},
    report, term,
};
use crate::units::{self, duration};

/// Arguments of `keysweep scan`.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// URL of the target: redis://host:port, redis://user:password@host:port; /n at the end scans database n only
    #[arg(required_unless_present_any = ["socket", "all", "labels"], conflicts_with = "socket")]
    url: Option<String>,
    /// Throttle profile: gentle, normal, fast or max
    #[arg(long, value_name = "PACE", default_value = "normal")]
    pace: Preset,
    /// CPU limit: share of the server's main thread, in percent [default: set by the pace]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_cpu: Option<f64>,
    /// Pause limit: longest time one slice may block the server, in microseconds [default: set by the pace]
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(20..=100_000))]
    max_slice: Option<u64>,
    /// Scan at most this many keys per second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    keys_per_second: Option<u64>,
    /// Reclaim at most this many keys per second [default: 10000 while clients subscribe to expired events]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    reclaims_per_second: Option<u64>,
    /// Scan this many primaries of a cluster at a time
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=1000))]
    parallel: u16,
    /// Stop after this time, for example 90s or 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// How long to retry a lost connection before failing the shard
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    reconnect_timeout: Duration,
    /// Reject a replica instead of following it to its primary
    #[arg(long)]
    no_follow: bool,
    /// Scan although the server's clock differs by more than 2 s from its replicas', or by more than a minute from this
    /// machine's
    #[arg(long)]
    allow_clock_skew: bool,
    #[command(flatten)]
    login: Login,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Run the pre-flight checks and exit; with --all or -l, show what would be scanned
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs a scan, prints its report and returns the exit code.
pub fn run(args: ScanArgs) -> Exit {
    if args.fleet.is_selected() {
        return fleet::run(&args.fleet, args.dry_run, args.json);
    }
    let (target, stop) = match args.login.prepare(args.url.as_deref()) {
        Ok((target, stop)) => {
            (Target { follow: !args.no_follow, allow_clock_skew: args.allow_clock_skew, ..target }, stop)
        }
        Err(exit) => return exit,
    };
    if args.dry_run {
        return dry_run(&target, options(&args).limits, &stop, args.json);
    }
    let options = options(&args);
    let Limits { max_cpu, max_slice, .. } = options.limits;
    term::detail(&format!(
        "pace {}: CPU limit {:.1} %, pause limit {} µs, {} primaries at a time",
        options.pace,
        max_cpu * 100.0,
        max_slice.as_micros(),
        options.parallel
    ));
    let live = term::Live::new();
    let found = sweep(&target, &options, &live, &stop);
    live.finish();
    match args.json {
        true => term::json(&found),
        false if found.shards.iter().any(|shard| shard.totals.slices > 0) || found.reason.is_none() => {
            report::print(&found)
        }
        false => {}
    }
    match (&found.message, found.reason) {
        (_, Some(FailureKind::Interrupted)) => term::note("interrupted; reclaimed keys stay reclaimed"),
        // The user set the timeout: reaching it is no error.
        (Some(message), Some(FailureKind::Timeout)) => term::note(message),
        (Some(message), _) => term::error(&with_options(message)),
        _ => {}
    }
    Exit::from(&found)
}

/// Prints the pre-flight checks, one line each. Fails if a scan would be refused.
fn dry_run(target: &Target, limits: Limits, stop: &Stop, as_json: bool) -> Exit {
    let dialer = target.dialer().map_err(Failure::from);
    let checks = match dialer.and_then(|dialer| check(&*dialer, target, limits, stop)) {
        Ok(checks) => checks,
        Err(failure) => {
            term::error(&with_options(&failure.message));
            return Exit::from(failure.kind);
        }
    };
    match as_json {
        true => term::json(&checks),
        false => {
            let row = |check: &Check| {
                let remedy = check.remedy.as_ref().map_or(String::new(), |remedy| format!("; {remedy}"));
                vec![check.name.clone(), check.verdict.as_str().to_owned(), format!("{}{remedy}", check.finding)]
            };
            term::table(&["check", "verdict", "finding"], checks.iter().map(row).collect());
        }
    }
    match checks.iter().any(|check| check.verdict == Verdict::Refused) {
        true => Exit::Failed,
        false => Exit::Done,
    }
}

fn options(args: &ScanArgs) -> Options {
    let preset = args.pace.limits();
    let limits = Limits {
        max_cpu: args.max_cpu.unwrap_or(preset.max_cpu),
        max_slice: args.max_slice.map_or(preset.max_slice, Duration::from_micros),
        // A limit that is given holds over any distance.
        distant_slice: preset.distant_slice.filter(|_| args.max_slice.is_none()),
        keys_per_second: args.keys_per_second,
        reclaims_per_second: args.reclaims_per_second,
        ..preset
    };
    Options {
        limits,
        pace: args.pace.to_string(),
        parallel: usize::from(args.parallel),
        timeout: args.timeout,
        reconnect_timeout: args.reconnect_timeout,
        client_name: format!("keysweep:{}", std::process::id()),
        ..Options::default()
    }
}

/// Parses a percentage into a share, 0–1.
///
/// # Errors
/// Not a number, or out of range.
pub fn percent(text: &str) -> Result<f64, String> {
    let share = units::percent(text).filter(|share| (0.001..=1.0).contains(share));
    share.ok_or_else(|| "expected a percentage from 0.1 to 100".into())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        args: ScanArgs,
    }

    fn parse(line: &str) -> Options {
        options(&TestCli::parse_from(line.split(' ')).args)
    }

    #[test]
    fn every_limit_on_the_command_line_reaches_the_engine() {
        let options = parse(
            "scan redis://h --pace gentle --max-cpu 50 --max-slice 300 --keys-per-second 7 --reclaims-per-second 8 \
             --parallel 3 --timeout 90s --reconnect-timeout 5s",
        );
        let Limits { max_cpu, max_slice, distant_slice, keys_per_second, reclaims_per_second, .. } = options.limits;
        assert_eq!((max_cpu, max_slice, distant_slice), (0.5, Duration::from_micros(300), None));
        assert_eq!((keys_per_second, reclaims_per_second), (Some(7), Some(8)));
        assert_eq!((options.pace.as_str(), options.parallel), ("gentle", 3));
        assert_eq!(options.timeout, Some(Duration::from_secs(90)));
        assert_eq!(options.reconnect_timeout, Duration::from_secs(5));
    }

    #[test]
    fn an_option_of_a_scan_in_the_foreground_is_refused_with_a_selection_of_instances() {
        let command = TestCli::command();
        let of_both =
            ["all", "labels", "wait", "endpoint", "project", "credentials", "ca_file", "dry_run", "json", "help"];
        let names = command.get_arguments().map(|argument| argument.get_id().as_str());
        let of_a_target: Vec<&str> = names.filter(|name| !of_both.contains(name)).collect();
        let refused: Vec<&str> = of_a_target.iter().copied().filter(|name| fleet::OF_A_TARGET.contains(name)).collect();
        assert_eq!((of_a_target, refused.len()), (refused.clone(), fleet::OF_A_TARGET.len()));
        for line in
            ["scan redis://h --all", "scan --all --pace fast", "scan -l env=prod --socket /s", "scan --all -l a=b"]
        {
            assert!(TestCli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        assert!(TestCli::try_parse_from(["scan", "redis://h", "--wait"]).is_err());
        let parsed = TestCli::try_parse_from("scan -l env=prod -l team=web --wait --dry-run".split(' '));
        assert!(parsed.expect("a selection").args.fleet.is_selected());
    }

    #[test]
    fn the_pace_sets_every_limit_not_given() {
        for pace in ["gentle", "normal", "fast", "max"] {
            let (Limits { max_cpu, max_slice, .. }, preset) = (
                parse(&format!("scan redis://h --pace {pace}")).limits,
                pace.parse::<Preset>().expect("a pace").limits(),
            );
            assert_eq!((max_cpu, max_slice), (preset.max_cpu, preset.max_slice), "{pace}");
        }
        assert_eq!(parse("scan redis://h").pace, "normal");
    }
}
