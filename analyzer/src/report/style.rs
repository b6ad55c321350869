//! Colours, or none. It must not decide whether the output is a terminal.

use std::fmt::{self, Display};

/// Whether to colour (ECMA-48 SGR sequences).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Colours are wanted.
    pub colour: bool,
}

/// Text with an attribute.
#[derive(Debug)]
pub struct Styled<'t>(&'t str, Option<&'static str>);

impl Display for Styled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(code) => write!(f, "\x1b[{code}m{}\x1b[0m", self.0),
            None => f.write_str(self.0),
        }
    }
}

impl Style {
    fn with<'t>(self, text: &'t str, code: &'static str) -> Styled<'t> {
        Styled(text, self.colour.then_some(code))
    }

    /// A heading.
    #[must_use]
    pub fn heading(self, text: &str) -> Styled<'_> {
        self.with(text, "1")
    }

    /// Something bad.
    #[must_use]
    pub fn bad(self, text: &str) -> Styled<'_> {
        self.with(text, "31")
    }

    /// Something that may be overlooked.
    #[must_use]
    pub fn dim(self, text: &str) -> Styled<'_> {
        self.with(text, "2")
    }
}
