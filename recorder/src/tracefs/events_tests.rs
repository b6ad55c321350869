//! Lines and names without a kernel; a real tracefs is used by the kernel tests.

use super::*;
use std::path::Path;

fn site(fetch_args: &[&str]) -> SiteSpec {
    SiteSpec {
        path: ProbePath::direct(Path::new("/usr/bin/node")).unwrap(),
        offset: 0x14b_1c50,
        ref_ctr: None,
        fetch_args: fetch_args.iter().map(|&text| text.to_owned()).collect(),
    }
}

#[test]
fn a_line_is_what_the_kernel_documents() {
    let line = probe_line(ProbeKind::Entry, "g/open", &site(&["req=%si:x64", "p=+0(%dx):ustring"]));
    let text = String::from_utf8(line.unwrap()).unwrap();
    assert_eq!(text, "p:g/open /usr/bin/node:0x14b1c50 req=%si:x64 p=+0(%dx):ustring");
    let usdt = SiteSpec { ref_ctr: Some(0x3042), ..site(&[]) };
    let text = String::from_utf8(probe_line(ProbeKind::Return, "g/x", &usdt).unwrap()).unwrap();
    assert_eq!(text, "r:g/x /usr/bin/node:0x14b1c50(0x3042)");
}

#[test]
fn arguments_cannot_smuggle_words_or_lines() {
    for bad in ["", "a=%di b", "a=%di\n-:other/event", "a=%di#", "a=\u{e0}", "a=%di\t"] {
        let error = probe_line(ProbeKind::Entry, "g/x", &site(&[bad])).unwrap_err();
        assert!(matches!(error, TracefsError::FetchArgument { .. }), "{bad:?}");
    }
}

#[test]
fn names_are_identifiers_of_at_most_63_bytes() {
    let longest = "a".repeat(63);
    for good in ["uv_fs_open", "_x9", longest.as_str()] {
        assert_eq!(check_name(good), Ok(()));
    }
    let too_long = "a".repeat(64);
    for bad in ["", "9a", "a-b", "a/b", "a b", "a\n", "ä", too_long.as_str()] {
        assert!(matches!(check_name(bad), Err(TracefsError::Name { .. })), "{bad:?}");
    }
}

#[test]
fn lines_beyond_the_kernels_buffer_are_refused() {
    let line = |bytes: usize| {
        let empty = probe_line(ProbeKind::Entry, "g/x", &site(&[])).unwrap().len();
        let filler = "a".repeat(bytes - empty - 2);
        probe_line(ProbeKind::Entry, "g/x", &site(&[&filler]))
    };
    assert_eq!(line(4095).unwrap().len(), 4094);
    let error = line(4096).unwrap_err();
    assert_eq!(error, TracefsError::LineTooLong { event: "g/x".into(), bytes: 4096 });
}

/// A folder that looks like tracefs: what is appended can be read back.
struct FakeTracefs(std::path::PathBuf);

impl FakeTracefs {
    fn new(name: &str) -> (Self, Tracefs) {
        let root = std::env::temp_dir().join(format!("nrec-{name}-{}", std::process::id()));
        std::fs::create_dir_all(root.join("events")).unwrap();
        std::fs::write(root.join("dynamic_events"), "p:other/event /bin/x:0x1\n").unwrap();
        let tracefs = Tracefs::at(&root);
        (Self(root), tracefs)
    }

    fn control(&self) -> String {
        std::fs::read_to_string(self.0.join("dynamic_events")).unwrap()
    }
}

impl Drop for FakeTracefs {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn what_was_made_is_removed_when_the_rest_fails_and_nothing_is_truncated() {
    let (fake, tracefs) = FakeTracefs::new("partial");
    let events = DynamicEvents::new(tracefs).unwrap();
    // The fake makes no id file, so the creation fails after the lines were written.
    let error =
        events.create(ProbeKind::Entry, "open", &[site(&[]), site(&["a=%di"])]).unwrap_err();
    assert!(matches!(error, TracefsError::File { operation: "read", .. }), "{error}");
    let group = events.group();
    assert_eq!(
        fake.control(),
        format!(
            "p:other/event /bin/x:0x1\np:{group}/open /usr/bin/node:0x14b1c50\n\
             p:{group}/open /usr/bin/node:0x14b1c50 a=%di\n-:{group}/open\n"
        )
    );
}

#[test]
fn an_existing_name_is_not_extended() {
    let (fake, tracefs) = FakeTracefs::new("exists");
    let events = DynamicEvents::new(tracefs.clone()).unwrap();
    let folder = tracefs.event_folder(events.group(), "open");
    std::fs::create_dir_all(&folder).unwrap();
    let error = events.create(ProbeKind::Entry, "open", &[site(&[])]).unwrap_err();
    assert!(matches!(error, TracefsError::Exists { .. }));
    assert!(matches!(
        events.create(ProbeKind::Entry, "none", &[]),
        Err(TracefsError::NoSite { .. })
    ));
    assert_eq!(fake.control().lines().count(), 1, "nothing was written");
}
