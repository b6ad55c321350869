//! Puts into the capture the names of the native and kernel addresses that occur, while the files
//! can still be read. Only names that are needed, each once.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};

use formats::capture::{CaptureWriter, Frame, Remark, Symbol};
use formats::kallsyms::{KallsymsParser, KernelSymbols};
use formats::limits::Limits;

use crate::process::objects::Objects;

/// Places remembered as already named; when full, some names are looked up again.
const MAX_KNOWN: usize = 1 << 18;

/// Which places wait for a name, and which have been asked for.
#[derive(Debug, Default)]
pub struct Naming {
    known: HashSet<(u32, u64)>,
    waiting: BTreeMap<u32, Vec<(u64, bool)>>,
    waiting_kernel: Vec<u64>,
    kernel: Option<KernelSymbols>,
    kernel_object: Option<u32>,
    kernel_hidden: bool,
}

/// Stands for the kernel in `known`, where no object has this index.
const KERNEL: u32 = u32::MAX;

impl Naming {
    /// A frame occurs in a stack: its symbol will be needed.
    pub fn occurs(&mut self, frame: Frame) {
        let (object, place, call) = match frame {
            // A return address is looked up by the byte before it, which belongs to the call.
            Frame::Native { object, offset, call } => {
                (object, offset.wrapping_sub(call.into()), call)
            }
            Frame::Kernel { address, call } => (KERNEL, address.wrapping_sub(call.into()), call),
            _ => return,
        };
        if self.known.len() > MAX_KNOWN {
            self.known.clear();
        }
        if !self.known.insert((object, place)) {
            return;
        }
        if object == KERNEL {
            self.waiting_kernel.push(place);
        } else {
            self.waiting.entry(object).or_default().push((place, call));
        }
    }

    /// Reads the kernel's symbols at once, not when the first of them is needed: while it is done nobody
    /// empties the rings.
    pub fn read_kernel(&mut self) {
        self.kernel.get_or_insert_with(read_kallsyms);
    }

    /// Writes the symbols of what has occurred since the last call.
    pub fn write<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        objects: &mut Objects,
        limits: &Limits,
        mut remark: impl FnMut(Remark),
    ) {
        for (index, offsets) in std::mem::take(&mut self.waiting) {
            if let Some(object) = objects.get_mut(index) {
                object.symbols(index, offsets.into_iter(), limits, |symbol| to.symbol(symbol));
            }
        }
        let addresses = std::mem::take(&mut self.waiting_kernel);
        if addresses.is_empty() || self.kernel_hidden {
            return;
        }
        let kernel = self.kernel.get_or_insert_with(read_kallsyms);
        if kernel.hidden() || kernel.is_empty() {
            self.kernel_hidden = true;
            let text = "kernel frames have no names: /proc/kallsyms hides its addresses \
                (kernel.kptr_restrict), run nrec as root"
                .to_owned();
            remark(Remark { code: "kernel-hidden".into(), text, count: addresses.len() as u64 });
            return;
        }
        let object = *self.kernel_object.get_or_insert_with(|| {
            let (index, row) = objects.intern_kernel();
            to.object(row);
            index
        });
        for address in addresses {
            if let Some(symbol) = kernel.lookup(address) {
                let name = match symbol.module {
                    Some(module) => format!("{} [{module}]", symbol.name),
                    None => symbol.name.to_owned(),
                };
                // kallsyms knows no sizes: the symbol is good for this address.
                to.symbol(Symbol { object, start: address, size: 1, name: name.into_bytes() });
            }
        }
    }
}

/// Reads `/proc/kallsyms`. An unreadable file gives no symbols.
fn read_kallsyms() -> KernelSymbols {
    let mut parser = KallsymsParser::new();
    if let Ok(mut file) = File::open("/proc/kallsyms") {
        let mut piece = vec![0; 64 << 10];
        while let Ok(length @ 1..) = file.read(&mut piece) {
            parser.push(piece.get(..length).unwrap_or_default());
        }
    }
    parser.finish()
}
