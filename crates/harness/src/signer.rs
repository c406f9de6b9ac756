//! Signs requests as Huawei Cloud's SDKs do (SDK-HMAC-SHA256). Written from their documentation, independent of keysweep's
//! verifier. Supports paths and queries without escaped characters, which is all that tests need.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Signs requests with an access key.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Id of the access key.
    pub access: String,
    /// Secret of the access key.
    pub secret: String,
}

impl Signer {
    /// Returns the headers that sign a request at the current time.
    pub fn headers(&self, method: &str, target: &str, body: &[u8]) -> Vec<(String, String)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        self.headers_at(now, method, target, body)
    }

    /// Returns the headers that sign a request at the current time with this Host, which most SDKs sign, too.
    pub fn headers_with_host(&self, host: &str, method: &str, target: &str, body: &[u8]) -> Vec<(String, String)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        self.sign(&[("host", host)], now, method, target, body)
    }

    /// Returns the headers that sign a request at a given time, in seconds since 1970.
    pub fn headers_at(&self, seconds: u64, method: &str, target: &str, body: &[u8]) -> Vec<(String, String)> {
        self.sign(&[], seconds, method, target, body)
    }

    /// Signs a request with these headers, sorted by name, and with its date.
    fn sign(
        &self,
        headers: &[(&str, &str)],
        seconds: u64,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> Vec<(String, String)> {
        let date = utc(seconds);
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names: String = headers.iter().map(|(name, _)| format!("{name};")).collect();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
        pairs.sort_unstable();
        let slash = if path.ends_with('/') { "" } else { "/" };
        let canonical = format!(
            "{method}\n{path}{slash}\n{}\n{lines}x-sdk-date:{date}\n\n{names}x-sdk-date\n{}",
            pairs.join("&"),
            hex(&Sha256::digest(body))
        );
        let to_sign = format!("SDK-HMAC-SHA256\n{date}\n{}", hex(&Sha256::digest(canonical)));
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("any key length is valid");
        mac.update(to_sign.as_bytes());
        let signature = hex(&mac.finalize().into_bytes());
        let authorization =
            format!("SDK-HMAC-SHA256 Access={}, SignedHeaders={names}x-sdk-date, Signature={signature}", self.access);
        vec![("X-Sdk-Date".into(), date), ("Authorization".into(), authorization)]
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Formats a time as `20261124T083000Z`. Years are counted from March, so that a leap day is the last day of a year.
fn utc(seconds: u64) -> String {
    let (days, rest) = ((seconds / 86_400) as i64, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_civil_calendar() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_767_225_599, "20251231T235959Z"),
            (1_795_509_000, "20261124T083000Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }
}
