//! The V8 flags that decide which JavaScript frames have names, from a command line and
//! NODE_OPTIONS. Pure. What a program sets later by `v8.setFlagsFromString` cannot be seen here.

/// Node options that take the next argument as their value (node's src/node_options.cc), as far as
/// they occur before a script: without them their value would be taken for the script.
const WITH_VALUE: [&str; 16] = [
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-e",
    "--eval",
    "-p",
    "--print",
    "-pe",
    "-C",
    "--conditions",
    "--title",
    "--env-file",
    "--input-type",
    "--icu-data-dir",
];

/// The flags that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct V8Flags {
    /// `--perf-basic-prof`: writes a perf map.
    pub perf_map: bool,
    /// `--perf-basic-prof-only-functions`: a perf map without stubs; implies the above.
    pub only_functions: bool,
    /// `--interpreted-frames-native-stack`: interpreted functions have addresses of their own.
    pub interpreted_frames: bool,
    /// `--perf-prof`: writes a jitdump, which is not read.
    pub jitdump: bool,
    /// `--perf-basic-prof-path`: the folder of the perf map.
    pub map_folder: Option<String>,
}

impl V8Flags {
    /// Reads NODE_OPTIONS, then the arguments before the script: the last word wins, as in Node.
    pub(crate) fn parse(cmdline: &[u8], node_options: &[u8]) -> Self {
        let mut flags = Self::default();
        for option in split_node_options(&String::from_utf8_lossy(node_options)) {
            flags.take(&option);
        }
        let cmdline = String::from_utf8_lossy(cmdline);
        let mut arguments = cmdline.split('\0').skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--" || argument == "-" || !argument.starts_with('-') {
                break;
            }
            if WITH_VALUE.contains(&argument) {
                arguments.next();
            }
            flags.take(argument);
        }
        flags
    }

    /// Takes one flag. V8 takes dashes and underscores as equal, and `--no-` or `--no` before a
    /// name as its opposite (src/flags/flags.cc, `SplitArgument`).
    fn take(&mut self, argument: &str) {
        let Some(text) = argument.strip_prefix("--") else { return };
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
        let name = name.replace('_', "-");
        let positive = name.strip_prefix("no-").or_else(|| name.strip_prefix("no"));
        let on = positive.is_none();
        match positive.unwrap_or(&name) {
            "perf-basic-prof" => self.perf_map = on,
            "perf-basic-prof-only-functions" => {
                self.only_functions = on;
                self.perf_map |= on;
            }
            "interpreted-frames-native-stack" => self.interpreted_frames = on,
            "perf-prof" => self.jitdump = on,
            "perf-basic-prof-path" => self.map_folder = value.map(str::to_owned),
            _ => {}
        }
    }
}

/// Splits NODE_OPTIONS at spaces; double quotes group, a backslash inside them escapes
/// (node's src/node_options.cc, `ParseNodeOptionsEnvVar`).
fn split_node_options(text: &str) -> Vec<String> {
    let mut options = Vec::new();
    let (mut quoted, mut begun, mut option) = (false, false, String::new());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quoted => option.extend(letters.next()),
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                if begun {
                    options.push(std::mem::take(&mut option));
                }
                begun = false;
            }
            letter => {
                option.push(letter);
                begun = true;
            }
        }
    }
    options.extend(begun.then_some(option));
    options
}

/// One variable of an environment, as `/proc/PID/environ` gives it.
pub(crate) fn variable<'e>(environ: &'e [u8], name: &str) -> Option<&'e [u8]> {
    environ.split(|&byte| byte == 0).find_map(|entry| {
        entry.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of (map, interpreted, only functions, jitdump) are on.
    fn on(cmdline: &str, node_options: &str) -> [bool; 4] {
        let cmdline = cmdline.replace(' ', "\0");
        let f = V8Flags::parse(cmdline.as_bytes(), node_options.as_bytes());
        [f.perf_map, f.interpreted_frames, f.only_functions, f.jitdump]
    }

    #[test]
    fn flags_before_the_script_count() {
        let (none, both) = ([false; 4], [true, true, false, false]);
        for (cmdline, options, want) in [
            ("node", "", none),
            ("node app.js", "", none),
            ("node --perf-basic-prof --interpreted-frames-native-stack app.js", "", both),
            ("node --perf_basic_prof --interpreted_frames_native_stack app.js", "", both),
            ("node app.js --perf-basic-prof", "", none),
            ("node -- --perf-basic-prof", "", none),
            ("node - --perf-basic-prof", "", none),
            ("node -r ./x.js --perf-basic-prof app.js", "", [true, false, false, false]),
            ("node app.js", "--perf-basic-prof --interpreted-frames-native-stack", both),
            ("node --interpreted-frames-native-stack a.js", "--perf-basic-prof", both),
            ("node --no-perf-basic-prof a.js", "--perf-basic-prof", none),
            ("node --noperf-basic-prof a.js", "--perf_basic_prof", none),
            ("node --perf-prof a.js", "", [false, false, false, true]),
            ("node --perf-basic-prof-only-functions a.js", "", [true, false, true, false]),
            ("node --perf-basic-profile a.js", "", none),
            ("", "", none),
        ] {
            assert_eq!(on(cmdline, options), want, "{cmdline:?} {options:?}");
        }
    }

    #[test]
    fn the_folder_of_the_map() {
        let folder = |text: &str| V8Flags::parse(text.as_bytes(), b"").map_folder;
        assert_eq!(folder("node\0--perf_basic_prof_path=/var/x\0a.js").as_deref(), Some("/var/x"));
        assert_eq!(folder("node\0a.js\0--perf-basic-prof-path=/var/x"), None);
    }

    #[test]
    fn node_options_are_split_as_node_does() {
        for (text, want) in [
            ("", vec![]),
            ("  a   b ", vec!["a", "b"]),
            (r#"--require "./my path/x.js" b"#, vec!["--require", "./my path/x.js", "b"]),
            (r#""a\"b" \c"#, vec![r#"a"b"#, r"\c"]),
            (r#""" a"#, vec!["a"]),
            (r#""open \"#, vec!["open "]),
        ] {
            assert_eq!(split_node_options(text), want, "{text:?}");
        }
    }

    #[test]
    fn variables_are_matched_whole() {
        let environ = b"XUV_USE_IO_URING=0\0UV_USE_IO_URING_X=2\0UV_USE_IO_URING=1\0EMPTY=\0bare\0";
        assert_eq!(variable(environ, "UV_USE_IO_URING"), Some(b"1".as_slice()));
        assert_eq!(variable(environ, "EMPTY"), Some(b"".as_slice()));
        assert_eq!(variable(environ, "bare"), None);
        assert_eq!(variable(b"", "A"), None);
    }
}
