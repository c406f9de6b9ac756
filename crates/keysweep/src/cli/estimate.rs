//! `keysweep estimate`: the share of stale keys, without reclaiming any.

use clap::Args;
use indicatif::HumanCount;
use keysweep_engine::{Failure, Preset, estimate};

use super::{
    Exit,
    login::{Login, with_options},
    scan::percent,
    term,
};
use crate::units::size;

/// Arguments of `keysweep estimate`.
#[derive(Debug, Args)]
pub struct EstimateArgs {
    /// URL of the server: redis://host:port, a primary or a replica
    #[arg(required_unless_present = "socket", conflicts_with = "socket")]
    url: Option<String>,
    #[command(flatten)]
    login: Login,
    /// Count only this part of the keys, on a replica
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    sample: Option<f64>,
    /// Throttle profile on the replica: gentle, normal, fast or max
    #[arg(long, value_name = "PACE", default_value = "normal")]
    pace: Preset,
    /// Print the estimate as one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the estimate and the method used.
pub fn run(args: EstimateArgs) -> Exit {
    let (target, stop) = match args.login.prepare(args.url.as_deref()) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let dialer = target.dialer().map_err(Failure::from);
    let estimated = dialer.and_then(|dialer| estimate(&*dialer, &target, args.sample, args.pace.limits(), &stop));
    match estimated {
        Ok(found) if args.json => term::json(&found),
        Ok(found) => {
            let bytes = found.bytes.map_or(String::new(), |bytes| format!(", about {}", size(bytes)));
            term::line(&format!(
                "{} of {} keys are stale ({:.1} %){bytes}.\nMethod: {} ({}).",
                HumanCount(found.stale_keys),
                HumanCount(found.keys),
                found.share * 100.0,
                found.method.describe(),
                found.address
            ));
        }
        Err(failure) => {
            term::error(&with_options(&failure.message));
            return Exit::from(failure.kind);
        }
    }
    Exit::Done
}
