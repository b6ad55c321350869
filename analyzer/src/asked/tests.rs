//! Who asked, on made-up captures.

use formats::capture::{Frame, Marker};

use super::*;
use crate::join::operations::join;
use crate::source_map::Originals;
use crate::testing::CaptureBuilder;

/// Functions by the address of their code.
const CODE: [(u64, &[u8]); 15] = [
    (0x1000, b"JS:~load /app/load.js:3:1"),
    (0x1100, b"JS:~readFileSync node:fs:1:1"),
    (0x1200, b"JS:~openSync node:fs:2:1"),
    (0x1300, b"JS:~readFile node:fs:3:1"),
    (0x1400, b"JS:~readFileAfterOpen node:fs:4:1"),
    (0x1500, b"JS:~require node:internal/modules/helpers:5:1"),
    (0x1600, b"JS:~Module._findPath node:internal/modules/cjs/loader:6:1"),
    (0x1700, b"JS:~stat node:internal/fs/promises:7:1"),
    (0x1800, b"JS:~copyDir node:internal/fs/cp/cp:8:1"),
    (0x1900, b"JS:~realpathSync node:fs:9:1"),
    (0x1a00, b"JS:~(anonymous) node:internal/util:10:1"),
    (0x1b00, b"JS:~importModuleDynamicallyCallback node:internal/modules/esm/utils:11:1"),
    (0x1d00, b"JS:~readFile node:internal/fs/promises:13:1"),
    (0x1e00, b"JS:~readFileHandle node:internal/fs/promises:14:1"),
    (0x1c00, b"JS:~log node:internal/console/constructor:12:1"),
];

/// Operation with path, call, whether by the descriptor, and how it was folded.
type Row = (String, Option<String>, bool, Option<Folded>);

struct Made {
    build: CaptureBuilder,
    thread: u32,
    now: u64,
}

impl Made {
    fn new() -> Self {
        let mut build = CaptureBuilder::new();
        let thread = build.process(10, &[10])[0];
        let code: Vec<_> = CODE.iter().map(|&(at, name)| (at, 0x100, name)).collect();
        build.jit(0, 0, &code);
        Self { build, thread, now: 1_000 }
    }

    /// A stack, root first.
    fn stack(&mut self, code: &[u64]) -> u32 {
        let frames: Vec<Frame> = code
            .iter()
            .map(|&address| match address {
                0 => Frame::Marker(Marker::NOT_TAKEN),
                _ => Frame::Jit { process: 0, address: address + 1, call: true },
            })
            .collect();
        self.build.stack(&frames)
    }

    fn open(&mut self, code: &[u64], path: &str, result: i64) {
        let stack = self.stack(code);
        self.now += 100;
        self.build.open(self.thread, self.now, 1, path, false, stack);
        self.build.cleanup(self.thread, self.now + 10, 1, result);
    }

    fn stat(&mut self, code: &[u64], path: &str, result: i64) {
        let stack = self.stack(code);
        self.build.operations_by(stack);
        self.now += 100;
        self.build.operation(self.thread, self.now, "uv_fs_stat", 1, &[("path", path.into())]);
        self.build.cleanup_of(self.thread, self.now + 10, 1, result, 6);
    }

    fn read(&mut self, code: &[u64], file: i64) {
        let stack = self.stack(code);
        self.build.operations_by(stack);
        self.now += 100;
        let arguments = [("file", file.into()), ("cb", 1.into())];
        self.build.operation(self.thread, self.now, "uv_fs_read", 1, &arguments);
        self.build.cleanup_of(self.thread, self.now + 10, 1, 5, 3);
    }

    fn rows(self) -> (Vec<Row>, Modules) {
        let capture = self.build.finish();
        let operations = join(&capture).operations;
        let originals = Originals::default();
        let mut symboliser = Symboliser::new(&capture, &originals);
        let askers = Askers::of(&operations, &mut symboliser);
        let rows = operations.iter().enumerate().map(|(place, operation)| {
            let asked = askers.get(place);
            let path = String::from_utf8_lossy(operation.path.unwrap_or(b"?"));
            let call = askers.name(asked.call).map(str::to_owned);
            (format!("{} {path}", operation.name), call, asked.asker.is_some(), asked.folded)
        });
        (rows.collect(), askers.modules.clone())
    }

    fn calls(self) -> Vec<Option<String>> {
        self.rows().0.into_iter().map(|(_, call, _, _)| call).collect()
    }
}

#[test]
fn the_call_is_what_the_program_wrote() {
    let mut made = Made::new();
    made.open(&[0x1000, 0x1100, 0x1200], "/a", -2);
    made.stat(&[0x1000, 0x1700], "/a", 0);
    made.stat(&[0x1000, 0x1900], "/a", 0);
    // Through one of Node's own functions, such as `util.promisify`.
    made.stat(&[0x1000, 0x1a00, 0x1300], "/a", 0);
    made.stat(&[0x1800, 0x1700], "/a", 0);
    made.stat(&[0x1700], "/a", 0);
    made.open(&[0x1000, 0x1c00, 0x1200], "/a", 3);
    made.stat(&[0x1000], "/a", 0);
    let want = [
        Some("fs.readFileSync"),
        Some("fs.promises.stat"),
        Some("fs.realpathSync"),
        Some("fs.readFile"),
        Some("fs.cp"),
        None,
        Some("console.log"),
        None,
    ];
    assert_eq!(made.calls(), want.map(|call| call.map(str::to_owned)));
}

#[test]
fn what_node_goes_on_with_belongs_to_who_opened_it() {
    let mut made = Made::new();
    made.open(&[0x1000, 0x1300], "/a", 9);
    made.read(&[0x1400], 9);
    // The program's own stack is better than any conclusion.
    made.read(&[0x1000, 0x1100], 9);
    // A step of the program's own call on the open file, not of the one that opened it.
    made.read(&[0x1000, 0x1d00], 9);
    made.read(&[0x1e00], 9);
    // Nothing is known of this descriptor.
    made.read(&[0x1400], 7);
    let (rows, _) = made.rows();
    let short: Vec<_> = rows.iter().map(|(_, call, by, _)| (call.as_deref(), *by)).collect();
    assert_eq!(
        short,
        [
            (Some("fs.readFile"), false),
            (Some("fs.readFile"), true),
            (Some("fs.readFileSync"), false),
            (Some("fs.promises.readFile"), false),
            (Some("fs.promises.readFile"), true),
            (Some("fs.readFile"), false),
        ]
    );
    assert_eq!(rows[1].0, "read /a");
}

const REQUIRE: [u64; 3] = [0x1000, 0x1500, 0x1600];

#[test]
fn module_resolution_is_known_by_nodes_frames_next_to_the_operation() {
    let mut made = Made::new();
    made.stat(&REQUIRE, "/app/node_modules", -2);
    made.open(&[0x1500, 0x1600, 0x1000, 0x1100, 0x1200], "/app/config.json", -2);
    // A function without a name may be the program's.
    made.open(&[0x1500, 0x1600, 0x9000, 0x1100, 0x1200], "/app/other.json", -2);
    made.open(&[0x1000, 0x1500, 0x1600, 0x1100], "/app/lib/a.js", 4);
    made.read(&[0x1000, 0x1500, 0x1600, 0x1100], 4);
    made.stat(&[0x1000, 0x1b00, 0x1600], "/app/b.mjs", 0);
    let (rows, modules) = made.rows();
    let short: Vec<_> =
        rows.iter().map(|(_, call, _, folded)| (call.as_deref(), *folded)).collect();
    assert_eq!(
        short,
        [
            (Some("require"), Some(Folded::ByStack)),
            (Some("fs.readFileSync"), None),
            (None, None),
            (Some("require"), Some(Folded::ByStack)),
            (Some("require"), Some(Folded::ByStack)),
            (Some("import"), Some(Folded::ByStack)),
        ]
    );
    assert_eq!((modules.operations.count, modules.operations.failed), (4, 1));
    assert_eq!((modules.files, modules.concluded), (1, 0));
}

#[test]
fn a_module_that_is_not_found_is_named() {
    let mut made = Made::new();
    for _ in 0..2 {
        made.stat(&REQUIRE, "/app/gone", -2);
        made.stat(&REQUIRE, "/app/gone.js", -2);
        // Found after all.
        made.stat(&REQUIRE, "/app/here", -2);
        made.stat(&REQUIRE, "/app/here.js", 0);
        made.open(&REQUIRE, "/app/package.json", -2);
        made.open(&REQUIRE, "/app/here.js", 4);
        // The loader has not forgotten yet that `here.js` is there.
        made.stat(&[0x1000, 0x1b00, 0x1600], "/app/here", -2);
        // Nor whether the folder above has the module.
        made.stat(&REQUIRE, "/app/lib/node_modules", -2);
        made.stat(&[0x1000, 0x1b00, 0x1600], "/app/b.mjs", 0);
        // A search that finds nothing.
        made.stat(&REQUIRE, "/app/lost", -2);
        made.stat(&REQUIRE, "/app/lost.js", -2);
        made.stat(&[0x1000, 0x1b00, 0x1600], "/app/b.mjs", 0);
    }
    let (_, modules) = made.rows();
    let missing: Vec<_> = modules
        .missing
        .iter()
        .map(|missing| {
            let tried: Vec<_> =
                missing.tried.iter().map(|path| String::from_utf8_lossy(path)).collect();
            (missing.count, tried.join(" "))
        })
        .collect();
    assert_eq!(missing, [(2, "/app/lost /app/lost.js".to_owned())]);

    // A name that is looked for in folders that are not there, to the last one.
    let mut made = Made::new();
    for folder in ["/app/node_modules", "/node_modules", "/srv/.node_modules", "/usr/lib/node"] {
        made.stat(&REQUIRE, folder, -2);
    }
    assert_eq!(made.rows().1.missing[0].tried.len(), 4);
    // What `import` looks for has its name in each folder.
    let mut made = Made::new();
    for folder in ["/app/node_modules/no", "/node_modules/no", "/node_modules", "/usr/lib/node"] {
        made.stat(&REQUIRE, folder, -2);
    }
    assert_eq!(made.rows().1.missing[0].tried.len(), 4);
}

#[test]
fn without_stacks_only_what_the_loader_alone_does_is_folded() {
    let mut made = Made::new();
    made.stat(&REQUIRE, "/lib/x", -2);
    for (path, result) in [("/lib/x", -2), ("/app/node_modules/a.js", 0), ("/app/state.json", -2)] {
        made.stat(&[0], path, result);
    }
    made.open(&[0], "/app/node_modules/a.js", 5);
    made.read(&[0], 5);
    made.open(&[0], "/etc/app.conf", -2);
    made.open(&[0], "/app/node_modules/a/config.json", -2);
    let (rows, modules) = made.rows();
    let folded: Vec<_> = rows.iter().map(|(_, _, _, folded)| *folded).collect();
    assert_eq!(
        folded,
        [
            Some(Folded::ByStack),
            Some(Folded::ByPath),
            Some(Folded::ByPath),
            None,
            Some(Folded::ByPath),
            Some(Folded::ByHandle),
            None,
            None,
        ]
    );
    assert_eq!((modules.concluded, modules.files), (4, 1));
    // Whether the search found something cannot be told.
    assert!(modules.missing.is_empty());

    // Where no stack shows the loader at work, nothing is concluded.
    let mut made = Made::new();
    made.stat(&[0], "/app/node_modules/a.js", 0);
    assert_eq!(made.rows().0[0].3, None);
}
