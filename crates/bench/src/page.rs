//! The conclusions and the tables of docs/benchmarks.md. A run replaces only the text between the markers of each.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::{
    claim::{Claim, Side},
    contestant::Contestant,
    hold::{self, Held, Keeper},
    results::{Results, ServerResults},
    rounds::{Contest, Measurement},
    spread::Spread,
};

/// A part of the page that a run writes, between two markers: its name and its text.
pub type Part = (&'static str, String);

/// The names of all parts.
const NAMES: [&str; 3] = ["summary", "hold", "tables"];

/// Returns the page with some of its parts replaced.
///
/// # Errors
/// If the page lacks a marker.
pub fn updated(page: &str, parts: &[Part]) -> Result<String> {
    parts.iter().try_fold(page.to_owned(), |page, (name, text)| {
        let (begin, end) = markers(name);
        let (before, rest) = page.split_once(&begin).with_context(|| format!("the page has no {begin}"))?;
        let (_, after) = rest.split_once(&end).with_context(|| format!("the page has no {end}"))?;
        Ok(format!("{before}{begin}\n\n{text}\n{end}{after}"))
    })
}

/// Returns a page that consists of the markers only.
pub fn empty() -> String {
    NAMES.map(markers).map(|(begin, end)| format!("{begin}\n{end}\n")).concat()
}

/// Returns the parts with the results of scans.
pub fn parts(results: &Results) -> [Part; 2] {
    [("summary", summary(results)), ("tables", tables(results))]
}

/// Returns the part with the results of the scenario hold.
pub fn held(held: &Held) -> Part {
    let mut page = format!(
        "![Stale share over a minute](benchmarks/hold.svg)\n\n\
         {} SETs a second with TTLs of 1–{} s; {}, {} cores, rounds: {}. Medians over the rounds of a minute each.\n",
        hold::RATE,
        hold::LONGEST_TTL.as_secs(),
        held.date,
        held.machine.cores,
        held.rounds
    );
    for server in &held.servers {
        let _ = writeln!(
            page,
            "\n| {} | mean stale share, % | server CPU, % of a core | clients' p90, µs | p99, µs |\n|---|--:|--:|--:|--:|",
            server.server
        );
        for keeper in Keeper::ALL {
            let cell = |quantity: &dyn Fn(&hold::Run) -> f64, digits: usize| {
                server.median(keeper, quantity).map_or_else(|| "–".into(), |value| rounded(value, digits))
            };
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} |",
                keeper.title(),
                cell(&|run| 100.0 * run.mean(), 1),
                cell(&|run| 100.0 * run.server_cpu, 1),
                cell(&|run| run.latency.p90, 0),
                cell(&|run| run.latency.p99, 0)
            );
        }
        claims(&mut page, &server.claims());
        let backed_off: usize = server.runs.iter().map(|run| run.backed_off).sum();
        if backed_off > 0 {
            let holds = if backed_off == 1 { "One hold" } else { &format!("{backed_off} holds") };
            let _ = writeln!(
                page,
                "\n{holds} backed off before the target was held, and began again on another server; the medians are of those that held."
            );
        }
    }
    ("hold", page)
}

fn markers(name: &str) -> (String, String) {
    (format!("<!-- begin: {name}, written by make bench -->"), format!("<!-- end: {name}, written by make bench -->"))
}

/// Returns the conclusions, and the chart of what clients feel.
fn summary(results: &Results) -> String {
    let Results { servers, settings, machine, .. } = results;
    let each = |cell: &dyn Fn(&ServerResults) -> Option<String>| {
        let cells: Vec<String> = servers.iter().map(|server| cell(server).unwrap_or_else(|| "–".into())).collect();
        cells.join(" and ")
    };
    let median = |server: &ServerResults, name: &str, quantity: fn(&Measurement) -> f64| {
        server.contests.iter().find(|contest| contest.name == name)?.median(quantity)
    };
    let wall = |name: &'static str| each(&|server| Some(format!("{:.2}", median(server, name, |run| run.wall)?)));
    let added = |name: &'static str| each(&|server| Some(rounded(median(server, name, |run| run.added_p90)?, 0)));
    let by = |ours: &'static str, theirs: &'static str, quantity: fn(&Measurement) -> f64| {
        each(&|server| Some(format!("{:.2}", median(server, ours, quantity)? / median(server, theirs, quantity)?)))
    };
    let names = each(&|server| Some(server.server.clone()));
    let claims = each(&|server| {
        let met = server.claims.iter().filter(|claim| claim.is_met() == Some(true)).count();
        let run = server.claims.iter().filter(|claim| claim.is_met().is_some()).count();
        Some(format!("{met} of {run}"))
    });
    format!(
        "Figures for {names}, in this order.\n\n\
         - **normal**, the default, scans {keys} keys in {} s: {} of the time of `redis-cli --scan` with {} of its server CPU. It adds {} µs to the p90 of clients.\n\
         - **gentle** takes {} s, {} of the time of `SCAN COUNT 100` every 5 ms, and adds {} µs to the p90.\n\
         - **fast** takes {} s, {} of normal's time, and adds {} µs.\n\
         - **max** takes {} s, {} of the time of a bare loop that does nothing but SCAN; clients feel each slice (p90 {} µs more).\n\
         - {claims} claims are met; [misses](#misses) names the causes of the others. {date}, {cores} cores, {memory:.0} GB of memory, medians of {rounds} rounds.\n\n\
         ![What clients feel: wall time against added p90](benchmarks/frontier.svg)\n",
        wall("normal"),
        by("normal", "redis-cli", |run| run.wall),
        by("normal", "redis-cli", |run| run.server_cpu),
        added("normal"),
        wall("gentle"),
        by("gentle", "dcs-100", |run| run.wall),
        added("gentle"),
        wall("fast"),
        by("fast", "normal", |run| run.wall),
        added("fast"),
        wall("max"),
        by("max", "bare", |run| run.wall),
        added("max"),
        keys = settings.keys,
        date = results.date,
        cores = machine.cores,
        memory = machine.memory as f64 / 1e9,
        rounds = settings.rounds,
    )
}

fn tables(results: &Results) -> String {
    let settings = &results.settings;
    let mut page = format!(
        "{} keys of {} bytes, {} of them stale; foreground {} GETs a second.\n",
        settings.keys,
        settings.value_bytes,
        settings.stale(),
        settings.rate,
    );
    if !settings.only.is_empty() {
        let _ = writeln!(page, "\nOnly a part was run: {}.", settings.only.join(", "));
    }
    for server in &results.servers {
        let _ = writeln!(page, "\n### {}", server.server);
        claims(&mut page, &server.claims);
        contests(&mut page, server, settings.keys);
        grid(&mut page, server, settings.keys);
        scenarios(&mut page, server);
    }
    if results.servers.iter().any(|server| !server.contests.is_empty()) {
        page.push_str("\n![Server CPU per key](benchmarks/cpu.svg)\n");
    }
    page
}

fn grid(page: &mut String, server: &ServerResults, keys: u64) {
    let Some(first) = server.grid.iter().find(|contest| contest.contestant != Contestant::Idle) else { return };
    let _ =
        writeln!(page, "\nThe grid of settings that the presets are chosen from; rounds: {}.\n", first.rounds.len());
    page.push_str(
        "| setting | wall time, s | added p90 | p99 | server CPU, µs per key | backoffs |\n|---|--:|--:|--:|--:|--:|\n",
    );
    for contest in server.grid.iter().filter(|contest| contest.contestant != Contestant::Idle) {
        let cell = |digits: usize, quantity: &dyn Fn(&Measurement) -> f64| {
            spread(contest.spread(|run| Some(quantity(run))), digits)
        };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} |",
            contest.contestant.label(),
            cell(2, &|run| run.wall),
            cell(0, &|run| run.added_p90),
            cell(0, &|run| run.latency.p99),
            cell(2, &|run| run.server_cpu * 1e6 / keys as f64),
            cell(0, &|run| run.backoffs.unwrap_or(0) as f64),
        );
    }
}

fn contests(page: &mut String, server: &ServerResults, keys: u64) {
    if server.contests.is_empty() {
        return;
    }
    page.push_str("\nMedians over the rounds, minimum and maximum in brackets. Latencies in µs.\n\n");
    page.push_str(
        "| | wall time, s | p50 | p90 | p99 | p99.9 | added p90 | server CPU, µs per key | own CPU by the server's | peak memory, MB |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for contest in &server.contests {
        let is_idle = contest.contestant == Contestant::Idle;
        let cell = |digits: usize, quantity: &dyn Fn(&Measurement) -> f64| {
            spread(contest.spread(|run| Some(quantity(run))), digits)
        };
        let unless_idle = |text: String| if is_idle { "–".to_owned() } else { text };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            contest.contestant.title(),
            unless_idle(cell(2, &|run| run.wall)),
            cell(0, &|run| run.latency.p50),
            cell(0, &|run| run.latency.p90),
            cell(0, &|run| run.latency.p99),
            cell(0, &|run| run.latency.p999),
            unless_idle(cell(0, &|run| run.added_p90)),
            unless_idle(cell(2, &|run| run.server_cpu * 1e6 / keys as f64)),
            unless_idle(cell(2, &|run| run.own_cpu / run.server_cpu)),
            peak(contest)
        );
    }
}

fn peak(contest: &Contest) -> String {
    spread(contest.spread(|run| Some(run.peak_rss? as f64 / 1e6)), 1)
}

fn claims(page: &mut String, claims: &[Claim]) {
    page.push_str("\n| claim | measured | bound | |\n|---|--:|--:|---|\n");
    for claim in claims {
        let with_unit = |value: f64| format!("{} {}", short(value), claim.unit).trim_end().to_owned();
        let measured = claim.measured.map_or("–".to_owned(), with_unit);
        let side = match claim.side {
            Side::AtMost => '≤',
            Side::AtLeast => '≥',
        };
        let verdict = match claim.is_met() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "not run",
        };
        let _ = writeln!(page, "| {} | {measured} | {side} {} | {verdict} |", claim.text, with_unit(claim.bound));
    }
}

fn scenarios(page: &mut String, server: &ServerResults) {
    for limit in &server.cpu_limits {
        let of = |quantity: fn(&crate::cpu_limit::Round) -> f64| spread(limit.spread(quantity), 1);
        let _ = writeln!(
            page,
            "\nCPU limit {:.0} % (rounds: {}): {} % by the server's accounting, {} % in keysweep's report, {} s.",
            limit.set * 100.0,
            limit.rounds.len(),
            of(|round| round.used * 100.0),
            of(|round| round.reported * 100.0),
            of(|round| round.wall),
        );
    }
    if let Some(backoff) = &server.backoff {
        let of = |quantity: fn(&crate::backoff::Round) -> f64, digits| spread(backoff.spread(quantity), digits);
        let _ = writeln!(
            page,
            "\nBackoff (rounds: {}): without a scan the main thread is {} % busy and a pipeline's p90 is {} µs; with \
             keysweep normal it is {} µs, in the second half of the scan {} µs. The scan backs off {} times and takes {} s.",
            backoff.rounds.len(),
            of(|round| round.busy * 100.0, 0),
            of(|round| round.alone.p90, 0),
            of(|round| round.during.p90, 0),
            of(|round| round.late.p90, 0),
            of(|round| round.backoffs as f64, 0),
            of(|round| round.wall, 1),
        );
    }
    if let Some(pressure) = &server.pressure {
        let of = |quantity: fn(&crate::pressure::Round) -> f64, digits| spread(pressure.spread(quantity), digits);
        let _ = writeln!(
            page,
            "\nUnder pressure (a replica, `appendfsync everysec`, one BGSAVE; rounds: {}), keysweep normal: {} MB of stale keys \
             before, a mean of {} MB during the scan, {} MB after; added p90 {} µs, added p99.9 {} µs; {} full resyncs; {} s, {} s of \
             them throttled for the BGSAVE, which copied {} MB on write.",
            pressure.rounds.len(),
            of(|round| round.stale_before / 1e6, 1),
            of(|round| round.stale_mean / 1e6, 1),
            of(|round| round.stale_after / 1e6, 1),
            of(|round| round.added_p90, 0),
            of(|round| round.added_p999, 0),
            of(|round| round.full_resyncs as f64, 0),
            of(|round| round.wall, 1),
            of(|round| round.throttled_for_fork, 2),
            of(|round| round.copied_on_write as f64 / 1e6, 1),
        );
    }
}

/// Formats a spread as `1.20 (1.10…1.30)`, or as a dash if nothing was measured.
fn spread(spread: Option<Spread>, digits: usize) -> String {
    let Some(Spread { median, min, max }) = spread else { return "–".into() };
    let rounded = |value: f64| rounded(value, digits);
    match (rounded(min), rounded(median), rounded(max)) {
        (min, median, max) if min == max => median,
        (min, median, max) => format!("{median} ({min}…{max})"),
    }
}

fn rounded(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    // A value that rounds to zero is printed without its sign.
    text.strip_prefix('-').filter(|rest| rest.chars().all(|c| c == '0' || c == '.')).map_or(text.clone(), str::to_owned)
}

/// Formats a value with at most two decimals.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 10.0 || value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_one_number_if_the_rounds_agree() {
        assert_eq!(spread(Spread::of([1.0, 1.001]), 1), "1.0");
        assert_eq!(spread(Spread::of([-0.4, 1.0, 3.0]), 0), "1 (0…3)");
        assert_eq!(spread(None, 1), "–");
    }
}
