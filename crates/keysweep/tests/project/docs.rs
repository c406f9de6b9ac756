//! The documents are correct: every example in README.md and docs/ runs, and every command, option and variable is documented
//! and tested.

mod fence;
mod lines;
mod runs;
mod session;
mod settings;
mod words;

use std::{collections::BTreeSet, path::PathBuf, process::Command as Process};

use keysweep::{config::FileConfig, model::Reason};
use keysweep_engine::FailureKind;
use serde_json::Value;

use self::fence::{Block, blocks, documents, indented};
use crate::common::root;

/// Number of examples that cannot run, for the reasons in their fences. Another one needs a good reason.
const NOT_RUN: usize = 14;
/// Most lines of a page.
const MOST_LINES: usize = 200;
/// The page that `make bench` writes: tables and figures of one subject.
const GENERATED: &str = "docs/benchmarks.md";

fn all_blocks() -> Vec<Block> {
    let found: Vec<Block> = documents().iter().flat_map(|(name, text)| blocks(name, text)).collect();
    assert!(found.len() > 10, "the search found hardly anything");
    found
}

#[test]
fn every_example_that_can_run_runs_and_prints_what_the_page_says() {
    let mut failures = Vec::new();
    for (name, text) in documents() {
        let blocks = blocks(&name, &text);
        let runs = |block: &&Block| block.not_run.is_none() && matches!(block.language.as_str(), "sh" | "python");
        let programs: Vec<&Block> = blocks.iter().filter(runs).collect();
        if programs.is_empty() {
            continue;
        }
        let said = match session::run(&name, &programs) {
            Ok(said) => said,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        for pair in blocks.windows(2).filter(|pair| pair[1].is_output && pair[1].not_run.is_none()) {
            let number = programs.iter().position(|program| program.place == pair[0].place);
            let number = number.unwrap_or_else(|| panic!("{}: no example runs before it", pair[1].place));
            failures.extend(missing_line(&pair[1], &said[number]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Compares loosely: the words of each expected line must occur in order in one line of the output. A word with a digit
/// matches any word.
fn missing_line(expected: &Block, said: &str) -> Option<String> {
    let is_fixed = |word: &&str| *word != "…" && !word.chars().any(|character| character.is_ascii_digit());
    let is_there = |line: &str| {
        let wanted: Vec<&str> = line.split_whitespace().filter(is_fixed).collect();
        said.lines().any(|line| {
            let mut words = line.split_whitespace();
            wanted.iter().all(|wanted| words.any(|word| word == *wanted))
        })
    };
    let missing = expected.text.lines().find(|line| !is_there(line))?;
    Some(format!("{}: {missing:?} is not in\n{said}", expected.place))
}

#[test]
fn examples_that_do_not_run_state_a_reason_and_are_few() {
    let not_run: Vec<String> =
        all_blocks().iter().filter_map(|block| Some(format!("{}: {}", block.place, block.not_run.as_ref()?))).collect();
    println!("{}", not_run.join("\n"));
    assert!(not_run.len() <= NOT_RUN, "{} examples are not run: {not_run:#?}", not_run.len());
}

#[test]
fn every_example_is_in_a_fence_with_a_language() {
    for (name, text) in documents() {
        assert_eq!(indented(&text), Vec::<&str>::new(), "{name}");
    }
    for block in all_blocks() {
        let Block { place, text, language, .. } = &block;
        match language.as_str() {
            "sh" | "python" | "usage" => {}
            // ACL rules; crates/engine/tests/server/rights.rs tests each word of them.
            "acl" => assert!(text.lines().all(|line| line.starts_with("ACL SETUSER ")), "{place}"),
            "text" => assert!(block.is_output || block.not_run.is_some(), "{place}: whose output is it?"),
            "json" => drop(serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{place}: {error}"))),
            "toml" => drop(toml::from_str::<FileConfig>(text).unwrap_or_else(|error| panic!("{place}: {error}"))),
            "yaml" => yaml(place, text),
            "nginx" => assert!(text.lines().all(|line| line.starts_with("proxy_") && line.ends_with(';')), "{place}"),
            "hcl" => hcl(place, text),
            other => {
                panic!(
                    "{place}: no check for {other:?}; use sh, python, usage, acl, text, json, toml, yaml, nginx or hcl"
                )
            }
        }
    }
}

fn filter(place: &str, mut program: Process, text: &str) {
    use std::{io::Write, process::Stdio};
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect(place);
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
}

fn yaml(place: &str, text: &str) {
    let mut python = Process::new(root().join(".cache/venv/bin/python"));
    python.args(["-c", "import sys, yaml; list(yaml.safe_load_all(sys.stdin))"]);
    filter(place, python, text);
}

/// Checks HCL if Terraform is installed; the fence says that it is not checked otherwise.
fn hcl(place: &str, text: &str) {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search).map(|folder| folder.join("terraform")).find(|path| path.exists());
    let Some(terraform) = found else { return };
    let mut format = Process::new::<PathBuf>(terraform);
    format.args(["fmt", "-check", "-"]).env_remove("TF_CLI_CONFIG_FILE");
    filter(place, format, text);
}

#[test]
fn a_page_is_as_long_as_one_subject_takes_and_the_entrance_leads_to_it() {
    let entrance = std::fs::read_to_string(root().join("docs/README.md")).expect("the entrance");
    for (name, text) in documents() {
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES || name == GENERATED, "{name} has {lines} lines; divide it by subject");
        let page = name.strip_prefix("docs/").filter(|page| *page != "README.md");
        assert!(page.is_none_or(|page| entrance.contains(&format!("({page}"))), "docs/README.md does not link {name}");
    }
    let headings: Vec<&str> = entrance.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, ["Get started", "Concepts", "Guides", "Reference", "Explanation"]);
}

#[test]
fn every_concept_has_one_figure_that_exists() {
    let page = std::fs::read_to_string(root().join("docs/concepts.md")).expect("the page");
    for section in page.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let figures: Vec<&str> = section.split("](").filter_map(|rest| rest.split(')').next()).collect();
        let figures: Vec<&&str> = figures.iter().filter(|target| target.ends_with(".svg")).collect();
        assert_eq!(figures.len(), 1, "{title}: {figures:?}");
        assert!(root().join("docs").join(figures[0]).exists(), "{title}: there is no {}", figures[0]);
    }
}

#[test]
fn the_command_line_pages_have_exactly_the_commands() {
    let page = words::command_line_pages();
    let written = words::commands_in(&page);
    let real: BTreeSet<String> = words::commands().into_keys().collect();
    assert_eq!(written, real);
}

#[test]
fn the_command_line_pages_have_exactly_the_options() {
    let page = words::command_line_pages();
    assert_eq!(words::options_in(&page), words::options());
}

#[test]
fn an_option_is_documented_in_the_section_of_its_command() {
    for (command, options) in words::commands() {
        let section = words::section_of(&command);
        let missing: Vec<&String> =
            options.iter().filter(|option| !words::options_in(&section).contains(*option)).collect();
        assert!(
            missing.is_empty(),
            "`keysweep {command}`: {missing:?} are not in its part of the pages about the command line"
        );
    }
}

#[test]
fn the_command_line_pages_have_exactly_the_environment_variables() {
    let page = words::command_line_pages();
    assert_eq!(words::variables_in(&page), words::variables());
}

#[test]
fn every_link_between_documents_has_a_page_and_a_heading() {
    let anchor = |heading: &str| {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    for (name, text) in documents() {
        let folder = root().join(&name).parent().expect("a folder").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, wanted) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(&name) } else { folder.join(file) };
            assert!(path.exists(), "{name} links {target}, which does not exist");
            let is_there = |text: &str| {
                text.lines().any(|line| line.starts_with('#') && anchor(line.trim_start_matches('#').trim()) == wanted)
            };
            assert!(
                wanted.is_empty() || is_there(&std::fs::read_to_string(&path).expect("a text")),
                "{name} links {target}, which lacks that heading"
            );
        }
    }
}

#[test]
fn troubleshooting_has_a_remedy_for_every_reason_of_a_failure() {
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).expect("the page");
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    for code in reasons.chain([FailureKind::Interrupted.as_str()]) {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{code}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/troubleshooting.md has no row for {code}"));
        assert!(row.split('|').all(|cell| !cell.trim().is_empty() || cell.is_empty()), "{row}");
    }
}

#[test]
fn no_document_names_a_missing_make_target_or_file() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    let others = ["CONTRIBUTING.md", "ARCHITECTURE.md"];
    let others = others.map(|name| (name.to_owned(), std::fs::read_to_string(root().join(name)).expect("a text")));
    let mut seen = (0, 0);
    for (name, text) in documents().into_iter().chain(others) {
        for span in words::code_spans(&text) {
            if let Some(target) = span.strip_prefix("make ").and_then(|rest| rest.split(' ').next()) {
                assert!(makefile.contains(&format!("\n{target}:")), "{name}: there is no `make {target}`");
                seen.0 += 1;
            }
            if ["deploy/", "docs/", "scripts/", ".ci/"].iter().any(|folder| span.starts_with(folder)) {
                let path = span.split(' ').next().unwrap_or_default();
                assert!(root().join(path).exists(), "{name}: there is no {path}");
                seen.1 += 1;
            }
        }
    }
    assert!(seen.0 > 5 && seen.1 > 3, "the search found hardly anything: {seen:?}");
    let reasons = all_blocks().into_iter().filter_map(|block| Some((block.place, block.not_run?)));
    for (place, reason) in reasons {
        for test in reason.split(' ').filter(|word| word.starts_with("tests/")) {
            assert!(root().join("crates/keysweep").join(test).exists(), "{place}: there is no {test}");
        }
    }
}

#[test]
fn no_document_names_a_missing_alert() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).expect("a text");
    let rules = read("deploy/prometheus/alerts.yml");
    let alerts: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 5, "the search found hardly anything");
    let others = ["CHANGELOG.md", "ARCHITECTURE.md", "deploy/prometheus/alerts_test.yml"];
    for (name, text) in documents().into_iter().chain(others.map(|name| (name.to_owned(), read(name)))) {
        let words = text.split(|character: char| !character.is_ascii_alphanumeric());
        let is_alert = |word: &&str| word.strip_prefix("Keysweep").is_some_and(|rest| !rest.is_empty());
        for word in words.filter(is_alert) {
            assert!(alerts.contains(word), "{name} names the alert {word}, which deploy/prometheus/alerts.yml has not");
        }
    }
}

#[test]
fn no_document_names_a_missing_option() {
    let real = words::options();
    for (name, text) in documents() {
        for span in words::code_spans(&text) {
            if !span.starts_with("--") && !span.starts_with("keysweep ") {
                continue;
            }
            for option in words::options_in(&span) {
                assert!(real.contains(&option), "{name}: `{span}` names {option}, which no command has");
            }
        }
    }
}
