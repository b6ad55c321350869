//! Names for code that lies in files and in the kernel, from the symbols that the capture carries.
//! It must not open a file: a capture is analysed away from the machine it was made on.

use formats::capture::{Capture, Object, Symbol};
use formats::text::clean_string;

use super::demangle::demangle;
use super::{FILE_CHARS, FUNCTION_CHARS, v8_name};
use crate::profile::{Kind, Reason, ResolvedFrame};

/// Prefix of V8's embedded builtins (V8's src/snapshot/embedded/embedded-file-writer.h).
const V8_BUILTIN: &[u8] = b"Builtins_";
/// The value of `js` in a capture whose JavaScript was read from V8's heap.
const HEAP: &str = "heap";
/// Symbols that are looked at left of an address: aliases and nested symbols are few.
const LOOK_BACK: usize = 64;

/// Symbols by object, sorted by address.
#[derive(Debug)]
pub(super) struct Natives<'c> {
    capture: &'c Capture,
    symbols: Vec<Vec<&'c Symbol>>,
    kernel: Option<u32>,
}

impl<'c> Natives<'c> {
    pub(super) fn new(capture: &'c Capture) -> Self {
        let mut symbols: Vec<Vec<&Symbol>> = vec![Vec::new(); capture.objects.len()];
        for symbol in &capture.symbols {
            if let Some(list) = symbols.get_mut(symbol.object as usize) {
                list.push(symbol);
            }
        }
        for list in &mut symbols {
            // Of several names of one place the last is taken: order them for a stable choice.
            list.sort_by_key(|s| (s.start, std::cmp::Reverse(s.size), std::cmp::Reverse(&s.name)));
            list.dedup();
        }
        let kernel = capture.objects.iter().position(|o| o.flags & Object::KERNEL != 0);
        Self { capture, symbols, kernel: kernel.map(|at| at as u32) }
    }

    /// The frame at a file offset. `call`: it is a return address, so the call lies before it.
    pub(super) fn file_frame(&self, object: u32, offset: u64, call: bool) -> ResolvedFrame {
        let Some(known) = self.capture.objects.get(object as usize) else {
            return ResolvedFrame::nameless(Kind::Unknown, Reason::Damaged);
        };
        if known.flags & Object::KERNEL != 0 {
            return self.kernel_frame(offset, call);
        }
        let module = Some(clean_string(&known.path, FILE_CHARS)).filter(|path| !path.is_empty());
        // V8 returns to the first byte of some builtins; where nothing lies before, it is that one.
        let returned_to = || self.find(object, offset).filter(|_symbol| call);
        let found = self.find(object, offset.saturating_sub(u64::from(call))).or_else(returned_to);
        let frame = match found {
            Some(symbol) => match symbol.name.strip_prefix(V8_BUILTIN) {
                // Where functions are named from the heap, this one is about to enter one: its frame is
                // not there yet, and the caller's has its name.
                Some(name) if !call && self.capture.meta.js == HEAP => {
                    ResolvedFrame::named(Kind::Builtin, clean_string(name, FUNCTION_CHARS))
                }
                Some(name) => v8_name::builtin(name),
                None => ResolvedFrame::named(Kind::Native, demangle(&symbol.name)),
            },
            None => ResolvedFrame::nameless(Kind::Native, self.reason(known)),
        };
        ResolvedFrame { module, ..frame }
    }

    /// The frame at a kernel address.
    pub(super) fn kernel_frame(&self, address: u64, call: bool) -> ResolvedFrame {
        let frame = match self.kernel {
            Some(object) => match self.find(object, address.saturating_sub(u64::from(call))) {
                Some(symbol) => ResolvedFrame::named(Kind::Kernel, demangle(&symbol.name)),
                None if self.symbols.get(object as usize).is_none_or(Vec::is_empty) => {
                    ResolvedFrame::nameless(Kind::Kernel, Reason::KernelHidden)
                }
                None => ResolvedFrame::nameless(Kind::Kernel, Reason::NoSymbol),
            },
            None => ResolvedFrame::nameless(Kind::Kernel, Reason::KernelHidden),
        };
        ResolvedFrame { module: Some("[kernel]".to_owned()), ..frame }
    }

    fn reason(&self, object: &Object) -> Reason {
        if object.flags & Object::DELETED != 0 {
            Reason::ObjectReplaced
        } else if object.flags & Object::UNREADABLE != 0 {
            Reason::ObjectUnreadable
        } else if object.flags & Object::STRIPPED != 0 {
            Reason::Stripped
        } else if self.capture.end.is_none() && self.capture.symbols.is_empty() {
            // Symbols are written last: the recorder was killed before.
            Reason::Damaged
        } else {
            Reason::NoSymbol
        }
    }

    /// The innermost symbol that covers an offset.
    fn find(&self, object: u32, offset: u64) -> Option<&'c Symbol> {
        let list = self.symbols.get(object as usize)?;
        let after = list.partition_point(|s| s.start <= offset);
        let before = list.get(after.saturating_sub(LOOK_BACK)..after)?;
        before.iter().rev().find(|s| offset - s.start < s.size).copied()
    }
}
