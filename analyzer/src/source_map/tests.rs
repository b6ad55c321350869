//! Source maps from file to report, with a program that TypeScript and a minifier have been at.

use std::fs;
use std::path::PathBuf;

use formats::capture::{Frame, Script, Tier};
use serde_json::{Value, json};

use super::*;
use crate::aggregate::operations::PathFilter;
use crate::plan::{Action, Plan, ReportPlan};
use crate::report::Report;
use crate::report::style::Style;
use crate::run;
use crate::testing::CaptureBuilder;

const CODE: &str = include_str!("../../tests/source_maps/app.min.js");
const MAP: &str = include_str!("../../tests/source_maps/app.min.js.map");

/// A script of the program, and where its stack is taken: what runs behind these texts.
struct Running<'t> {
    name: &'t str,
    url: &'t str,
    /// Name as V8 has it, text at its definition, text where it is.
    functions: [(&'t str, &'t str, &'t str); 3],
}

const FUNCTIONS: [(&str, &str, &str); 3] = [
    ("", "\"use", "s(__filename)"),
    ("s", "(e){const s=", "r(s)+"),
    ("r", "e=>{let t", "new Error"),
];

fn position(text: &str) -> u32 {
    CODE.find(text).unwrap() as u32 + 1
}

/// A CPU sample for each script.
fn recorded(scripts: &[Running<'_>]) -> Vec<u8> {
    let mut build = CaptureBuilder::new();
    build.process(10, &[10]);
    let mut ends: Vec<u32> = CODE.match_indices('\n').map(|(at, _)| at as u32).collect();
    ends.push(CODE.len() as u32);
    for running in scripts {
        let script = build.writer().script(Script {
            name: running.name.as_bytes().to_vec(),
            source_map_url: running.url.as_bytes().to_vec(),
            ..Script::default()
        });
        build.line_ends(script, &ends);
        let frames = running.functions.map(|(name, defined, runs)| {
            let function = build.function(script + 1, name, position(defined));
            let (position, tier) = (position(runs), Tier::INTERPRETER);
            Frame::Js { function, position, tier, inlined: false }
        });
        build.sampled(&frames);
    }
    build.finish_bytes()
}

fn read(bytes: &[u8]) -> Capture {
    formats::capture::read(bytes, &formats::limits::Limits::default()).unwrap()
}

/// The target's files below a folder of this test.
fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let root = std::env::temp_dir().join(format!("nanalyze-tree-{name}-{}", std::process::id()));
    for (path, contents) in files {
        let path = files::below(&root, path.as_bytes());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    root
}

fn functions(capture: &Capture, originals: &Originals) -> Vec<Value> {
    let filter = PathFilter::default();
    let mut out = Vec::new();
    let report = Report::new(capture, &filter, originals);
    crate::report::json::write(&report, None, &mut out).unwrap();
    let report: Value = serde_json::from_slice(&out).unwrap();
    report["cpu"]["functions"].as_array().unwrap().clone()
}

/// The innermost stack's frames as text, leaf first.
fn stack(capture: &Capture, originals: &Originals, row: usize) -> Vec<String> {
    let mut symboliser = crate::symbolise::Symboliser::new(capture, originals);
    let id = symboliser.resolve(capture.samples[0].stack[row], 100);
    let frames = symboliser.profile().leaf_first(id);
    frames.map(|f| format!("{} {}", f.label(), f.place().unwrap_or_default())).collect()
}

#[test]
fn places_and_names_are_those_that_people_wrote() {
    let inline = format!("data:application/json,{}", MAP.replace('%', "%25"));
    let app = |name, url| Running { name, url, functions: FUNCTIONS };
    let scripts = [
        app("/srv/app/dist/app.min.js", "app.min.js.map"),
        app("file:///srv/app/dist/app.min.js", "file:///srv/app/dist/app.min.js.map"),
        // The recorder has not kept the address: the script's file names it.
        app("/srv/app/dist/app.min.js", ""),
        app("/srv/app/dist/inside.js", inline.as_str()),
        app("/srv/app/dist/none.js", ""),
        app("node:fs", ""),
    ];
    let capture = read(&recorded(&scripts));
    let root = tree(
        "written",
        &[("/srv/app/dist/app.min.js", CODE), ("/srv/app/dist/app.min.js.map", MAP)],
    );
    let originals = Originals::find(&capture, &root);
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(originals.problems, BTreeSet::new());
    assert_eq!(originals.applied, 2);
    // What node --enable-source-maps prints, but for its names: Node 20 calls computeTotal
    // `settings`.
    let want = [
        "computeTotal /srv/app/src/app.ts:23:17",
        "serveOne /srv/app/src/app.ts:30:10",
        "(anonymous) /srv/app/src/app.ts:33:1",
    ];
    for row in 0..4 {
        assert_eq!(stack(&capture, &originals, row), want, "{row}");
    }
    // And without maps.
    let ran = |file: &str| {
        [("r", 321), ("s", 394), ("(anonymous)", 404)]
            .map(|(name, column)| format!("{name} {file}:1:{column}"))
    };
    assert_eq!(stack(&capture, &originals, 4), ran("/srv/app/dist/none.js"));
    assert_eq!(stack(&capture, &originals, 5), ran("node:fs"));
    assert_eq!(stack(&capture, &Originals::default(), 0), ran("/srv/app/dist/app.min.js"));
    // One function, however its script was loaded.
    let functions = functions(&capture, &originals);
    let total = functions.iter().find(|f| f["function"] == "computeTotal").unwrap();
    assert_eq!(
        *total,
        json!({"self_samples": 4, "total_samples": 4, "innermost_samples": 4,
            "lines": [{"line": 23, "samples": 4}], "kind": "js", "function": "computeTotal",
            "file": "/srv/app/src/app.ts", "line": 17, "column": 23,
            "defined_line": 17, "defined_column": 23})
    );
    let mut symboliser = crate::symbolise::Symboliser::new(&capture, &originals);
    let id = symboliser.resolve(capture.samples[0].stack[0], 100);
    let frame = symboliser.profile().leaf_first(id).next().unwrap();
    let generated = frame.generated.as_deref().unwrap();
    assert_eq!(
        (generated.file.as_str(), generated.line, generated.column),
        ("/srv/app/dist/app.min.js", 1, 321)
    );
}

#[test]
fn names_are_taken_only_where_nothing_else_fits() {
    let token = |column, name: &str| NamedToken { column, name: name.into() };
    let names = [token(20, "parameter"), token(18, "handler"), token(2, "far")];
    for (generated, column, want) in [
        ("a", 20, Some("handler")),
        ("a", 19, Some("handler")),
        ("ab", 20, Some("handler")),
        ("a", 22, Some("parameter")),
        ("", 20, None),
        ("a", 24, None),
        ("abcdefgh", 20, None),
    ] {
        assert_eq!(name_of(generated.as_bytes(), column, &names), want, "{generated} {column}");
    }
}

#[test]
fn what_cannot_be_used_is_said_once_and_changes_nothing() {
    let app = |name, url| Running { name, url, functions: FUNCTIONS };
    let scripts = [
        app("/srv/missing.js", "missing.js.map"),
        app("/srv/missing.js", "missing.js.map"),
        app("/srv/folder.js", "."),
        app("/srv/text.js", "text.map"),
        app("/srv/web.js", "https://example.com/a.map"),
        app("/srv/\u{1b}[2Jhostile.js", "a\u{1b}.map"),
        app("evalmachine.<anonymous>", "relative.map"),
    ];
    let bytes = recorded(&scripts);
    let root = tree("unusable", &[("/srv/text.map", "text")]);
    let originals = Originals::find(&read(&bytes), &root);
    let root_text = root.to_str().unwrap();
    let said: Vec<String> = originals
        .problems
        .iter()
        .map(|p| format!("{}: {}", p.object.replace(root_text, "DIR"), p.reason))
        .collect();
    let want = [
        "/srv/\\x1b[2Jhostile.js: its address holds control characters",
        "/srv/web.js: its address is not that of a file",
        "DIR/srv: it is not a regular file",
        "DIR/srv/missing.js.map: it cannot be read: No such file or directory (os error 2)",
        "DIR/srv/text.map: it is not a source map: expected ident at line 1 column 2",
        "evalmachine.<anonymous>: the script has no path",
    ];
    for want in want {
        assert!(said.iter().any(|said| said == want), "{want}\n{said:#?}");
    }
    assert_eq!(said.len(), want.len());
    let capture = read(&bytes);
    for row in 0..scripts.len() {
        let plain = stack(&capture, &Originals::default(), row);
        assert_eq!(stack(&capture, &originals, row), plain);
    }
    // The whole program: done, with what was not found on standard error, and a status of its own.
    let file = root.join("capture");
    fs::write(&file, &bytes).unwrap();
    let plan = |source_maps| Plan {
        file: file.clone(),
        action: Action::Report(ReportPlan::default()),
        source_maps,
    };
    let run = |plan: &Plan| {
        let (mut out, mut messages) = (Vec::new(), Vec::new());
        let status = run::run(plan, Style::default(), &mut out, &mut messages);
        assert!(!out.is_empty());
        (status, String::from_utf8(messages).unwrap())
    };
    let (status, messages) = run(&plan(Some(root.clone())));
    assert_eq!(status, 1, "{messages}");
    assert!(messages.contains("text.map is not used: it is not a source map"), "{messages}");
    assert!(messages.contains("nanalyze: no source map was applied: see above"), "{messages}");
    assert!(!messages.contains('\u{1b}'), "{messages}");
    assert_eq!(run(&plan(None)), (0, String::new()));
    // One map is enough, whatever is said of the others.
    fs::write(root.join("srv/missing.js.map"), MAP).unwrap();
    let (status, messages) = run(&plan(Some(root.clone())));
    assert_eq!(status, 0);
    assert!(messages.contains("web.js is not used") && !messages.contains("no source map was"));
    fs::remove_dir_all(&root).unwrap();
}
