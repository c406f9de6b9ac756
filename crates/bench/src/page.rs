//! The tables of docs/benchmarks.md. A run replaces only the text between the two markers.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::{
    claim::{Claim, Side},
    results::{Results, ServerResults},
    rounds::{Contest, Measurement},
    spread::Spread,
};

const BEGIN: &str = "<!-- begin: written by make bench -->";
const END: &str = "<!-- end: written by make bench -->";

/// Returns the page with the results of the previous run replaced.
///
/// # Errors
/// If the page has no markers.
pub fn updated(page: &str, results: &Results) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("the page has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("the page has no {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{}\n{END}{after}", tables(results)))
}

/// Returns a page that consists of the markers only.
pub fn empty() -> String {
    format!("{BEGIN}\n{END}\n")
}

fn tables(results: &Results) -> String {
    let (settings, machine) = (&results.settings, results.machine);
    let mut page = format!(
        "{}, {} cores, {:.0} GB of memory. {} keys of {} bytes, {} of them stale; foreground {} GETs a second; rounds: {}.\n",
        results.date,
        machine.cores,
        machine.memory as f64 / 1e9,
        settings.keys,
        settings.value_bytes,
        settings.stale(),
        settings.rate,
        settings.rounds
    );
    if !settings.only.is_empty() {
        let _ = writeln!(page, "\nOnly a part was run: {}.", settings.only.join(", "));
    }
    let is_charted = results.servers.iter().any(|server| !server.contests.is_empty());
    if is_charted {
        page.push_str("\n![Wall time against added p90](benchmarks/frontier.svg)\n");
        page.push_str("\n![Server CPU per key](benchmarks/cpu.svg)\n");
    }
    for server in &results.servers {
        let _ = writeln!(page, "\n### {}", server.server);
        contests(&mut page, server, settings.keys);
        claims(&mut page, &server.claims);
        scenarios(&mut page, server);
    }
    page
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
        let is_idle = contest.contestant == crate::contestant::Contestant::Idle;
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
    let rounded = |value: f64| {
        let text = format!("{value:.digits$}");
        // A value that rounds to zero is printed without its sign.
        text.strip_prefix('-')
            .filter(|rest| rest.chars().all(|c| c == '0' || c == '.'))
            .map_or(text.clone(), str::to_owned)
    };
    match (rounded(min), rounded(median), rounded(max)) {
        (min, median, max) if min == max => median,
        (min, median, max) => format!("{median} ({min}…{max})"),
    }
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
