//! Clients in Python, in a process of their own.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Runs tests/sdk.py with these arguments and this standard input, and returns the object that it prints.
pub fn run(arguments: &[&str], input: &str) -> Value {
    run_in("venv", "sdk.py", arguments, input)
}

/// Runs a program of tests/ in a virtual environment of scripts/python, and returns the object that it prints.
pub fn run_in(environment: &str, program: &str, arguments: &[&str], input: &str) -> Value {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = package.join("../../.cache").join(environment).join("bin/python");
    assert!(python.exists(), "{environment} is not installed; run scripts/python (`make test` does)");
    let mut command = Command::new(python);
    command.arg(package.join("tests").join(program)).args(arguments);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("python starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}
