//! Remedies that name an instance of the service: the engine, which writes them, knows no names.

/// Stands for the name in what the engine writes.
const PLACEHOLDER: &str = " INSTANCE";

/// Returns a remedy with the name of the instance as a word of a command line.
pub(super) fn remedy_for(name: &str, remedy: &str) -> String {
    remedy.replace(PLACEHOLDER, &format!(" {}", shell_word(name)))
}

fn shell_word(name: &str) -> String {
    match name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:@".contains(c)) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use keysweep_engine::stale::{Basis, Code, Share, Workload, advise};

    use super::*;

    #[test]
    fn a_remedy_names_the_instance_as_one_word() {
        let basis = Basis {
            share: Some(Share::exact(0.095)),
            keys: 1_000_000,
            workload: Some(Workload::split(10.0, &[(1_000_000, 1_000_000, None)], 16)),
            target: 0.05,
            ..Basis::default()
        };
        let advice = advise(&basis);
        let remedy = advice.remedy.expect("a remedy");
        assert_eq!(advice.code, Code::ScanEvery);
        for (name, word) in [("cache-1", "cache-1"), ("session cache", "'session cache'"), ("it's", r"'it'\''s'")] {
            assert_eq!(remedy_for(name, &remedy), format!("keysweep autoscan set {word} --below 5%"));
        }
        assert_eq!(remedy_for("cache", "grant +config|get"), "grant +config|get");
    }
}
