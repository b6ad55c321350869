//! Folders of made-up operations.

use super::*;
use crate::join::operations::join;
use crate::testing::CaptureBuilder;

fn folder(path: &str, is_plain: bool) -> Folder {
    Folder { path: path.as_bytes().to_vec(), is_plain }
}

#[test]
fn relative_paths_get_their_folder() {
    for (at, is_plain, path, want) in [
        ("/a/b", true, "c", Some("/a/b/c")),
        ("/a/b", true, "./c/./d", Some("/a/b/c/./d")),
        ("/a/b", true, "../c", Some("/a/c")),
        ("/a/b", true, "..//../../c", Some("/c")),
        ("/a/b", true, "../..", Some("/")),
        ("/a/b", true, "c/../d", Some("/a/b/c/../d")),
        // What is above a link is not known.
        ("/a/link", false, "../c", Some("/a/link/../c")),
        ("/", true, "c", Some("/c")),
        ("/", true, ".", Some("/")),
        ("/a", true, "..c", Some("/a/..c")),
        ("/a", true, "/c", None),
        ("/a", true, "", None),
    ] {
        let found = folder(at, is_plain).resolve(path.as_bytes());
        assert_eq!(found.as_deref(), want.map(str::as_bytes), "{at} {path}");
    }
}

/// Operations of one process: their paths as absolute ones.
fn resolved(build: CaptureBuilder) -> Vec<String> {
    let capture = build.finish();
    let found = join(&capture);
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let opens = found.operations.iter().filter(|operation| operation.is_open());
    opens
        .map(|o| {
            o.resolved(o.path.unwrap(), &found.folders).map_or("-".to_owned(), |path| text(&path))
        })
        .collect()
}

#[test]
fn changes_are_followed_from_what_proc_said() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    build.holding(0, 0, 1000, "/srv/app");
    let change = |build: &mut CaptureBuilder, time, path: &str, status: i64| {
        build.operation(thread, time, "uv_chdir", 0, &[("sp", 80.into()), ("path", path.into())]);
        let returned = [("sp", 88.into()), ("status", status.into())];
        build.operation(thread, time + 1, "uv_chdir.return", 0, &returned);
    };
    // Before /proc was read: after the change it is what /proc says.
    build.open(thread, 100, 1, "a", false, 0);
    change(&mut build, 200, "app", 0);
    build.open(thread, 300, 1, "b", false, 0);
    build.open(thread, 1100, 1, "c", false, 0);
    change(&mut build, 1200, "..", 0);
    build.open(thread, 1300, 1, "d", false, 0);
    change(&mut build, 1400, "/none", -2);
    build.open(thread, 1500, 1, "../e", false, 0);
    change(&mut build, 1600, "/link", 0);
    build.open(thread, 1700, 1, "../f", false, 0);
    build.open(thread, 1800, 1, "/g", false, 0);
    let want = ["-", "/srv/app/b", "/srv/app/c", "/srv/d", "/e", "/link/../f", "-"];
    assert_eq!(resolved(build), want);
}

#[test]
fn a_folder_that_is_not_known_is_not_made_up() {
    let mut build = CaptureBuilder::new();
    let one = build.process(10, &[10])[0];
    let two = build.process(20, &[20])[0];
    build.holding(0, 0, 60, "/srv/app (deleted)");
    build.open(one, 100, 1, "a", false, 0);
    build.open(two, 110, 1, "b", false, 0);
    let call = [("sp", 80.into()), ("path", "sub".into())];
    build.operation(two, 120, "uv_chdir", 0, &call);
    build.operation(two, 121, "uv_chdir.return", 0, &[("sp", 88.into())]);
    build.open(two, 130, 1, "c", false, 0);
    assert_eq!(resolved(build), ["-", "-", "-"]);
}
