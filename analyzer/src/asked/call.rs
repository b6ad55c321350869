//! The way from a file operation out to the program: Node's own functions, and by the outermost of
//! them the call that the program made. It knows the names of Node's modules, which are data here.

use crate::profile::{Kind, Profile, ResolvedFrame, ResolvedStackId};

/// Node's module loaders, of all kinds and versions.
const MODULES: &str = "internal/modules/";
/// Functions in Node's modules that carry the name of the call, or are a step of one call only: the
/// module's path without `node:`, how the function's name begins, and the call. The first that fits holds; `*`
/// stands for the function's name.
const CALLS: [(&str, &str, &str); 23] = [
    ("fs", "readFileAfter", "fs.readFile"),
    ("fs", "writeAll", "fs.writeFile"),
    ("fs", "readdirSyncRecursive", "fs.readdirSync"),
    ("internal/fs/promises", "readFileHandle", "fs.promises.readFile"),
    ("internal/fs/promises", "writeFileHandle", "fs.promises.writeFile"),
    ("internal/fs/read/context", "", "fs.readFile"),
    ("internal/fs/read_file_context", "", "fs.readFile"),
    ("internal/fs/streams", "ReadStream", "fs.ReadStream"),
    ("internal/fs/streams", "WriteStream", "fs.WriteStream"),
    ("internal/fs/streams", "", "a file stream"),
    ("internal/fs/sync_write_stream", "", "a stream to a file"),
    ("internal/fs/cp/cp-sync", "", "fs.cpSync"),
    ("internal/fs/cp/cp", "", "fs.cp"),
    ("internal/fs/rimraf", "rimrafSync", "fs.rmSync"),
    ("internal/fs/rimraf", "", "fs.rm"),
    ("internal/fs/glob", "", "fs.glob"),
    ("internal/fs/watchers", "StatWatcher", "fs.watchFile"),
    ("internal/fs/watchers", "", "fs.watch"),
    ("internal/fs/recursive_watch", "", "fs.watch"),
    ("internal/fs/dir", "opendir", "fs.*"),
    ("internal/fs/dir", "(anonymous)", "fs.Dir"),
    ("internal/fs/dir", "", "fs.Dir.*"),
    ("internal/console/", "", "console.*"),
];
/// Native functions of Node that go on with a call on their own, and the call.
const NATIVE: [(&str, &str); 4] = [
    ("node::fs::MKDirpAsync", "fs.mkdir"),
    ("node::fs::ReadFileJob", "fs.readFile"),
    ("node::fs::WriteFileJob", "fs.writeFile"),
    ("node::fs::CpDirJob", "fs.cp"),
];
/// Calls that a file of Node's alone does not tell: only where the program is the caller.
const DIRECT: [(&str, &str); 3] =
    [("fs", "fs.*"), ("internal/fs/promises", "fs.promises.*"), ("internal/fs/", "fs.*")];
/// Functions of other modules whose names are not the call's.
const OTHERS: [(&str, &str); 1] = [("wrappedChdir", "process.chdir")];
/// Functions of `node:internal/fs/promises` that are no methods of a `FileHandle` when they work on an
/// open file.
const OF_PATHS: [&str; 3] = ["readFile", "writeFile", "appendFile"];

/// Node's own JavaScript between an operation and whoever called it, from the operation outwards.
#[derive(Debug)]
pub(super) struct Way<'p> {
    node: Vec<&'p ResolvedFrame>,
    /// Whether JavaScript of the application called the last of them.
    called: bool,
    /// Node's native function that goes on without JavaScript.
    native: Option<&'static str>,
}

impl<'p> Way<'p> {
    pub(super) fn of(profile: &'p Profile, stack: ResolvedStackId) -> Self {
        let mut way = Self { node: Vec::new(), called: false, native: None };
        for frame in profile.leaf_first(stack) {
            match frame.kind {
                Kind::Js if frame.unresolved.is_none() && frame.is_node() => way.node.push(frame),
                Kind::Js if frame.unresolved.is_none() => {
                    way.called = true;
                    break;
                }
                // It may be the program's own: nothing beyond it can be told.
                Kind::Js => break,
                Kind::Jit if frame.unresolved.is_some() => break,
                Kind::Native => {
                    let known = NATIVE.iter().find(|(name, _)| frame.function.contains(name));
                    way.native = way.native.or(known.map(|&(_, call)| call));
                }
                _ => {}
            }
        }
        way
    }

    /// Whether Node's module loaders are on the way.
    pub(super) fn is_module(&self) -> bool {
        self.node.iter().any(|frame| file(frame).starts_with(MODULES))
    }

    /// The call that the program made.
    pub(super) fn call(&self, by_handle: bool) -> Option<String> {
        if self.is_module() {
            return Some(self.loading().to_owned());
        }
        let Some(outermost) = self.node.last() else {
            return self.native.map(str::to_owned);
        };
        if file(outermost).starts_with("internal/console/") {
            return Some(format!("console.{}", outermost.function));
        }
        let is_fs = |frame: &&&ResolvedFrame| {
            file(frame) == "fs" || file(frame).starts_with("internal/fs/")
        };
        let Some(frame) = self.node.iter().rev().find(is_fs) else {
            let function = outermost.function.as_str();
            let known = OTHERS.iter().find(|(own, _call)| *own == function);
            return self.called.then(|| known.map_or(function, |(_own, call)| call).to_owned());
        };
        let function = frame.function.strip_prefix("fs.").unwrap_or(&frame.function);
        let fits = |(module, begin, _call): &&(&str, &str, &str)| {
            file(frame) == *module && function.starts_with(begin)
        };
        if let Some((_module, _begin, call)) = CALLS.iter().find(fits) {
            return Some(call.replace('*', function));
        }
        if !self.called {
            return None;
        }
        if by_handle && file(frame) == "internal/fs/promises" && !OF_PATHS.contains(&function) {
            return Some(format!("FileHandle.{function}"));
        }
        let known = |(module, _call): &&(&str, &str)| {
            file(frame) == *module || (module.ends_with('/') && file(frame).starts_with(module))
        };
        DIRECT.iter().find(known).map(|(_module, call)| call.replace('*', function))
    }

    /// What loads a module.
    fn loading(&self) -> &'static str {
        let called = |name: &str| {
            let outermost = self.node.last().filter(|_frame| self.called);
            outermost.is_some_and(|frame| frame.function == name)
        };
        if called("require") || called("Module.require") {
            "require"
        } else if called("resolve") || called("require.resolve") {
            "require.resolve"
        } else if self.node.iter().any(|frame| file(frame).starts_with("internal/modules/esm/")) {
            "import"
        } else {
            "module loading"
        }
    }
}

/// The path of one of Node's own modules.
fn file(frame: &ResolvedFrame) -> &str {
    let file = frame.file.as_deref().unwrap_or_default();
    file.strip_prefix("node:").unwrap_or(file)
}
