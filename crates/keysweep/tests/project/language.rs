//! Documents, templates, help texts, messages and comments use the terms of docs/glossary.md. The phrases it rules out are
//! in phrases.toml beside this file.

mod phrases;
mod texts;

use std::collections::BTreeSet;

use self::{
    phrases::{Phrases, Place},
    texts::Text,
};

use crate::common::root;

#[test]
fn every_phrase_matches_its_example() {
    for phrase in Phrases::read().phrases {
        assert!(phrase.pattern.is_match(&phrase.example), "{} does not match {:?}", phrase.pattern, phrase.example);
        assert!(!phrase.pattern.is_match(&phrase.instead), "{} matches its own replacement", phrase.pattern);
        assert!(!phrase.places.is_empty(), "{} is forbidden nowhere", phrase.pattern);
    }
}

#[test]
fn no_text_uses_a_phrase_that_the_glossary_rules_out() {
    let phrases = Phrases::read();
    let (mut found, mut excepted) = (Vec::new(), BTreeSet::new());
    for place in Place::ALL {
        let texts = texts::of(place);
        assert!(texts.len() > 5, "the search found hardly any text in {place:?}");
        let held = texts.iter().filter(|text| !phrases.not_yet_held.iter().any(|path| text.file.starts_with(path)));
        let rules: Vec<_> = phrases.phrases.iter().filter(|phrase| phrase.places.contains(&place)).collect();
        for text in held {
            for rule in &rules {
                for hit in rule.pattern.find_iter(&text.text) {
                    let line = text.line_at(hit.start());
                    match rule.except.iter().find(|except| except.covers(text, line)) {
                        Some(except) => drop(excepted.insert(except)),
                        None => found.push(format!(
                            "{}:{}: {:?}; use: {}",
                            text.file,
                            text.first_line + line,
                            hit.as_str(),
                            rule.instead
                        )),
                    }
                }
            }
        }
    }
    let found: BTreeSet<String> = found.into_iter().collect();
    assert!(
        found.is_empty(),
        "{} phrases to rewrite:\n{}",
        found.len(),
        found.into_iter().collect::<Vec<_>>().join("\n")
    );
    let all = phrases.phrases.iter().flat_map(|phrase| &phrase.except);
    let unused: Vec<_> = all.filter(|except| !excepted.contains(except)).collect();
    assert!(unused.is_empty(), "exceptions that nothing needs any more: {unused:#?}");
}

#[test]
fn every_word_that_the_glossary_rules_out_is_held_by_a_phrase_or_left_to_review() {
    let phrases = Phrases::read();
    let mut seen = 0;
    for word in texts::ruled_out() {
        let held = phrases.phrases.iter().any(|phrase| phrase.pattern.is_match(&word));
        let reviewed = phrases.by_review.contains(&word);
        assert!(held != reviewed, "{word:?} must be held by a phrase or listed in by_review, and not both");
        seen += 1;
    }
    assert!(seen > 20, "only {seen} words were found in docs/glossary.md");
}

#[test]
fn folders_that_are_not_yet_held_exist() {
    for path in Phrases::read().not_yet_held {
        assert!(root().join(&path).exists(), "phrases.toml names {path}, which does not exist");
    }
}

#[test]
fn string_literals_and_comments_are_told_apart() {
    let source = r##"
        // A comment with "quotes".
        let quote = '"'; // after code
        fn lifetime<'a>(text: &'a str) { message("a message \"quoted\" \
            over two lines"); raw(r#"a "raw" one"#); }
    "##;
    let literals: Vec<String> = texts::literals(source).into_iter().map(|(_, text)| text).collect();
    assert_eq!(literals, ["a message \\\"quoted\\\" over two lines", "a \"raw\" one"]);
    let comments = texts::comments("x.rs", source);
    assert_eq!(
        comments.iter().map(|Text { text, .. }| text.as_str()).collect::<Vec<_>>(),
        ["A comment with \"quotes\"."]
    );
}
