//! Patterns for paths. It must not look at any file.

use formats::wildcard::Wildcard;

/// A pattern for a whole path. One that is a plain name, without a `/` in front, also fits where it is
/// the end of the path after a `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    whole: Wildcard,
    name: Option<Vec<u8>>,
}

impl Glob {
    /// Reads a pattern.
    #[must_use]
    pub fn new(pattern: &[u8]) -> Self {
        let whole = Wildcard::new(pattern);
        let is_name = |text: &Vec<u8>| !text.is_empty() && !pattern.starts_with(b"/");
        Self { name: whole.literal().filter(is_name), whole }
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn pattern(&self) -> &[u8] {
        self.whole.text()
    }

    /// Whether the path fits: all of it, or its end if the pattern is a name.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let folder = self.name.as_ref().and_then(|name| path.strip_suffix(name.as_slice()));
        folder.is_some_and(|folder| folder.ends_with(b"/")) || self.whole.fits(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_paths() {
        let table = [
            ("/etc/hosts", "/etc/hosts", true),
            ("/etc", "/etc/hosts", false),
            ("*.json", "/app/config/local.json", true),
            ("/app/*/local.json", "/app/a/b/local.json", true),
            ("*/node_modules/*", "/app/node_modules/x/index.js", true),
            ("*/node_modules/*", "/app/index.js", false),
            ("/tmp/?", "/tmp/a", true),
            ("/tmp/?", "/tmp/", false),
            ("/tmp/[a-c]*", "/tmp/bee", true),
            ("/tmp/[!a-c]*", "/tmp/bee", false),
            ("/tmp/[]x]", "/tmp/]", true),
            ("/tmp/[a", "/tmp/[a", true),
            ("/tmp/\\*", "/tmp/*", true),
            ("/tmp/\\*", "/tmp/a", false),
            ("", "", true),
            ("*", "", true),
            ("**a**", "bab", true),
            ("hosts", "/etc/hosts", true),
            ("etc/hosts", "/etc/hosts", true),
            ("hosts", "hosts", true),
            ("hosts", "/etc/myhosts", false),
            ("hosts", "/hosts/a", false),
            ("/hosts", "/etc/hosts", false),
            ("host?", "/etc/hosts", false),
            ("a\\*", "/etc/a*", true),
            ("", "/etc/", false),
        ];
        for (pattern, path, want) in table {
            assert_eq!(
                Glob::new(pattern.as_bytes()).matches(path.as_bytes()),
                want,
                "{pattern} {path}"
            );
        }
        // Polynomial at the most: this ends at once.
        let pattern = "a*".repeat(100);
        assert!(!Glob::new(pattern.as_bytes()).matches(&[b'a'; 10_000].map(|b| b ^ 3)));
        assert!(!Glob::new(format!("{pattern}b").as_bytes()).matches(&vec![b'a'; 10_000]));
    }
}
